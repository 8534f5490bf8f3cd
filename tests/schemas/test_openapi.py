"""The builder: what an operation becomes in the description."""

from typing import Annotated, Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from schemas.openapi import FORM, JSON, Answer, Operation, build
from schemas.problems import KINDS


class Colour(BaseModel):
    """A colour."""

    name: str
    shade: int = 1


class Picture(BaseModel):
    """A picture."""

    colours: list[Colour] = Field(description="All of them.")


def operation(**change: Any) -> Operation:
    fields: dict[str, Any] = {
        "method": "POST",
        "path": "/pictures/{id}",
        "operation_id": "paint",
        "summary": "Paint",
        "description": "Paints.",
        "tags": ("pictures",),
        "parameters": ({"name": "id", "in": "path", "required": True, "schema": {"type": "string"}},),
        "request": Colour,
        "request_example": {"name": "red"},
        "answers": {201: Answer("Painted.", Picture, example={"colours": []})},
        "problems": (401, 422, 503),
        "security": ("key",),
    }
    return Operation(**(fields | change))


def document(*operations: Operation, **options: Any) -> dict[str, Any]:
    built = build(
        title="t",
        version="1",
        description="d",
        operations=operations or (operation(),),
        security_schemes={"key": {"type": "apiKey", "in": "header", "name": "Authorization"}},
        **options,
    )
    OpenAPIV31SpecValidator(built).validate()
    return built


def test_bodies_refer_to_components() -> None:
    built = document()
    painted = built["paths"]["/pictures/{id}"]["post"]
    request = painted["requestBody"]["content"]["application/json"]
    assert request == {"schema": {"$ref": "#/components/schemas/Colour"}, "example": {"name": "red"}}
    answer = painted["responses"]["201"]["content"]["application/json"]
    assert answer == {"schema": {"$ref": "#/components/schemas/Picture"}, "example": {"colours": []}}
    assert {"Colour", "Picture", "Problem", "FieldError"} <= set(built["components"]["schemas"])


def test_a_model_that_comes_and_goes_is_one_component() -> None:
    schemas = document(operation(answers={200: Answer("The same.", Colour)}))["components"]["schemas"]
    assert schemas["Colour"]["required"] == ["name"]


@pytest.mark.parametrize("status", sorted(KINDS))
def test_a_problem_is_described_by_its_kind(status: int) -> None:
    response = document(operation(problems=(status,)))["paths"]["/pictures/{id}"]["post"]["responses"][str(status)]
    assert response["description"].startswith(KINDS[status].title)
    assert response["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Problem"}
    headers = {401: {"WWW-Authenticate"}, 405: {"Allow"}, 429: {"Retry-After"}, 503: {"Retry-After"}}
    assert set(response.get("headers", {})) == headers.get(status, set())


def test_an_answer_may_be_any_type_in_any_media_type_or_nothing() -> None:
    text = operation(operation_id="a", path="/a", parameters=(), answers={200: Answer("A token.", str)})
    nothing = operation(operation_id="b", path="/b", parameters=(), answers={204: Answer("Done.")})
    other = operation(
        operation_id="c",
        path="/c",
        parameters=(),
        answers={200: Answer("Keys.", Picture, content_type="application/x")},
    )
    paths = document(text, nothing, other)["paths"]
    assert paths["/a"]["post"]["responses"]["200"]["content"]["application/json"]["schema"] == {"type": "string"}
    assert paths["/b"]["post"]["responses"]["204"] == {"description": "Done."}
    assert list(paths["/c"]["post"]["responses"]["200"]["content"]) == ["application/x"]


def test_a_form_leaves_out_what_json_says_null_for_and_ignores_what_it_does_not_know() -> None:
    class Token(BaseModel):
        model_config = ConfigDict(extra="forbid")

        token: str
        hint: Annotated[str, StringConstraints(max_length=8)] | None = Field(default=None, description="A hint.")

    content = document(operation(request=Token, request_types=(JSON, FORM)))["paths"]["/pictures/{id}"]["post"][
        "requestBody"
    ]["content"]
    assert content[JSON]["schema"] == {"$ref": "#/components/schemas/Token"}
    form = content[FORM]["schema"]
    assert form["required"] == ["token"]
    assert "additionalProperties" not in form
    assert form["properties"]["token"] == {"title": "Token", "type": "string", "minLength": 1}
    hint, empty = {"type": "string", "maxLength": 8}, {"type": "string", "maxLength": 0}
    assert form["properties"]["hint"] == {"anyOf": [hint, empty], "title": "Hint", "description": "A hint."}


def test_methods_of_one_path_stand_together() -> None:
    read = operation(method="GET", operation_id="look", request=None)
    assert list(document(operation(), read)["paths"]["/pictures/{id}"]) == ["post", "get"]


def test_servers_are_left_out_where_there_are_none() -> None:
    assert "servers" not in document()
    assert document(servers=[{"url": "https://example.org"}])["servers"] == [{"url": "https://example.org"}]
