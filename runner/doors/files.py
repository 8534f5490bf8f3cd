"""`GET /files/NAME`: pictures that answers link to. The name is the capability: whoever has it may look."""

import time
from typing import Final

from flask import Blueprint, Response, request
from werkzeug.exceptions import NotFound, RequestedRangeNotSatisfiable

from runner.media.store import MediaStore
from schemas.openapi import Answer, Operation

_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    # Pages of any origin may show it and read its pixels: no cookie opens it, its name does.
    "Access-Control-Allow-Origin": "*",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Referrer-Policy": "no-referrer",
}


def blueprint(store: MediaStore) -> Blueprint:
    """The route of the files."""
    routes = Blueprint("files", __name__)

    @routes.get("/files/<name>")
    def read(name: str) -> Response:
        file = store.get(name)
        if file is None:
            raise NotFound("There is no such file, or it has expired. Ask for the picture again.")
        response = Response(file.content, content_type=file.content_type, headers=_HEADERS)
        left_s = max(file.expires_at - int(time.time()), 0)
        response.headers["Cache-Control"] = f"private, max-age={left_s}, immutable"
        response.set_etag(name.partition(".")[0])
        return _conditional(response, len(file.content))

    return routes


def _conditional(response: Response, length: int) -> Response:
    try:
        response.make_conditional(request, accept_ranges=True, complete_length=length)
    except RequestedRangeNotSatisfiable:
        # RFC 9110 §14.2: a server may ignore a range, and all of a picture says more than an error.
        response.headers["Accept-Ranges"] = "bytes"
    return response


_BINARY: Final = {"type": "string", "format": "binary"}

OPERATIONS: Final = (
    Operation(
        "GET",
        "/files/{name}",
        operation_id="getFile",
        summary="A picture that an answer linked to",
        description="The name is the capability: no credentials are asked for. It is there until it expires, and "
        "ranges of it can be read.",
        tags=("files",),
        parameters=({"name": "name", "in": "path", "required": True, "schema": {"type": "string"}},),
        answers={
            200: Answer(
                "The picture.",
                bytes,
                content_type="image/jpeg",
                alternatives={"image/png": _BINARY, "image/webp": _BINARY},
            )
        },
        problems=(404,),
    ),
)
