"""Who may enter, and in what form a refusal is told; no socket and no token service."""

import json
from typing import Any

import pytest

from runner.apps.fast_lcm_diffusion import APP_ID, FastLcmDiffusion
from runner.doors import credentials
from runner.doors.access import (
    DECISION_KEY,
    AccessUnavailable,
    Admitted,
    Asks,
    Decision,
    Gate,
    KeyRefused,
    RefusedHttp,
    RefusedInBand,
    TokenNotRedeemed,
    TokenSpent,
    decide,
)
from runner.doors.credentials import ApiKey, BearerToken, MalformedCredentials, QueryToken
from runner.doors.inline import InlineApp
from runner.doors.routes import Registry
from runner.doors.tally import Tally
from runner.protocol import failures
from runner.protocol.failures import Failure
from schemas.errors import CloseCode, RealtimeErrorCode
from schemas.tokens import TokenClaims
from tests.runner.fakes import FakeEngine
from tokens.errors import ExpiredToken

PATH = f"/{APP_ID}/realtime"
REGISTRY = Registry({APP_ID: InlineApp(FastLcmDiffusion(FakeEngine()))})


def claims(*apps: str, **more: Any) -> TokenClaims:
    fields = {"iss": "i", "aud": "a", "sub": "key-1", "jti": "t-1", "iat": 0, "nbf": 0, "exp": 60}
    return TokenClaims(**fields | {"apps": list(apps or ("fast-lcm-diffusion",))} | more)


def verify(token: str) -> TokenClaims:
    """Tokens of these tests say what becomes of them; one with slashes or commas is a scope."""
    match token:
        case "expired":
            raise ExpiredToken("the token has expired; mint a new one")
        case "nokeys":
            raise AccessUnavailable("no public keys yet")
        case "full":
            return claims(max_connections=1)
        case "crowded":
            return claims(max_requests=1)
        case "spent" | "late" | "unredeemable" | "once":
            return claims(one_time=True, jti=token)
    return claims(*token.split(","))


def exchange(key: str, path: str) -> str:
    match key.partition(":")[0]:
        case "unknown":
            raise KeyRefused(401)
        case "narrow":
            raise KeyRefused(403)
        case "down":
            raise AccessUnavailable("no answer")
    return path


def redeem(token: str) -> None:
    match token:
        case "spent":
            raise TokenSpent
        case "late":
            raise TokenNotRedeemed
        case "unredeemable":
            raise AccessUnavailable("no answer")
    assert token == "once"  # nobody else's token is ever redeemed


def obstacle(claims: TokenClaims, by_key: bool) -> Failure | None:
    if claims.max_connections:
        return failures.limit_exceeded("max_connections is reached")
    return failures.overcrowded() if claims.max_requests else None


ASKS = Asks(verify, exchange, redeem, obstacle)


def decision(path: str = PATH, query: str = "", authorization: str | None = None) -> Decision:
    return decide(path, query, authorization, REGISTRY, ASKS)


@pytest.mark.parametrize(
    "credential",
    [
        {"query": "fal_jwt_token=fast-lcm-diffusion"},
        {"query": "max_buffering=2&fal_jwt_token=fast-lcm-diffusion"},
        {"query": f"fal_jwt_token={APP_ID}"},
        {"query": f"fal_jwt_token=other/x,{APP_ID}%2Frealtime"},
        {"query": "fal_jwt_token=*"},
        {"authorization": "Bearer fast-lcm-diffusion"},
        {"authorization": "bearer   fast-lcm-diffusion"},
        {"authorization": "Key id:secret"},
        {"authorization": "KEY id:secret"},
        {"authorization": "key id:secret"},
    ],
)
@pytest.mark.parametrize("doubled", ["", "/realtime"])
def test_good_credentials_enter(credential: dict[str, str], doubled: str) -> None:
    admitted = decision(PATH + doubled, **credential)
    assert isinstance(admitted, Admitted)
    assert admitted.route.path == f"{APP_ID}/realtime"
    assert admitted.claims.sub == "key-1"


def test_a_key_is_exchanged_for_the_endpoint_it_asks_for() -> None:
    admitted = decision(f"/{APP_ID}/image-to-image/realtime/realtime", authorization="Key id:secret")
    assert isinstance(admitted, Admitted)
    assert admitted.claims.apps == [f"{APP_ID}/image-to-image/realtime"]


@pytest.mark.parametrize(
    ("token", "path", "refusal"),
    [
        (
            "expired",
            PATH,
            RefusedInBand(
                RealtimeErrorCode.UNAUTHORIZED, "the token has expired; mint a new one", CloseCode.UNAUTHORIZED
            ),
        ),
        (
            "expired",
            "/no/such/app",
            RefusedInBand(
                RealtimeErrorCode.UNAUTHORIZED, "the token has expired; mint a new one", CloseCode.UNAUTHORIZED
            ),
        ),
        (
            "other/app",
            PATH,
            RefusedInBand(
                RealtimeErrorCode.FORBIDDEN,
                f"the token's allowed_apps do not include {APP_ID}/realtime",
                CloseCode.FORBIDDEN,
            ),
        ),
        (
            f"{APP_ID}/image-to-image/realtime",
            PATH,
            RefusedInBand(
                RealtimeErrorCode.FORBIDDEN,
                f"the token's allowed_apps do not include {APP_ID}/realtime",
                CloseCode.FORBIDDEN,
            ),
        ),
        (
            "fast-lcm-diffusion",
            f"/{APP_ID}/nothing",
            RefusedInBand(
                RealtimeErrorCode.NOT_FOUND, "there is no realtime endpoint at this path", CloseCode.NOT_FOUND
            ),
        ),
        (
            "nokeys",
            PATH,
            RefusedInBand(
                RealtimeErrorCode.UNAVAILABLE,
                "tokens cannot be checked now, try again later",
                CloseCode.TRY_AGAIN_LATER,
            ),
        ),
        (
            "full",
            PATH,
            RefusedInBand(RealtimeErrorCode.LIMIT_EXCEEDED, "max_connections is reached", CloseCode.LIMIT_EXCEEDED),
        ),
        (
            "crowded",
            PATH,
            RefusedInBand(
                RealtimeErrorCode.UNAVAILABLE,
                "too many tokens with max_requests are in use, try again later",
                CloseCode.TRY_AGAIN_LATER,
            ),
        ),
        (
            "spent",
            PATH,
            RefusedInBand(
                RealtimeErrorCode.UNAUTHORIZED, "the token was used already; mint a new one", CloseCode.UNAUTHORIZED
            ),
        ),
        (
            "late",
            PATH,
            RefusedInBand(
                RealtimeErrorCode.UNAUTHORIZED, "the token is no longer good; mint a new one", CloseCode.UNAUTHORIZED
            ),
        ),
        (
            "unredeemable",
            PATH,
            RefusedInBand(
                RealtimeErrorCode.UNAVAILABLE,
                "one-time tokens cannot be redeemed now, try again later",
                CloseCode.TRY_AGAIN_LATER,
            ),
        ),
    ],
)
def test_a_token_in_the_query_is_refused_in_band(token: str, path: str, refusal: RefusedInBand) -> None:
    assert decision(path, f"fal_jwt_token={token}") == refusal


@pytest.mark.parametrize(
    ("authorization", "path", "status", "detail", "header"),
    [
        (None, PATH, 401, "Send a token as ?fal_jwt_token=", ("WWW-Authenticate", "Key realm=")),
        ("Basic aWQ6c2VjcmV0", PATH, 401, "Authorization must be", ("WWW-Authenticate", "Key realm=")),
        ("Key", PATH, 401, "Invalid Key Authorization header format.", ("WWW-Authenticate", "Key realm=")),
        ("Key id", PATH, 401, "Invalid Key Authorization header format.", ("WWW-Authenticate", "Key realm=")),
        ("Key unknown:x", PATH, 401, "No user found for Key ID and Secret", ("WWW-Authenticate", "Key realm=")),
        ("Key narrow:x", PATH, 403, "the key may not use", ("WWW-Authenticate", "insufficient_scope")),
        ("Key down:x", PATH, 503, "keys cannot be checked now", ("Retry-After", "5")),
        ("Key id:secret", "/no/such/app", 404, "there is no realtime endpoint", None),
        ("Bearer expired", PATH, 401, "the token has expired", ("WWW-Authenticate", "invalid_token")),
        ("Bearer other/app", PATH, 403, "the token's allowed_apps", ("WWW-Authenticate", "insufficient_scope")),
        ("Bearer nokeys", PATH, 503, "tokens cannot be checked now", ("Retry-After", "5")),
        ("Bearer fast-lcm-diffusion", f"/{APP_ID}/x", 404, "there is no realtime endpoint", None),
        ("Bearer full", PATH, 429, "max_connections is reached", ("Retry-After", "5")),
        ("Bearer crowded", PATH, 503, "too many tokens", ("Retry-After", "5")),
        ("Bearer spent", PATH, 401, "the token was used already", ("WWW-Authenticate", "invalid_token")),
        ("Bearer unredeemable", PATH, 503, "one-time tokens cannot be redeemed", ("Retry-After", "5")),
    ],
)
def test_a_header_is_refused_with_a_status(
    authorization: str | None, path: str, status: int, detail: str, header: tuple[str, str] | None
) -> None:
    refused = decision(path, authorization=authorization)
    assert isinstance(refused, RefusedHttp)
    assert refused.status == status
    assert refused.detail.startswith(detail)
    assert header is None or header[1] in refused.headers[header[0]]


@pytest.mark.parametrize(
    ("path", "query"),
    [
        (PATH, "full"),
        (PATH, "crowded"),
        (f"/{APP_ID}/nothing", "spent"),
    ],
)
def test_a_one_time_token_that_is_refused_for_something_else_is_not_redeemed(path: str, query: str) -> None:
    def verify_once(token: str) -> TokenClaims:
        return verify(token).model_copy(update={"one_time": True})

    def never(_: str) -> None:
        raise AssertionError

    asks = Asks(verify_once, exchange, never, obstacle)
    assert isinstance(decide(path, f"fal_jwt_token={query}", None, REGISTRY, asks), RefusedInBand)


@pytest.mark.parametrize(("authorization", "by_key"), [("Bearer once", False), ("Key id:secret", True)])
def test_it_is_known_whether_a_key_opened_the_socket(authorization: str, by_key: bool) -> None:
    admitted = decision(authorization=authorization)
    assert isinstance(admitted, Admitted)
    assert admitted.by_key == by_key


def test_a_token_in_the_query_goes_before_the_header() -> None:
    assert isinstance(decision(query="fal_jwt_token=expired", authorization="Key id:secret"), RefusedInBand)


@pytest.mark.parametrize("query", ["fal_jwt_token=a&fal_jwt_token=b", "fal_jwt_token=", "fal_jwt_token"])
def test_a_token_that_is_empty_or_ambiguous_counts_as_an_empty_one(query: str) -> None:
    assert credentials.read(query, None) == QueryToken("")


def test_a_query_of_very_many_fields_is_not_read() -> None:
    assert credentials.read("&".join(["fal_jwt_token=x", *["a=1"] * 100]), None) is None


@pytest.mark.parametrize(
    "authorization", ["Key a:b:c", "Key a b:c", "Key :x", "Key x:", "Key " + "x" * 200 + ":y", "Key é:x", "", " "]
)
def test_damaged_headers_are_refused_and_not_repeated(authorization: str) -> None:
    with pytest.raises(MalformedCredentials) as caught:
        credentials.read("", authorization)
    assert str(caught.value).startswith(("Invalid Key", "Authorization must be"))


def test_credentials_do_not_show_in_a_repr() -> None:
    assert "secret" not in repr([QueryToken("secret"), BearerToken("secret"), ApiKey("id:secret")])


# The gate


def gate(environ: dict) -> object:
    return Gate(REGISTRY, ASKS, Tally())(environ)


def test_the_gate_leaves_its_decision_to_the_application() -> None:
    environ = {"PATH_INFO": PATH, "QUERY_STRING": "fal_jwt_token=*"}
    assert gate(environ) is None
    assert isinstance(environ[DECISION_KEY], Admitted)
    environ = {"PATH_INFO": PATH, "QUERY_STRING": "fal_jwt_token=expired"}
    assert gate(environ) is None
    assert isinstance(environ[DECISION_KEY], RefusedInBand)


def test_the_gate_answers_the_one_error_body() -> None:
    environ = {"PATH_INFO": PATH, "HTTP_AUTHORIZATION": "Key unknown:x"}
    refusal = gate(environ)
    assert DECISION_KEY not in environ
    assert refusal.status == 401
    headers = dict(refusal.headers)
    assert (headers["Content-Type"], headers["Cache-Control"]) == ("application/json", "no-store")
    body = json.loads(refusal.body)
    assert body.pop("instance").startswith("urn:uuid:")
    assert body == {
        "type": "/problems/unauthorized",
        "title": "The credentials are missing or not valid.",
        "status": 401,
        "detail": "No user found for Key ID and Secret",
        "error_type": "unauthorized",
    }


def test_no_credential_reaches_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    for authorization in ("Key unknown:S3CRET", "Key S3CRET", "Bearer expired", "Basic S3CRET"):
        gate({"PATH_INFO": PATH, "HTTP_AUTHORIZATION": authorization})
    assert len(caplog.records) == 4
    assert "S3CRET" not in caplog.text
