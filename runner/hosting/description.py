"""What an app's `/openapi.json` says besides FastAPI's own: its sockets, and fal's orders (contract §3)."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import TypeAdapter

from runner.apps.framework import RawSocketDeclaration, RealtimeDeclaration

SocketDeclaration = RawSocketDeclaration | RealtimeDeclaration


def describe(document: dict[str, Any], sockets: Iterable[SocketDeclaration], docs: Mapping[str, str]) -> None:
    """Adds to an OpenAPI document what it cannot say: `x-fal-protocol` for each socket, and a `post` in its place.

    Args:
        document: FastAPI's; changed in place.
        sockets: What the app declares of WebSockets.
        docs: The docstrings of the handlers, by their names.
    """
    paths, schemas = document.setdefault("paths", {}), document.setdefault("components", {}).setdefault("schemas", {})
    for socket in sockets:
        item = paths.setdefault(socket.path, {})
        item["x-fal-protocol"] = _protocol(socket)
        if isinstance(socket, RealtimeDeclaration) and (socket.input_model or socket.output_model):
            item.setdefault("post", _mirror(socket, docs.get(socket.handler, ""), schemas))
    document["x-fal-order-paths"] = list(paths)
    for schema in schemas.values():
        if "properties" in schema:
            schema["x-fal-order-properties"] = list(schema["properties"])


def _protocol(socket: SocketDeclaration) -> dict[str, Any]:
    if isinstance(socket, RawSocketDeclaration):
        config = {"buffering": None, "sessionTimeout": None, "maxBatchSize": 1}
        return {"type": "websocket", "operationId": socket.handler, "config": config}
    return {
        "type": "realtime",
        "operationId": socket.handler,
        "config": {
            "buffering": socket.buffering,
            "sessionTimeout": socket.session_timeout,
            "maxBatchSize": socket.max_batch_size,
        },
        "contentType": socket.content_type,
        "realtimeMode": socket.mode.value,
    }


def _mirror(socket: RealtimeDeclaration, text: str, schemas: dict[str, Any]) -> dict[str, Any]:
    """The `post` that shows a socket's input and output to tools that know nothing of sockets."""
    post: dict[str, Any] = {
        "operationId": f"{socket.handler}_post",
        "summary": f"Realtime endpoint: {socket.handler}",
        "description": text,
        "responses": {"204": {"description": "WebSocket message response"}},
    }
    if socket.input_model is not None:
        post["requestBody"] = {"content": _content(socket.input_model, schemas)}
    if socket.output_model is not None:
        response = {"description": "WebSocket message response", "content": _content(socket.output_model, schemas)}
        post["responses"] = {"200": response}
    return post


def _content(model: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    schema = TypeAdapter(model).json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(schema.pop("$defs", {}))
    name = getattr(model, "__name__", None)
    if name is not None and "properties" in schema:
        schemas[name] = schema
        schema = {"$ref": f"#/components/schemas/{name}"}
    return {"application/json": {"schema": schema}}
