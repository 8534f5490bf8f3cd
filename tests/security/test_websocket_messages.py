"""W6-W9, W11, W16: what comes over an open socket. Attacks on a real runner, or a door before a failing engine."""

import json
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import msgpack
import pytest
from gevent import socket as gevent_socket
from gevent.server import StreamServer
from websockets.frames import Opcode

from runner.engine.request import GenerationRequest, GenerationResult
from runner.protocol import codec
from runner.protocol.session import SessionRules
from schemas import limits
from schemas.errors import CloseCode
from tests.runner.doors.door import in_thread, running_door, token
from tests.runner.doors.websocket.raw import RawClient, announced, binary, close, continuation, masked, text
from tests.runner.fakes import FakeEngine
from tests.security.sockets import (
    APP,
    PATH,
    Attacker,
    attacking,
    close_code,
    error,
    is_alive,
    packed,
    raw_close,
    unmasked,
)
from tests.stack import Stack, running
from tests.tiny_bundle import make_tiny_bundle

MESSAGE_MAX_BYTES = 1 << 20
KERNEL_BYTES = 16 << 20
"""More than two sockets' buffers ever hold (net.ipv4.tcp_wmem and tcp_rmem: 4 and 6 MiB)."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    bundle = make_tiny_bundle(tmp_path_factory.mktemp("model") / "tiny")
    with running(bundle, max_message_bytes=str(MESSAGE_MAX_BYTES)) as started:
        yield started


@pytest.fixture
def attacker(stack: Stack) -> Iterator[Attacker]:
    with attacking(stack) as one:
        yield one


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        pytest.param([announced(MESSAGE_MAX_BYTES + 1)], 1009, id="too long, by its head alone"),
        pytest.param([announced(2**62)], 1009, id="an exabyte"),
        pytest.param(
            [binary(bytes(MESSAGE_MAX_BYTES), fin=False), continuation(b"x", fin=True)], 1009, id="too long in all"
        ),
        pytest.param(
            [binary(b"", fin=False), *[continuation(b"x")] * limits.MESSAGE_FRAGMENTS_MAX], 1009, id="1-byte fragments"
        ),
        pytest.param(
            [binary(b"", fin=False), *[continuation(b"")] * limits.MESSAGE_FRAGMENTS_MAX], 1009, id="empty fragments"
        ),
        pytest.param([unmasked(b"{}")], 1002, id="not masked"),
        pytest.param([masked(Opcode.TEXT, b"\xff\xfe")], 1007, id="no UTF-8"),
        pytest.param([masked(Opcode.TEXT, b"\xed\xa0\x80")], 1007, id="a surrogate"),
        pytest.param([b"\x83\x80\0\0\0\0"], 1002, id="a reserved opcode"),
        pytest.param([b"\x8b\x80\0\0\0\0"], 1002, id="a reserved control opcode"),
        pytest.param([continuation(b"x")], 1002, id="goes on with nothing"),
        pytest.param([text("a", fin=False), text("b")], 1002, id="a message in a message"),
        pytest.param([b"\x89\xfe\x00\x7e" + bytes(130)], 1002, id="a ping of 126 bytes"),
        pytest.param([b"\x09\x80\0\0\0\0"], 1002, id="a ping in fragments"),
        pytest.param([b"\x82\xff" + struct.pack("!Q", 2**63) + bytes(4)], 1009, id="a negative length"),
    ],
)
def test_w6_frames_that_break_the_rules_close_the_socket_with_the_code_that_says_which(
    attacker: Attacker, frames: list[bytes], code: int
) -> None:
    client = attacker.open()
    client.send(*frames)
    assert close_code(client) == code


@pytest.mark.parametrize("frame", [text("not json"), text("[]"), binary(b"\xc1"), binary(b""), text("")])
def test_w6_a_message_of_the_wrong_kind_is_told_so_and_the_session_goes_on(attacker: Attacker, frame: bytes) -> None:
    """Text and binary are both read here (JSON and msgpack), so 1003 never fits."""
    client = attacker.open()
    client.send(frame)
    assert error(client)[0] == "VALIDATION_ERROR"
    assert is_alive(client)


def test_w7_no_code_that_may_not_be_sent_is_among_ours() -> None:
    assert not {int(code) for code in CloseCode} & {1004, 1005, 1006, 1015}
    assert all(code < 1016 or 4000 <= code < 5000 for code in CloseCode)


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535])
def test_w7_a_code_that_may_not_be_sent_is_an_error(attacker: Attacker, code: int) -> None:
    client = attacker.open()
    client.send(raw_close(code))
    assert close_code(client) == 1002


@pytest.mark.parametrize(
    ("frame", "code"), [(close(), 1000), (close(1000), 1000), (close(1001, "bye"), 1001), (close(4999), 4999)]
)
def test_w7_a_close_is_answered_with_a_close(attacker: Attacker, frame: bytes, code: int) -> None:
    client = attacker.open()
    client.send(frame)
    assert close_code(client) == code


@pytest.mark.parametrize("frame", [raw_close(1000)[:1] + b"\x81" + bytes(5), close(1000, "x")[:2] + bytes(7)])
def test_w7_a_close_that_is_none_is_an_error(attacker: Attacker, frame: bytes) -> None:
    client = attacker.open()
    client.send(frame)
    assert close_code(client) == 1002


def test_w7_who_never_answers_a_close_is_let_go(attacker: Attacker) -> None:
    client = attacker.open()
    client.send(unmasked(b"x"))
    client.read_for_ever()


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "message",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"prompt": 7}, id="another type"),
        pytest.param({"prompt": "x" * (limits.PROMPT_MAX_CHARS + 1)}, id="a long prompt"),
        pytest.param({"prompt": "x", "num_inference_steps": 51}, id="too many steps"),
        pytest.param({"prompt": "x", "num_inference_steps": -1}, id="less than none"),
        pytest.param({"prompt": "x", "num_images": 2**63}, id="very many pictures"),
        pytest.param({"prompt": "x", "guidance_scale": float("nan")}, id="not a number"),
        pytest.param({"prompt": "x", "guidance_scale": float("inf")}, id="infinite"),
        pytest.param({"prompt": "x", "image_size": {"width": 10**6, "height": 8}}, id="a wide picture"),
        pytest.param({"prompt": "x", "image_size": {"width": 4096, "height": 4096}}, id="a large picture"),
        pytest.param({"prompt": "x", "seed": 2**64 - 1}, id="a large seed"),
        pytest.param({"prompt": "x", "request_id": "x" * 201}, id="a long id"),
        pytest.param({"prompt": "x", "other": nested(limits.MESSAGE_DEPTH_MAX)}, id="deep"),
        pytest.param({1: "x"}, id="a key that is no string"),
        pytest.param({"prompt": msgpack.ExtType(4, b"x")}, id="an extension type"),
        pytest.param({"prompt": msgpack.Timestamp(1)}, id="a time"),
        pytest.param({"prompt": "x", "other": [[]] * 700_000}, id="a small message that is large in memory"),
    ],
)
def test_w8_every_message_is_validated_and_a_bad_one_costs_one_answer(
    attacker: Attacker, message: dict[Any, Any]
) -> None:
    client = attacker.open()
    client.send(masked(Opcode.BINARY, msgpack.packb(message)))
    assert error(client)[0] == "VALIDATION_ERROR"
    assert is_alive(client)


@pytest.mark.parametrize(
    "head", [b"\xdf\xff\xff\xff\xff", b"\x81\xa1x\xdd\xff\xff\xff\xff", b"\x81\xa1x\xdb\x7f\xff\xff\xff"]
)
def test_w8_a_length_that_is_a_lie_allocates_nothing(attacker: Attacker, head: bytes) -> None:
    client = attacker.open()
    client.send(binary(head))
    assert error(client)[0] == "VALIDATION_ERROR"
    assert is_alive(client)


def test_w8_a_message_does_not_reach_what_its_token_does_not(attacker: Attacker) -> None:
    client = attacker.open(attacker.stack.mint(APP, max_pixels=64 * 64))
    client.send(packed(prompt="x", image_size={"width": 128, "height": 128}, path="/other/app", max_pixels=10**9))
    name, reason = error(client)
    assert name == "VALIDATION_ERROR"
    assert "max_pixels" in reason or "pixels" in reason


def png_head(width: int, height: int) -> bytes:
    """The beginning of a PNG of any size, which ends there."""
    header = b"IHDR" + struct.pack("!IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack("!I", 13) + header + struct.pack("!I", zlib.crc32(header))


def png_bomb(side: int) -> bytes:
    """A complete PNG, all black: a thousandth of what it decodes to."""
    data = zlib.compress(bytes((3 * side + 1) * side), 9)
    parts = [png_head(side, side)]
    for kind, body in ((b"IDAT", data), (b"IEND", b"")):
        parts.append(struct.pack("!I", len(body)) + kind + body + struct.pack("!I", zlib.crc32(kind + body)))
    return b"".join(parts)


@pytest.mark.parametrize(
    "picture",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"GIF89a" + bytes(100), id="another format"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", id="svg"),
        pytest.param(b"\x89PNG\r\n\x1a\n", id="a magic number and no more"),
        pytest.param(png_head(64, 64), id="truncated"),
        pytest.param(png_head(2**31 - 1, 2**31 - 1), id="a lie about its size"),
        pytest.param(png_bomb(5000), id="a bomb"),
    ],
)
def test_w9_a_picture_that_is_none_or_too_large_is_refused_before_it_is_decoded(
    attacker: Attacker, picture: bytes
) -> None:
    client = attacker.open()
    client.send(packed(prompt="x", image_bytes=picture, strength=0.5))
    name, reason = error(client)
    assert name == "VALIDATION_ERROR"
    assert reason.startswith("image_bytes")
    assert is_alive(client)


@pytest.mark.parametrize("scheme", ["http", "HTTP", "https", "ftp", "file", "gopher"])
def test_w9_no_address_is_fetched(attacker: Attacker, scheme: str) -> None:
    callers = []
    with StreamServer(("127.0.0.1", 0), lambda _, address: callers.append(address)) as inside:
        inside.start()
        client = attacker.open()
        url = f"{scheme}://127.0.0.1:{inside.server_port}/secret"
        client.send(packed(prompt="x", image_url=url, strength=0.5))
        name, reason = error(client)
        assert name == "VALIDATION_ERROR"
        assert reason.startswith("image_url")
        assert is_alive(client)
        assert callers == []


def flooded(client: RawClient, message: bytes, most: int) -> int:
    """How many bytes a peer takes of a flood that nobody answers."""
    sent, left = 0, memoryview(b"")
    client.sock.settimeout(2)
    with suppress(TimeoutError):
        while sent <= most:
            left = left or memoryview(message)
            count = client.sock.send(left)
            sent, left = sent + count, left[count:]
    return sent


@pytest.mark.parametrize("size", [1 << 10, 1 << 20, limits.IMAGE_BYTES_MAX])
def test_w11_a_session_takes_no_more_than_this_however_much_is_sent(size: int) -> None:
    """Nobody answers, nothing is dropped: what was sent and taken lies in the session, the inbox or the kernel."""
    engine = FakeEngine()
    engine.hold.clear()
    rules = SessionRules()
    most = rules.max_waiting_bytes + 2 * codec.DECODED_MAX_BYTES + limits.MESSAGE_MAX_BYTES + KERNEL_BYTES
    message = packed(prompt="x", image_bytes=bytes(size))
    with running_door(engine, rules) as door:
        client = RawClient(gevent_socket.create_connection(("127.0.0.1", door.server.server_port)))
        assert client.handshake(f"{PATH}?fal_jwt_token={token()}")[0] == 101
        taken = flooded(client, message, 2 * most)
        assert size < taken < most
        client.disconnect()
        engine.hold.set()


@pytest.mark.parametrize("kind", [RuntimeError, OSError, ValueError, KeyError])
def test_w16_what_goes_wrong_inside_is_told_by_an_id_that_the_log_has(
    caplog: pytest.LogCaptureFixture, kind: type[Exception]
) -> None:
    def fail(_: GenerationRequest) -> GenerationResult:
        raise kind("/srv/models/private.onnx: hunter2")

    def talk() -> dict[str, Any]:
        with door.client() as client:
            return client.ask(prompt="x")

    with running_door(FakeEngine(answer=fail)) as door:
        told = in_thread(talk)
    assert told["error"] == "INTERNAL_ERROR"
    assert told["error_id"] in caplog.text
    assert "hunter2" in caplog.text
    for inner in ("hunter2", "private", "Traceback", kind.__name__, "/srv"):
        assert inner not in json.dumps(told)


def test_w16_a_defect_of_the_door_is_told_by_an_id_alone(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("/srv/runner: hunter2")

    monkeypatch.setattr("runner.protocol.session.Session.receive", broken)
    with running_door() as door:
        client = RawClient(gevent_socket.create_connection(("127.0.0.1", door.server.server_port)))
        assert client.handshake(f"{PATH}?fal_jwt_token={token()}")[0] == 101
        client.send(packed(prompt="x"))
        ended = client.closed_with()
        client.disconnect()
    assert ended is not None
    assert ended.code == 1011
    assert "hunter2" not in ended.reason
    assert "hunter2" in caplog.text


def test_w16_the_errors_of_a_real_runner_name_nothing_of_its_machine(attacker: Attacker) -> None:
    client = attacker.open()
    said = []
    for message in ({"prompt": 1}, {"prompt": "x", "image_bytes": b"x"}, {"prompt": "x", "image_url": "file:///etc"}):
        client.send(packed(**message))
        said.append(error(client)[1])
    said += [attacker.knock(path=path)[3].decode() for path in ("/%00", "/../../etc/passwd", "/fal-ai/x/realtime")]
    said += [attacker.knock("nonsense", path="/a/b/c")[2].as_string()]
    for sentence in said:
        for inner in ("Traceback", ".py", str(attacker.stack.model), "File ", "pydantic", "/home", "site-packages"):
            assert inner not in sentence
