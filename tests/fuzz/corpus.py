"""Where a fuzzer begins: inputs that get far into each target, made the same way every time."""

import base64
import io
import json
from typing import Final

import msgpack
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from PIL import Image
from websockets.frames import Close, Frame, Opcode

from runner.engine.framing import encode_frame
from runner.engine.messages import Cancel, Failed, Progress, Refused, encode_message
from runner.hosting import frames
from tokens.keys import SigningKey
from tokens.mint import mint, new_claims

ISSUED_AT: Final = 1_800_000_000.0
_KEY: Final = SigningKey.of(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
KEYS: Final = {_KEY.kid: _KEY.public}


def _frame(opcode: Opcode, data: bytes, *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=True)


def _picture(kind: str, **options: object) -> bytes:
    pixels = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def _token(*apps: str) -> bytes:
    claims = new_claims(
        issuer="fuzz-issuer",
        audience="fuzz-runner",
        subject="s",
        apps=apps,
        now=ISSUED_AT,
        duration_s=60,
    )
    return mint(_KEY, claims.model_copy(update={"jti": "fuzz-token-1"})).encode()


_PROMPT: Final = {"prompt": "a red star", "seed": 7, "image_size": {"width": 64, "height": 64}, "request_id": "r"}
_TEXT: Final = b"\x00" + json.dumps(_PROMPT).encode()
_BINARY: Final = b"\x01" + msgpack.packb({**_PROMPT, "image_bytes": b"\xff\xd8\xff", "strength": 0.5})
_HEADERS: Final = b"Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
_PICTURES: Final = [
    _picture("jpeg"),
    _picture("jpeg", progressive=True),
    _picture("png"),
    _picture("webp"),
    _picture("webp", lossless=True),
]

SEEDS: Final[dict[str, list[bytes]]] = {
    "websocket_frames": [
        b"\x05" + _frame(Opcode.TEXT, "prömpt".encode()),
        b"\xff" + _frame(Opcode.BINARY, b"ab", fin=False) + _frame(Opcode.PING, b"x") + _frame(Opcode.CONT, b"c"),
        b"\x20" + _frame(Opcode.TEXT, b"a") + _frame(Opcode.CLOSE, Close(1000, "bye").serialize()),
        b"\x20" + _frame(Opcode.CLOSE, b""),
        b"\x01" + _frame(Opcode.BINARY, bytes(200)) + _frame(Opcode.BINARY, bytes(70000)),
    ],
    "http_handshake": [
        b"GET /fal-ai/x/realtime?a=b\n" + _HEADERS + b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        b"GET /\n" + _HEADERS + b"Sec-WebSocket-Key: x\r\nOrigin: https://a.example\r\n\r\n",
        b"POST /\n" + _HEADERS + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
    "message_codec": [
        _TEXT,
        _BINARY,
        b"\x00[1,2]",
        b"\x01\x82\xa1a\x01\xa1a\x02",
        b"\x01\xd4\x01\x00",
        b'\x00{"a":NaN}',
    ],
    "realtime_session": [
        _TEXT + b"\xc1\xc1" + _BINARY + b"\xc1\xc1" + b'\x00{"prompt": 1}',
        b'\x00{"prompt":"x","image_size":"square","mask_url":"aGk=","num_images":2}',
        b'\x00{"prompt":"x","image_size":{"width":0},"seed":-1,"format":"gif"}',
    ],
    "query_and_credentials": [
        b"fal_jwt_token=t0k3n&max_buffering=2\n",
        b"a=b&%66al_jwt_token=t0k3n;fal%5Fjwt_token=t0k3n\nKey id:t0k3n",
        b"fal_jwt_token=t0k3n&fal_jwt_token=t0k3n\nBearer t0k3n",
        b"max_buffering=2&max_buffering=3\nkey   a:t0k3n:c",
    ],
    "paths_and_scopes": [
        b"/fal-ai/fast-lcm-diffusion/image-to-image/realtime\nfal-ai/fast-lcm-diffusion",
        b"/workflows/me/x/realtime\nx",
        b"//a/../b\n*",
        b"/a/b\na/b/c",
    ],
    "token": [_token("fal-ai/fast-lcm-diffusion"), _token("x", "y/z")],
    "data_uri": [
        b"data:image/png;base64," + base64.b64encode(_PICTURES[2]),
        b"DATA:;base64,aGk=",
        b"data:text/plain,hi",
        b"https://a.example/x.png",
        b"aGk",
    ],
    "picture": _PICTURES,
    "http_over_websocket": [
        _TEXT + b"\xc1\xc1" + _BINARY,
        b"\x00event: e\r\ndata: 1\r\n\r\ndata: 2\n\n: ping\n\ndata: 3\r\rdata",
    ],
    "hosting_frames": [
        b"\x07"
        + frames.encode((frames.READY, 0))
        + b"".join(frames.encode_data(5, b"abc", 1))
        + frames.encode((frames.END, 5, 1000, "")),
        b"\xff" + frames.encode((frames.ENDPOINTS, 0, (("http", "/", None),))),
    ],
    "engine_frames": [
        b"\x03" + b"".join(encode_frame(encode_message(one)) for one in (Cancel(1), Progress(3), Failed(2, "id"))),
        b"\xff" + encode_frame(encode_message(Refused(3, "prompt", "too long", "value_error"))),
    ],
}
