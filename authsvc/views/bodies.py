"""JSON in, JSON out: how the views read a body and answer one."""

from typing import TypeVar

from flask import Response, request
from pydantic import BaseModel, ValidationError
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from httpbase.errors import InvalidBody
from schemas import limits
from schemas.errors import FieldError
from tokens.compact import load_json
from tokens.errors import MalformedToken

Model = TypeVar("Model", bound=BaseModel)


def read_json(model: type[Model]) -> Model:
    """The body of the current request.

    Raises:
        UnsupportedMediaType: it is not JSON by its Content-Type.
        RequestEntityTooLarge: it is over `limits.HTTP_BODY_MAX_BYTES`.
        InvalidBody: it does not fit the model.
    """
    if request.mimetype != "application/json":
        raise UnsupportedMediaType
    body = request.get_data(cache=False)
    if len(body) > limits.HTTP_BODY_MAX_BYTES:
        raise RequestEntityTooLarge
    try:
        found = model.model_validate_json(body)
    except ValidationError as error:
        raise InvalidBody.of(error) from None
    _check_strictness(body)
    return found


def _check_strictness(body: bytes) -> None:
    """Pydantic lets the last of two members count; a proxy that checks bodies may take the first (RFC 8259 §4)."""
    try:
        load_json(body, "body")
    except MalformedToken:
        message = "must name no member twice, and hold nothing that JSON does not have, such as NaN"
        raise InvalidBody([FieldError(loc=["body"], msg=message, type="json_invalid")]) from None


def answer(body: BaseModel, status: int = 200) -> Response:
    """A JSON answer that nobody may keep (RFC 9111 §5.2.2.5)."""
    return Response(body.model_dump_json(), status, {"Cache-Control": "no-store"}, content_type="application/json")
