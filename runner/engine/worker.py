"""The worker process: loads one bundle onto one device and draws, many requests at once (see `loop`).

It is started by `client.EngineClient` with one end of a socket pair, speaks `messages` over it, and ends
with it: however the gateway goes, the worker does not outlive it.

Its threads: the main one loads the model and runs it, both in the same thread since CUDA graphs belong to it; one
reads the socket, one writes it; few read requests, few encode results, and one encodes previews.
"""

import argparse
import logging
import os
import queue
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from runner.engine.bundle import BundleError
from runner.engine.framing import FrameDecoder, FramingError, encode_frame
from runner.engine.messages import (
    Cancel,
    CannotStart,
    Finished,
    FromWorker,
    Generate,
    Loading,
    Message,
    MessageError,
    Ready,
    Refused,
    Started,
    decode_message,
    encode_message,
)

if TYPE_CHECKING:
    from runner.engine.loop import EngineLoop
    from runner.engine.pipeline import Pipeline

_log = logging.getLogger(__name__)

_READ_BYTES: Final = 256 * 1024
_SIDE_THREADS: Final = 2
"""For reading and for encoding each: one picture that takes long does not hold up the next."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a worker until its gateway goes away; returns the exit status."""
    # Terminals and process managers signal the whole group. The gateway decides what it means: at SIGTERM it lets the
    # work in hand be finished. A worker ends when its gateway's socket does.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    arguments = _parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s worker[%(process)d] %(message)s")
    gateway = Gateway(socket.socket(fileno=arguments.socket_fd))
    try:
        pipeline = _load(arguments, gateway.say)
    except BundleError as error:
        gateway.say(CannotStart(str(error)))
        gateway.flush()
        return 1
    gateway.serve(make_loop(pipeline, gateway.say))


def make_loop(pipeline: "Pipeline", say: Callable[[FromWorker], None]) -> "EngineLoop":
    """The loop with threads of its own."""
    from runner.engine.loop import EngineLoop

    reading, encoding = (ThreadPoolExecutor(_SIDE_THREADS, name) for name in ("reading", "encoding"))
    previewing = ThreadPoolExecutor(1, "previewing")  # not those of the results: nobody waits for a picture behind it
    return EngineLoop(pipeline, say, reading.submit, encoding.submit, previewing=previewing.submit)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="runner.engine.worker", description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--device", default="cpu", help="cpu, cuda:N or auto")
    parser.add_argument("--threads", type=int, help="CPU threads for one operator (default: every core)")
    parser.add_argument("--skip-hashes", action="store_true", help="the bundle's SHA-256s were checked before")
    parser.add_argument("--socket-fd", type=int, required=True, help="the inherited socket to the gateway")
    return parser.parse_args(argv)


def _load(arguments: argparse.Namespace, say: Callable[[FromWorker], None]) -> "Pipeline":
    # Imported only now: it takes a second, and by then Ctrl-C and the end of the gateway have to be seen to.
    from runner.engine.pipeline import Pipeline

    return Pipeline.load(
        arguments.bundle,
        arguments.device,
        arguments.threads,
        check_hashes=not arguments.skip_hashes,
        progress=lambda activity: say(Loading(activity)),
    )


class Gateway:
    """The worker's end of the socket. Its threads end the process when the gateway is gone.

    Nobody who has something to say waits for the socket: not the engine, not whoever has a result.
    """

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(True)  # the gateway's end is non-blocking, and so was this one made
        self._socket = end
        self._sending = threading.Lock()
        self._outbox: queue.Queue[FromWorker] = queue.Queue()
        self._loop: EngineLoop | None = None
        for name, run in {"reader": self._read, "writer": self._write}.items():
            threading.Thread(target=run, name=name, daemon=True).start()

    def say(self, message: FromWorker) -> None:
        """Send a message, in the end; `Started` before anything else happens, or nobody would know what we died of."""
        if isinstance(message, Started):
            self._send(message)
        else:
            self._outbox.put(message)

    def flush(self) -> None:
        """Block until all that was said is sent."""
        self._outbox.join()

    def serve(self, loop: "EngineLoop") -> NoReturn:
        """Say that the worker is ready, and draw what is asked for."""
        self._loop = loop
        self.say(Ready(loop.card))
        loop.run()

    def _send(self, message: FromWorker) -> None:
        frame = _frame(message)
        with self._sending:
            self._socket.sendall(frame)

    def _write(self) -> None:
        try:
            while True:
                self._send(self._outbox.get())
                self._outbox.task_done()
        except OSError:
            pass  # the gateway has gone
        # The thread's last word, whatever it was: without it the process would end and nobody know why.
        except Exception:
            _log.exception("an answer cannot be sent")
        finally:
            os._exit(0)

    def _read(self) -> None:
        try:
            self._follow()
        except OSError:
            pass  # the gateway died with something of ours unread
        except (FramingError, MessageError):
            _log.exception("the gateway does not make sense")
        # As in `_write`: the log says why the process ends.
        except Exception:
            _log.exception("a request cannot be taken in")
        finally:
            # Nobody is left to draw for, nothing is worth keeping, and the main thread may be deep in a graph.
            os._exit(0)

    def _follow(self) -> None:
        decoder = FrameDecoder()
        while data := self._socket.recv(_READ_BYTES):
            for payload in decoder.receive_data(data):
                self._obey(decode_message(payload))

    def _obey(self, message: Message) -> None:
        match message:
            case Generate(id=id_, request=request, flow=flow) if self._loop:
                self._loop.put(id_, request, flow)
            case Cancel(id=id_) if self._loop:
                self._loop.cancel(id_)
            case _:
                raise MessageError(f"{message.type} is not for workers, or too early")


def _frame(message: FromWorker) -> bytes:
    """The frame of a message; of pictures that are too large for one, that they are."""
    try:
        return encode_frame(encode_message(message))
    except FramingError:
        if not isinstance(message, Finished):
            raise
    why = "the pictures together are too large for one answer: ask for fewer or smaller ones, or for JPEG"
    return encode_frame(encode_message(Refused(message.id, "image_size", why, "image_too_large")))


if __name__ == "__main__":
    raise SystemExit(main())
