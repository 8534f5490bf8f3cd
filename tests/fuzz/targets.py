"""What is fuzzed. Each target takes bytes, swallows the errors that are documented, and raises whatever else comes."""

import io
import json
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any, Final

import msgpack
import numpy as np
from websockets.frames import Close
from websockets.http11 import Response

from httpbase.framing import AmbiguousBody, MalformedHeader, read_message
from runner.apps import pictures as sent_pictures
from runner.doors import credentials, routes
from runner.doors.websocket import Refusal, handshake
from runner.doors.websocket.protocol import MessageProtocol
from runner.engine import messages, pictures
from runner.engine.framing import FrameDecoder, FramingError
from runner.engine.request import InvalidRequest
from runner.hosting import frames
from runner.protocol import codec, failures, session
from runner.protocol import http_over_websocket as over_websocket
from runner.protocol.session import Session, SessionRules
from schemas.images import RealtimeInput, RealtimeOutput
from tests.fuzz.corpus import ISSUED_AT, KEYS, SEEDS
from tokens.errors import TokenError
from tokens.scope import covers
from tokens.verify import verify

Target = Callable[[bytes], None]

_MESSAGE_MAX_BYTES: Final = 64 * 1024
_SECRET: Final = "t0k3n"


def _chunks(data: bytes) -> Iterator[bytes]:
    """`data` in pieces whose lengths it says itself, so that a fuzzer can move the borders."""
    start, step = 0, 1 + (data[0] if data else 0)
    while start < len(data):
        yield data[start : start + step]
        start, step = start + step, 1 + data[start] * 3


def websocket_frames(data: bytes) -> None:
    """Frames of a peer: messages within bounds, or a close of ours; the parser itself never raises."""
    protocol = MessageProtocol(
        max_message_bytes=_MESSAGE_MAX_BYTES, max_frame_bytes=_MESSAGE_MAX_BYTES, max_fragments=16
    )
    for chunk in _chunks(data):
        was_open = protocol.is_open
        protocol.receive_data(chunk)
        for message in protocol.messages_received():
            assert was_open
            assert len(message) <= _MESSAGE_MAX_BYTES
        protocol.data_to_send()
    protocol.receive_eof()
    protocol.release()
    assert not protocol.is_open
    for close in (protocol.close_sent, protocol.close_rcvd):
        assert close is None or isinstance(close, Close)
    if protocol.close_sent is not None:
        assert protocol.close_sent.code not in (1004, 1005, 1006, 1015)  # RFC 6455 §7.4.1


def http_handshake(data: bytes) -> None:
    """The head of a request: an upgrade, or a refusal with a status."""
    first, _, rest = data.partition(b"\n")
    method, _, path = first.decode("latin-1").partition(" ")
    try:
        headers = read_message(io.BytesIO(rest))
    except (MalformedHeader, AmbiguousBody):
        return  # answered with 400
    answer = handshake.answer(method, path, "HTTP/1.1", headers)
    if isinstance(answer, Refusal):
        assert answer.status in {HTTPStatus.BAD_REQUEST, HTTPStatus.UPGRADE_REQUIRED, HTTPStatus.METHOD_NOT_ALLOWED}
        json.loads(answer.body)
    else:
        assert isinstance(answer, Response)
        assert answer.status_code == HTTPStatus.SWITCHING_PROTOCOLS


def message_codec(data: bytes) -> None:
    """A message, text or binary: a map of plain values within bounds, or DecodeError."""
    message = _message(data)
    if message is None:
        return
    try:
        fields, size = codec.decode_sized(message)
    except codec.DecodeError as error:
        assert 0 < len(str(error)) < 200
        return
    assert isinstance(fields, dict)
    assert 0 < size <= codec.DECODED_MAX_BYTES
    assert codec.decode(codec.encode_result(fields)) == fields


def _message(data: bytes) -> bytes | str | None:
    """The first byte says whether the rest is text; None if it is no text."""
    if not data or data[0] % 2:
        return data[1:]
    try:
        return data[1:].decode()
    except UnicodeDecodeError:
        return None  # never gets as far: the socket was closed with 1007


def realtime_session(data: bytes) -> None:
    """Messages of a session: one answer for each, in order, and none of them ends it."""
    now = 0.0
    talk = Session(RealtimeInput, SessionRules(idle_timeout_s=60), now)
    talk.next(now)
    received = [message for part in data.split(b"\xc1\xc1") if (message := _message(part)) is not None]
    answers = 0
    for message in received:
        talk.receive(message, now)
        while not isinstance(action := talk.next(now), session.Wait):
            answers += _follow(talk, action)
    assert answers == len(received)
    assert isinstance(talk.next(now + 60), session.Send)
    assert isinstance(talk.next(now + 60), session.Close)


def _follow(talk: Session, action: session.Action) -> int:
    match action:
        case session.Work(input=received):
            assert isinstance(received, RealtimeInput)
            if received.num_images > 1:
                talk.fail(failures.internal("id"))
            else:
                output = RealtimeOutput(
                    images=[],
                    timings={},
                    seed=0,
                    num_inference_steps=1,
                    request_id=received.request_id,
                    dropped_inputs=0,
                )
                talk.succeed(output.model_dump())
            return 0
        case session.Send(message=message):
            if isinstance(message, str):
                assert json.loads(message)["type"] == "x-fal-error"
            else:
                assert "images" in msgpack.unpackb(message)
            return 1
    raise AssertionError(f"an input led to {action}")


def query_and_credentials(data: bytes) -> None:
    """A query string and an Authorization header: credentials, or MalformedCredentials; none of them goes further."""
    query, _, authorization = data.decode("latin-1").partition("\n")
    try:
        found = credentials.read(query, authorization or None)
        assert _SECRET not in repr(found)
    except credentials.MalformedCredentials as error:
        assert _SECRET not in str(error)
    try:
        credentials.parameter(query, "max_buffering")
    except ValueError as error:
        assert str(error) == "must be there once"
    kept = credentials.without(query)
    assert credentials.read(kept, None) is None
    assert len(kept) <= len(query)


def paths_and_scopes(data: bytes) -> None:
    """A path: an app and what is below it, and never below a scope that does not hold it."""
    path, _, entry = data.decode("latin-1").partition("\n")
    app, below = routes.split(path)
    assert below.startswith("/")
    canonical = (app + below).rstrip("/")
    if covers(entry, canonical) and entry != "*":
        assert entry.split("/")[-1] in canonical.split("/")
        assert not {"", ".", ".."} & set(canonical.split("/"))


def token(data: bytes) -> None:
    """A token: claims of the one that was minted, or TokenError."""
    try:
        claims = verify(
            data.decode("latin-1"), KEYS, issuer="fuzz-issuer", audience="fuzz-runner", now=ISSUED_AT, leeway_s=10
        )
    except TokenError as error:
        assert error.description
        return
    assert data in SEEDS["token"]
    assert claims.iss == "fuzz-issuer"


def data_uri(data: bytes) -> None:
    """What comes in `image_url`: bytes, or the field to mend. Nothing is fetched."""
    try:
        picture = sent_pictures.decode_data_uri(data.decode("latin-1"))
    except InvalidRequest as error:
        assert error.field == "image_url"
        return
    assert picture


def picture(data: bytes) -> None:
    """A picture and a mask: pixels of the size that was asked for, or the field to mend."""
    for decode, shape in ((pictures.decode, (32, 48, 3)), (pictures.decode_mask, (32, 48))):
        try:
            pixels = decode(data, 48, 32, "image_bytes")
        except InvalidRequest as error:
            assert error.field == "image_bytes"
            assert error.kind in {"image_load_error", "image_too_large"}
        else:
            assert pixels.shape == shape
            assert pixels.dtype == np.uint8


def http_over_websocket(data: bytes) -> None:
    """Payloads, each answered in its turn; and a body's events, put back together from any chunks."""
    turns = over_websocket.Turns(SessionRules(idle_timeout_s=60), 0.0)
    received = [message for part in data.split(b"\xc1\xc1") if (message := _message(part)) is not None]
    for message in received[: over_websocket.WAITING_PAYLOADS_MAX]:
        turns.receive(message, 0.0)
    for message in received[: over_websocket.WAITING_PAYLOADS_MAX]:
        action = turns.next(0.0)
        if isinstance(message, str):
            assert isinstance(action, over_websocket.Respond)
            assert action.body == message.encode()
        else:
            assert isinstance(action, over_websocket.Refuse)
    assert isinstance(turns.next(0.0), session.Wait)
    cutter = over_websocket.EventCutter(max_bytes=4096)
    events = [event for chunk in _chunks(data) for event in cutter.feed(chunk)] + [*cutter.finish()]
    if b":" not in data:  # without comments only blank lines are left out
        assert b"".join(events).split() == data.split()


def hosting_frames(data: bytes) -> None:
    """What an app's process says: frames, or FrameError."""
    reader = frames.FrameReader()
    try:
        for chunk in _chunks(data):
            for frame in reader.receive_data(chunk):
                assert len(frame) >= 2
    except frames.FrameError:
        return


def engine_frames(data: bytes) -> None:
    """What a worker says: messages, FramingError or MessageError."""
    decoder = FrameDecoder(max_bytes=_MESSAGE_MAX_BYTES)
    try:
        for chunk in _chunks(data):
            for payload in decoder.receive_data(chunk):
                assert messages.decode_message(payload)
        decoder.receive_eof()
    except (FramingError, messages.MessageError):
        return


TARGETS: Final[dict[str, Target]] = {
    target.__name__: target
    for target in (
        websocket_frames,
        http_handshake,
        message_codec,
        realtime_session,
        query_and_credentials,
        paths_and_scopes,
        token,
        data_uri,
        picture,
        http_over_websocket,
        hosting_frames,
        engine_frames,
    )
}

SECONDS_MAX: Final = 5.0
"""No input of this size may keep anybody busy for longer."""


def run(name: str, data: bytes) -> Any:
    """One input, in bounded time."""
    started = time.perf_counter()
    TARGETS[name](data)
    assert time.perf_counter() - started < SECONDS_MAX
