"""What `/openapi.json` of the runner tells its reference page."""

from openapi_spec_validator import OpenAPIV31SpecValidator

from runner import asyncapi, openapi


def test_the_description_is_valid() -> None:
    OpenAPIV31SpecValidator(openapi.document()).validate()


def test_apps_take_every_kind_of_credential_and_health_takes_none() -> None:
    document = openapi.document()
    draw = document["paths"]["/fal-ai/fast-lcm-diffusion"]["post"]
    assert draw["security"] == [{"key": []}, {"bearer": []}, {"token": []}]
    assert set(document["components"]["securitySchemes"]) == {"key", "bearer", "token"}
    assert "security" not in document["paths"]["/health/live"]["get"]


def test_credentials_have_the_same_names_for_http_and_for_sockets() -> None:
    assert set(asyncapi.document()["components"]["securitySchemes"]) == set(openapi.SECURITY_SCHEMES)
