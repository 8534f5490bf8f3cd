"""The worker process: loads one bundle onto one device and draws, one request at a time, in order.

It is started by `client.EngineClient` with one end of a socket pair, speaks `messages` over it, and ends
with it: however the gateway goes, the worker does not outlive it.
"""

import argparse
import logging
import os
import signal
import socket
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from runner.engine.bundle import BundleError
from runner.engine.framing import FrameDecoder, FramingError, encode_frame
from runner.engine.heartbeat import Heartbeat
from runner.engine.inbox import Inbox, Job
from runner.engine.messages import (
    Cancel,
    CannotStart,
    Failed,
    Finished,
    FromWorker,
    Generate,
    Loading,
    MessageError,
    Progress,
    Ready,
    Refused,
    Started,
    decode_message,
    encode_message,
)
from runner.engine.request import GenerationCancelled, GenerationResult, InvalidRequest

if TYPE_CHECKING:
    from runner.engine.pipeline import Pipeline

_log = logging.getLogger(__name__)

_READ_BYTES = 256 * 1024


def main(argv: Sequence[str] | None = None) -> int:
    """Run a worker until its gateway goes away; returns the exit status."""
    # Ctrl-C reaches every process of the terminal's group; the gateway decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    arguments = _parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s worker[%(process)d] %(message)s")
    gateway = socket.socket(fileno=arguments.socket_fd)
    gateway.setblocking(True)  # the gateway's end is non-blocking, and so was this one made
    inbox = Inbox()
    threading.Thread(target=_read, args=(gateway, inbox), name="reader", daemon=True).start()
    try:
        pipeline = _load(arguments, gateway)
        _send(gateway, Ready(pipeline.card))
        _serve(pipeline, inbox, gateway)
    except BundleError as error:
        _send(gateway, CannotStart(str(error)))
        return 1
    except ConnectionError:
        return 0  # the gateway has gone


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="runner.engine.worker", description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--device", default="cpu", help="cpu, cuda:N or auto")
    parser.add_argument("--threads", type=int, help="CPU threads for one operator (default: every core)")
    parser.add_argument("--skip-hashes", action="store_true", help="the bundle's SHA-256s were checked before")
    parser.add_argument("--socket-fd", type=int, required=True, help="the inherited socket to the gateway")
    return parser.parse_args(argv)


def _load(arguments: argparse.Namespace, gateway: socket.socket) -> "Pipeline":
    # Imported only now: it takes a second, and by then Ctrl-C and the end of the gateway have to be seen to.
    from runner.engine.pipeline import Pipeline

    return Pipeline.load(
        arguments.bundle,
        arguments.device,
        arguments.threads,
        check_hashes=not arguments.skip_hashes,
        progress=lambda detail: _send(gateway, Loading(detail)),
    )


def _serve(pipeline: "Pipeline", inbox: Inbox, gateway: socket.socket) -> NoReturn:
    while True:
        job = inbox.get()
        _send(gateway, Started(job.id))
        if answer := _answer(pipeline, job, _checkpoint(job, inbox, gateway)):
            gateway.sendall(answer)


def _checkpoint(job: Job, inbox: Inbox, gateway: socket.socket) -> Callable[[], bool]:
    """What a generation asks between steps: whether it is cancelled. Tells the gateway that it got there."""
    heartbeat = Heartbeat()

    def is_cancelled() -> bool:
        if heartbeat.is_due():
            _send(gateway, Progress(job.id))
        return inbox.is_cancelled(job.id)

    return is_cancelled


def _answer(pipeline: "Pipeline", job: Job, is_cancelled: Callable[[], bool]) -> bytes | None:
    """The frame that answers a job, or None if nobody waits for it any more."""
    try:
        result = pipeline.generate(job.request, is_cancelled)
        return _frame(Finished(job.id, _with_queue_time(result, job)))
    except GenerationCancelled:
        return None
    except InvalidRequest as error:
        return _frame(Refused(job.id, error.field, error.message, error.kind))
    except ConnectionError:
        raise  # the gateway has gone
    # Whatever else a request runs into, lack of memory included, is its own misfortune: the next may do.
    except Exception:
        error_id = uuid.uuid4().hex
        _log.exception("generation failed, error_id=%s", error_id)
        return _frame(Failed(job.id, error_id))


def _with_queue_time(result: GenerationResult, job: Job) -> GenerationResult:
    return replace(result, timings={"queue": job.queued_s, **result.timings})


def _read(gateway: socket.socket, inbox: Inbox) -> None:
    """Fill the inbox; runs in a thread so that cancels and the end of the gateway are seen at any time."""
    try:
        _fill(inbox, gateway)
    except ConnectionError:
        pass  # the gateway died with something of ours unread
    except (FramingError, MessageError):
        _log.exception("the gateway does not make sense")
    finally:
        # Nobody is left to draw for, nothing is worth keeping, and the main thread may be deep in a graph.
        os._exit(0)


def _fill(inbox: Inbox, gateway: socket.socket) -> None:
    decoder = FrameDecoder()
    while data := gateway.recv(_READ_BYTES):
        for payload in decoder.receive_data(data):
            match decode_message(payload):
                case Generate(id=id_, request=request):
                    inbox.put(id_, request)
                case Cancel(id=id_):
                    inbox.cancel(id_)
                case message:
                    raise MessageError(f"{message.type} is not for workers")


def _send(gateway: socket.socket, message: FromWorker) -> None:
    gateway.sendall(_frame(message))


def _frame(message: FromWorker) -> bytes:
    return encode_frame(encode_message(message))


if __name__ == "__main__":
    raise SystemExit(main())
