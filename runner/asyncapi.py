"""The AsyncAPI 3.0 description of the runner's sockets, made from the models that read and write their messages."""

from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel, TypeAdapter

from runner.protocol.session import DRAINED_REASON, SESSION_OVER_REASON
from schemas import limits
from schemas.errors import TIMEOUT_REASON, CloseCode, RealtimeErrorCode, RealtimeErrorMessage
from schemas.images import RealtimeInput, RealtimeOutput

Json = dict[str, Any]

MSGPACK: Final = "application/msgpack"
JSON: Final = "application/json"

CLOSE_CODES: Final[Mapping[CloseCode, str]] = {
    CloseCode.NORMAL: "No fault: the session was idle, reached its longest duration, or the client closed. "
    "Reconnect when needed.",
    CloseCode.GOING_AWAY: "The server stops. Reconnect elsewhere or later.",
    CloseCode.PROTOCOL_ERROR: "The frames broke RFC 6455. Mend the client.",
    CloseCode.UNSUPPORTED_DATA: "A kind of message that this endpoint does not take.",
    CloseCode.INVALID_DATA: "A text message was not UTF-8.",
    CloseCode.POLICY_VIOLATION: "The client asked for far more than its share. Slow down.",
    CloseCode.MESSAGE_TOO_BIG: f"A message was longer than {limits.MESSAGE_MAX_BYTES} bytes or the runner's own bound.",
    CloseCode.INTERNAL_ERROR: "The server failed; the reason is the id under which its log has the cause. Reconnect.",
    CloseCode.SERVICE_RESTART: f"The server restarts, after every answer it owed ({DRAINED_REASON}).",
    CloseCode.TRY_AGAIN_LATER: "The server cannot take another socket, or check tokens, now. Try again in seconds.",
    CloseCode.BAD_REQUEST: "A query parameter is wrong. Mend it.",
    CloseCode.UNAUTHORIZED: "The token is not valid, has expired, was used already or was revoked. Mint another.",
    CloseCode.FORBIDDEN: "The token does not open this path. Mint one that does.",
    CloseCode.NOT_FOUND: "There is no realtime endpoint at this path.",
    CloseCode.LIMIT_EXCEEDED: "A limit of the token is used up; the reason names it.",
}
"""What each close code that we send means, and what the client does about it."""

_PICTURE: Final = "<bytes of a JPEG>"

_INPUT_EXAMPLE: Final[Json] = {"prompt": "a small red star", "seed": 7, "request_id": "r-1"}
_OUTPUT_EXAMPLE: Final[Json] = {
    "images": [{"content": _PICTURE, "content_type": "image/jpeg", "width": 512, "height": 512}],
    "timings": {"queue": 0.001, "text": 0.002, "denoise": 0.08, "decode": 0.02, "encode": 0.004},
    "seed": 7,
    "num_inference_steps": 4,
    "request_id": "r-1",
    "dropped_inputs": 0,
    "has_nsfw_concepts": [],
    "nsfw_content_detected": [],
}
_ERROR_EXAMPLES: Final[Mapping[str, RealtimeErrorMessage]] = {
    "A field to mend; the session goes on": RealtimeErrorMessage(
        error=RealtimeErrorCode.VALIDATION_ERROR,
        reason="prompt: Field required",
        detail=[{"loc": ["body", "prompt"], "msg": "Field required", "type": "missing"}],
    ),
    "Idle; a close with 1000 follows": RealtimeErrorMessage(error=RealtimeErrorCode.TIMEOUT, reason=TIMEOUT_REASON),
    "A refused token; a close with 4003 follows": RealtimeErrorMessage(
        error=RealtimeErrorCode.FORBIDDEN,
        reason="the token's allowed_apps do not include fal-ai/fast-lcm-diffusion/realtime",
    ),
}

_QUERY: Final[Json] = {
    "type": "object",
    "properties": {
        "fal_jwt_token": {"type": "string", "description": "A token of `POST /tokens/realtime` or `POST /tokens/`."},
        "max_buffering": {
            "type": "integer",
            "minimum": 1,
            "maximum": limits.MAX_BUFFERING_MAX,
            "description": "How many inputs may wait; a newer one replaces the oldest, and the next result says how "
            "many were dropped. Without it every input is answered.",
        },
    },
}
_HEADERS: Final[Json] = {
    "type": "object",
    "properties": {
        "Authorization": {"type": "string", "description": "`Key <id>:<secret>` or `Bearer <token>`: no browser."},
    },
}
_PARAMETERS: Final[Json] = {
    "owner": {"description": "First part of the app's id.", "default": "fal-ai"},
    "alias": {"description": "Second part of the app's id.", "default": "fast-lcm-diffusion"},
}


def document() -> Json:
    """The description as a JSON document."""
    schemas, components = _schemas()
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "lcm-realtime runner",
            "version": "1",
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": MSGPACK,
        "servers": {"runner": {"host": "127.0.0.1:8002", "protocol": "ws", "description": "`wss` behind TLS."}},
        "channels": _channels(),
        "operations": _operations(),
        "components": {
            "messages": _messages(schemas),
            "schemas": components,
            "securitySchemes": {
                "token": {"type": "httpApiKey", "in": "query", "name": "fal_jwt_token"},
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "key": {"type": "httpApiKey", "in": "header", "name": "Authorization"},
            },
        },
    }


_DESCRIPTION: Final = f"""\
Realtime image generation over WebSockets, as fal's official clients speak it.

Inputs are binary msgpack maps; a JSON text works as well. Each is answered, in order, by one result (binary msgpack,
pictures as `bin`) or by one error (JSON text, type `x-fal-error`). An error about an input does not end the session.
A session without input ends with the error TIMEOUT and close code 1000; one that lasted for `max_session_s` with 1000
and the reason "{SESSION_OVER_REASON}".

A token in the query that is refused is told in band, after the upgrade: browsers hide a failed handshake's status.
Credentials in a header are refused with an HTTP status.

Apps of your own (`runner serve --app`) add channels of the same form with their own inputs and outputs, streaming ones
and raw WebSockets among them: their `/openapi.json` says which."""


def _channels() -> Json:
    bindings = {"ws": {"method": "GET", "query": _QUERY, "headers": _HEADERS, "bindingVersion": "0.1.0"}}
    realtime: Json = {
        "parameters": _PARAMETERS,
        "servers": [{"$ref": "#/servers/runner"}],
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in ("input", "result", "error")},
        "bindings": bindings,
        "x-close-codes": [{"code": int(code), "meaning": meaning} for code, meaning in CLOSE_CODES.items()],
    }
    return {
        "realtime": {
            "address": "/{owner}/{alias}/realtime",
            "title": "Realtime",
            "description": "Text-to-image; image-to-image where a picture comes along; inpainting with a mask as well.",
            **realtime,
        },
        "imageToImage": {
            "address": "/{owner}/{alias}/image-to-image/realtime",
            "title": "Image-to-image",
            "description": "As Realtime; an input without a picture is refused.",
            **realtime,
        },
        "inpainting": {
            "address": "/{owner}/{alias}/inpainting/realtime",
            "title": "Inpainting",
            "description": "As Realtime; an input without a picture and a mask is refused.",
            **realtime,
        },
        "httpOverWebSocket": {
            "address": "/ws/{owner}/{alias}{path}",
            "title": "HTTP over WebSocket",
            "description": "Each payload is the body of a POST to `/{owner}/{alias}{path}`, answered in turn: start, "
            "the body, end. The same holds for `/{owner}/{alias}{path}` on a host named `ws.…`.",
            "parameters": {**_PARAMETERS, "path": {"description": "`/stream`, or empty.", "default": "/stream"}},
            "servers": [{"$ref": "#/servers/runner"}],
            "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in ("payload", *_PARTS)},
            "bindings": bindings,
        },
    }


_PARTS: Final = ("start", "body", "end")


def _operations() -> Json:
    operations: Json = {}
    for channel in ("realtime", "imageToImage", "inpainting"):
        reference, name = {"$ref": f"#/channels/{channel}"}, channel[0].upper() + channel[1:]
        messages = f"#/channels/{channel}/messages"
        operations[f"generate{name}"] = {
            "action": "receive",
            "channel": reference,
            "title": "Send an input",
            "messages": [{"$ref": f"{messages}/input"}],
            "reply": {"channel": reference, "messages": [{"$ref": f"{messages}/{kind}"} for kind in _ANSWERS]},
            "security": [{"$ref": f"#/components/securitySchemes/{scheme}"} for scheme in ("token", "bearer", "key")],
        }
        operations[f"tell{name}"] = {
            "action": "send",
            "channel": reference,
            "title": "Be told without having asked: idle, refused, revoked",
            "messages": [{"$ref": f"{messages}/error"}],
        }
    over_websocket = {"$ref": "#/channels/httpOverWebSocket"}
    operations["post"] = {
        "action": "receive",
        "channel": over_websocket,
        "title": "Send the body of a request",
        "messages": [{"$ref": "#/channels/httpOverWebSocket/messages/payload"}],
        "reply": {
            "channel": over_websocket,
            "messages": [{"$ref": f"#/channels/httpOverWebSocket/messages/{part}"} for part in _PARTS],
        },
        "security": [{"$ref": f"#/components/securitySchemes/{scheme}"} for scheme in ("token", "bearer", "key")],
    }
    return operations


_ANSWERS: Final = ("result", "error")

_Mode = Literal["validation", "serialization"]
_PAYLOADS: Final[Mapping[str, tuple[type[BaseModel], _Mode]]] = {
    "input": (RealtimeInput, "validation"),
    "result": (RealtimeOutput, "serialization"),
    "error": (RealtimeErrorMessage, "serialization"),
}


def _schemas() -> tuple[Json, Json]:
    """The schema of each message, and the components that they refer to."""
    inputs: list[tuple[str, _Mode, TypeAdapter[Any]]] = [
        (name, mode, TypeAdapter(model)) for name, (model, mode) in _PAYLOADS.items()
    ]
    schemas, definitions = TypeAdapter.json_schemas(inputs, ref_template="#/components/schemas/{model}")
    return {name: schemas[name, mode] for name, mode, _ in inputs}, dict(definitions.get("$defs", {}))


def _messages(schemas: Json) -> Json:
    return {
        "input": {
            "title": "Input",
            "contentType": MSGPACK,
            "summary": "One binary message; or the same fields as a JSON text, pictures as data URIs.",
            "payload": schemas["input"],
            "examples": [{"name": "text-to-image", "payload": _INPUT_EXAMPLE}],
        },
        "result": {
            "title": "Result",
            "contentType": MSGPACK,
            "summary": "One binary message. `content` is msgpack `bin`: the encoded picture itself.",
            "payload": schemas["result"],
            "examples": [{"name": "one-picture", "payload": _OUTPUT_EXAMPLE}],
        },
        "error": {
            "title": "Error",
            "contentType": JSON,
            "summary": "One text message, whatever the codec of the inputs.",
            "payload": schemas["error"],
            "examples": [
                {"summary": summary, "payload": error.model_dump(mode="json", exclude_none=True)}
                for summary, error in _ERROR_EXAMPLES.items()
            ],
        },
        **_messages_of_http(),
    }


_REQUEST_ID: Final = "0e2c7b6e-5b0c-4d35-9f38-0b9a2a3a6a51"


def _messages_of_http() -> Json:
    """The messages of HTTP over WebSocket: see `protocol.http_over_websocket`, which makes them."""
    ids: Json = {
        "request_id": {"type": "string", "format": "uuid", "description": "The same in start and end."},
        "status": {"type": "integer", "description": "Of HTTP."},
    }
    start = {
        "type": {"const": "start"},
        **ids,
        "headers": {"type": "object", "additionalProperties": {"type": "string"}},
    }
    end = {"type": {"const": "end"}, **ids, "time_to_first_byte_seconds": {"type": "number"}}
    return {
        "payload": {
            "title": "Payload",
            "contentType": JSON,
            "summary": "One text message: the JSON body of the request.",
            "payload": {"type": "object"},
            "examples": [{"payload": {"prompt": "a small red star"}}],
        },
        "start": {
            "title": "Start",
            "contentType": JSON,
            "summary": "One text message: the head of the answer.",
            "payload": {"type": "object", "required": list(start), "properties": start},
            "examples": [
                {
                    "payload": {
                        "type": "start",
                        "request_id": _REQUEST_ID,
                        "status": 200,
                        "headers": {"Content-Type": "text/event-stream"},
                    }
                }
            ],
        },
        "body": {
            "title": "Body",
            "contentType": "application/octet-stream",
            "summary": "Binary messages: one for each event of a stream, one for a JSON body.",
            "payload": {"type": "string", "format": "binary"},
            "examples": [{"payload": 'data: {"images": []}\n\n'}],
        },
        "end": {
            "title": "End",
            "contentType": JSON,
            "summary": "One text message. Another status than the start's: the body broke off.",
            "payload": {"type": "object", "required": list(end), "properties": end},
            "examples": [
                {
                    "payload": {
                        "type": "end",
                        "request_id": _REQUEST_ID,
                        "status": 200,
                        "time_to_first_byte_seconds": 0.034,
                    }
                }
            ],
        },
    }
