"""The query of a request, read by a model as strictly as a body is."""

from collections.abc import Sequence
from typing import Any, TypeVar

from flask import request
from pydantic import BaseModel, ValidationError

from httpbase.errors import InvalidBody
from schemas.errors import FieldError

Model = TypeVar("Model", bound=BaseModel)


def read_query(model: type[Model]) -> Model:
    """The query of the current request.

    Raises:
        InvalidBody: a parameter does not fit, is unknown, or was sent twice; the error names it.
    """
    twice = [name for name, values in request.args.lists() if len(values) > 1]
    if twice:
        raise InvalidBody([_fault(name, "send it once", "value_error") for name in twice])
    try:
        return model.model_validate(request.args.to_dict())
    except ValidationError as error:
        entries = error.errors(include_url=False, include_input=False, include_context=False)
        raise InvalidBody(
            [_fault(*entry["loc"], entry["msg"].removeprefix("Value error, "), entry["type"]) for entry in entries]
        ) from None


def parameters(model: type[BaseModel]) -> Sequence[dict[str, Any]]:
    """The model's fields as OpenAPI parameters."""
    schema = model.model_json_schema()
    return [
        {
            "name": name,
            "in": "query",
            "description": described.pop("description", ""),
            "schema": _resolved(described, schema.get("$defs", {})),
        }
        for name, described in schema["properties"].items()
    ]


def _resolved(described: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """A parameter cannot be null, only absent; and it refers to nothing."""
    (kind,) = [one for one in described.get("anyOf", [described]) if one.get("type") != "null"]
    if "$ref" in kind:
        kind = definitions[kind["$ref"].rpartition("/")[2]]
    default = {"default": described["default"]} if described.get("default") is not None else {}
    return {key: value for key, value in kind.items() if key not in ("title", "description")} | default


def _fault(*parts: Any) -> FieldError:
    *loc, message, kind = parts
    return FieldError(loc=["query", *loc], msg=message, type=kind)
