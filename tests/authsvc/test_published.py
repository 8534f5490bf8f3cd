"""What is public: the key set, health, and the description of the service."""

import re

import pytest
import yaml
from openapi_spec_validator import OpenAPIV31SpecValidator

from authsvc import openapi
from authsvc.domain import api_keys, signing_keys
from schemas.keys import Role
from schemas.tokens import TokenRequest
from tests.authsvc.conftest import Authsvc
from tokens.keys import parse_jwks

DESCRIBED = {(operation.method, operation.path): operation for operation in openapi.OPERATIONS}


def test_j14_the_key_set_has_its_media_type_and_may_be_kept_for_a_while(authsvc: Authsvc) -> None:
    response = authsvc.client.get("/.well-known/jwks.json")
    assert response.content_type == "application/jwk-set+json"
    assert response.headers["Cache-Control"] == "public, max-age=60"
    assert len(parse_jwks(response.data)) == 2


def test_j14_the_key_set_has_public_members_only(authsvc: Authsvc) -> None:
    for jwk in authsvc.client.get("/.well-known/jwks.json").get_json(force=True)["keys"]:
        assert jwk.keys() == {"kty", "crv", "x", "alg", "use", "kid"}


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
def test_health_answers(authsvc: Authsvc, path: str) -> None:
    assert authsvc.client.get(path).json == {"status": "ok"}


@pytest.mark.parametrize("origin", ["null", "https://evil.example"])
def test_no_other_origin_is_let_in(authsvc: Authsvc, origin: str) -> None:
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    response = authsvc.client.options("/tokens/", headers=headers)
    assert not [name for name, _ in response.headers if name.lower().startswith("access-control")]


def test_h10_every_route_is_described_and_every_description_is_a_route(authsvc: Authsvc) -> None:
    routes = {
        (method, re.sub("<[a-z_]+>", "{}", rule.rule))
        for rule in authsvc.app.url_map.iter_rules()
        if not rule.endpoint.startswith("reference.")
        for method in rule.methods or ()
        if method not in ("HEAD", "OPTIONS")
    }
    second_spellings = {("POST", "/tokens"), ("POST", "/tokens/realtime/")}
    described = {(method, re.sub("{[a-z_]+}", "{}", path)) for method, path in DESCRIBED}
    assert routes - second_spellings == described


def test_the_description_is_valid_and_the_same_in_json_and_yaml(authsvc: Authsvc) -> None:
    document = authsvc.client.get("/openapi.json").json
    OpenAPIV31SpecValidator(document).validate()
    response = authsvc.client.get("/openapi.yaml")
    assert response.content_type == "application/yaml"
    assert yaml.safe_load(response.text) == document == openapi.document()


def test_the_description_of_minting_is_complete(authsvc: Authsvc) -> None:
    document = authsvc.client.get("/openapi.json").json
    mint = document["paths"]["/tokens/realtime"]["post"]
    assert set(mint["responses"]) == {"201", "401", "403", "413", "415", "422", "429", "503"}
    assert mint["security"] == [{"key": []}]
    assert "key" in document["components"]["securitySchemes"]
    request = document["components"]["schemas"]["TokenRequest"]
    assert set(request["properties"]) == set(TokenRequest.model_fields)


@pytest.mark.parametrize("operation", DESCRIBED.values(), ids=lambda operation: operation.operation_id)
def test_h10_an_example_gets_the_described_answer(authsvc: Authsvc, operation: openapi.openapi.Operation) -> None:
    key_id = authsvc.key("*").split(":")[0]
    with authsvc.context.database.writing() as session:
        _, credential = api_keys.create(session, apps=["*"], roles=list(Role), now=authsvc.clock())
        kid = signing_keys.listing(session)[0].kid
    authsvc.clock.now += signing_keys.SETTLED_AFTER_S  # or a rotation would wait for a clock that stands still
    response = authsvc.client.open(
        re.sub("{[a-z_]+}", kid if "signing-keys" in operation.path else key_id, operation.path),
        method=operation.method,
        json=operation.request_example,
        headers={"Authorization": f"Key {credential}"} if operation.security else {},
    )
    assert response.status_code in {*operation.answers, *operation.problems}, response.text
    if response.status_code in operation.answers:
        assert response.mimetype == operation.answers[response.status_code].content_type
    else:
        # No example holds a token that is good.
        assert "token" in (operation.request_example or {"token": None}), response.text


def test_the_page_loads_nothing_from_elsewhere(authsvc: Authsvc) -> None:
    page = authsvc.client.get("/docs")
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "http" not in policy
    assert not re.search(r"<script>|on[a-z]+=|https?://", page.text)
    for link in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        asset = authsvc.client.get(link)
        assert asset.status_code == 200
        assert asset.data
