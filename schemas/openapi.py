"""Builds an OpenAPI 3.1 description from operations that stand beside the code they describe."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from pydantic import TypeAdapter

from schemas.errors import Problem
from schemas.problems import KINDS

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
Json = dict[str, Any]

JSON: Final = "application/json"
FORM: Final = "application/x-www-form-urlencoded"
_PROBLEM_HEADERS: Final[Mapping[int, tuple[str, str]]] = {
    401: ("WWW-Authenticate", "The scheme to authenticate with."),
    405: ("Allow", "The methods that the path takes."),
    429: ("Retry-After", "Seconds to wait."),
    503: ("Retry-After", "Seconds to wait."),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that is no problem. `model` is any type that pydantic knows; None means no body."""

    description: str
    model: Any = None
    content_type: str = JSON
    example: Any = None
    alternatives: Mapping[str, Json] = field(default_factory=dict)
    """Other media types that it comes in, and their schemas."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path. `problems` are the statuses of `schemas.problems.KINDS` that it can end in."""

    method: Method
    path: str
    operation_id: str
    summary: str
    description: str
    tags: Sequence[str]
    answers: Mapping[int, Answer]
    problems: Sequence[int] = ()
    request: Any = None
    request_example: Any = None
    request_types: Sequence[str] = (JSON,)
    """The media types that the body may come in."""
    parameters: Sequence[Json] = ()
    """OpenAPI parameter objects, as they are."""
    security: Sequence[str] = field(default=())
    """Names of security schemes, any one of which will do."""


def build(
    *,
    title: str,
    version: str,
    description: str,
    operations: Sequence[Operation],
    servers: Sequence[Json] = (),
    security_schemes: Mapping[str, Json] | None = None,
) -> Json:
    """Describes a service.

    Args:
        title: The service's name.
        version: The version of the description.
        description: What the service is for, in Markdown.
        operations: Everything that it answers.
        servers: OpenAPI server objects.
        security_schemes: What the operations' `security` names.

    Returns:
        A document that JSON and YAML can carry, in the order of `operations`.
    """
    schemas, components = _schemas(operations)
    paths: Json = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, schemas, components)
    document: Json = {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "description": description},
        "servers": list(servers),
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": dict(security_schemes or {})},
    }
    return document if servers else {key: value for key, value in document.items() if key != "servers"}


_Schemas = Mapping[tuple[str, str], Json]


def _schemas(operations: Sequence[Operation]) -> tuple[_Schemas, Json]:
    """The schema of every body by (place, mode), and the components that they refer to."""
    inputs: list[tuple[str, Literal["validation", "serialization"], TypeAdapter[Any]]] = [
        ("problem", "serialization", TypeAdapter(Problem))
    ]
    for operation in operations:
        if operation.request is not None:
            inputs.append((operation.operation_id, "validation", TypeAdapter(operation.request)))
        inputs.extend(
            (f"{operation.operation_id} {status}", "serialization", TypeAdapter(answer.model))
            for status, answer in operation.answers.items()
            if answer.model is not None
        )
    schemas, definitions = TypeAdapter.json_schemas(inputs, ref_template="#/components/schemas/{model}")
    return {(place, mode): dict(schema) for (place, mode), schema in schemas.items()}, dict(
        sorted(definitions.get("$defs", {}).items())
    )


def _operation(operation: Operation, schemas: _Schemas, components: Json) -> Json:
    described: Json = {
        "operationId": operation.operation_id,
        "summary": operation.summary,
        "description": operation.description,
        "tags": list(operation.tags),
    }
    if operation.parameters:
        described["parameters"] = [dict(parameter) for parameter in operation.parameters]
    if operation.request is not None:
        schema = schemas[operation.operation_id, "validation"]
        content = {
            kind: _media(_as_form(schema, components) if kind == FORM else schema, operation.request_example)
            for kind in operation.request_types
        }
        described["requestBody"] = {"required": True, "content": content}
    described["responses"] = _responses(operation, schemas)
    if operation.security:
        described["security"] = [{name: []} for name in operation.security]
    return described


def _responses(operation: Operation, schemas: _Schemas) -> Json:
    responses: Json = {}
    for status, answer in operation.answers.items():
        response: Json = {"description": answer.description}
        if answer.model is not None:
            schema = schemas[f"{operation.operation_id} {status}", "serialization"]
            response["content"] = {answer.content_type: _media(schema, answer.example)} | {
                content_type: _media(dict(other), None) for content_type, other in answer.alternatives.items()
            }
        responses[str(status)] = response
    for status in operation.problems:
        responses[str(status)] = _problem(status, schemas["problem", "serialization"])
    return responses


def _problem(status: int, schema: Json) -> Json:
    response: Json = {"description": f"{KINDS[status].title} {KINDS[status].remedy}"}
    if status in _PROBLEM_HEADERS:
        name, description = _PROBLEM_HEADERS[status]
        response["headers"] = {name: {"description": description, "schema": {"type": "string"}}}
    return response | {"content": {JSON: {"schema": schema}}}


def _as_form(schema: Json, components: Json) -> Json:
    """The same body as a form, which says null by leaving a field out.

    Its reader ignores unknown fields, and takes an empty one as if it were not there (RFC 6749 §3.2).
    """
    body = components[schema["$ref"].rpartition("/")[2]]
    required = body.get("required", ())
    properties = {
        name: _form_field(described, is_required=name in required) for name, described in body["properties"].items()
    }
    return {key: value for key, value in body.items() if key != "additionalProperties"} | {"properties": properties}


def _form_field(described: Json, *, is_required: bool) -> Json:
    kinds = [kind for kind in described.get("anyOf", [described]) if kind.get("type") != "null"]
    said: Json = {key: described[key] for key in ("title", "description") if key in described}
    if is_required:
        kind: Json = kinds[0]
        return kind | {"minLength": max(1, kind.get("minLength", 0))} | said
    return {"anyOf": [*kinds, {"type": "string", "maxLength": 0}]} | said


def _media(schema: Json, example: Any) -> Json:
    return {"schema": schema} if example is None else {"schema": schema, "example": example}
