"""The gateway's handle on one worker process: start it, talk to it, end it. For gevent, nothing patched."""

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import gevent.socket
from gevent import subprocess
from gevent.queue import SimpleQueue

from runner.engine.framing import FrameDecoder, FramingError, encode_frame
from runner.engine.messages import FromGateway, Message, MessageError, decode_message, encode_message

WORKER_COMMAND: Final = (sys.executable, "-m", "runner.engine.worker")

Outgoing = Callable[[], FromGateway | None]
"""Asked for its message when its turn to be sent has come; None if there is nothing to say any more."""

_PACKAGE_ROOT: Final = Path(__file__).resolve().parents[2]
_READ_BYTES: Final = 256 * 1024


class WorkerProcess:
    """A running worker, a direct child of this process.

    One greenlet writes to it, so that whoever posts never waits; the one that calls `messages` reads.
    """

    def __init__(self, command: Sequence[str], arguments: Sequence[str]) -> None:
        """Start `command` with `arguments` and one end of a socket pair.

        A socket pair instead of a socket in the file system: no path to choose, guard and clean up, nobody
        else can connect, and as nobody else holds an end each side sees EOF as soon as the other dies.

        Raises:
            OSError: the system cannot start it.
        """
        self._socket, worker_end = gevent.socket.socketpair()
        with worker_end:
            try:
                self._process = _spawn([*command, *arguments], worker_end.fileno())
            except BaseException:  # OSError, or our greenlet was killed: either way nobody else will close it
                self._socket.close()
                raise
        self._outbox: SimpleQueue[Outgoing] = SimpleQueue()
        self._writer = gevent.spawn(self._write)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def post(self, outgoing: Outgoing) -> None:
        """Send something after all that was posted before; a dying worker may not get it."""
        self._outbox.put(outgoing)

    def messages(self) -> Iterator[Message]:
        """What the worker says, until it is gone or says something that makes no sense."""
        decoder = FrameDecoder()
        try:
            while data := self._socket.recv(_READ_BYTES):
                for payload in decoder.receive_data(data):
                    yield decode_message(payload)
        except (OSError, FramingError, MessageError):
            return  # it died with something of ours unread, or lost its mind: over either way

    def kill(self) -> None:
        """End it by force; `messages` ends then as well."""
        self._process.send_signal(signal.SIGKILL)

    def end(self, grace_s: float) -> int:
        """Close the socket, which ends the worker; kill it if it has not gone after `grace_s` seconds.

        Returns:
            the exit status, negative for a signal.
        """
        self._writer.kill()
        self._socket.close()
        try:
            return int(self._process.wait(timeout=grace_s))
        except subprocess.TimeoutExpired:
            self.kill()
            return int(self._process.wait())

    def _write(self) -> None:
        try:
            while True:
                if message := self._outbox.get()():
                    self._socket.sendall(encode_frame(encode_message(message)))
        except OSError:
            pass  # it is gone: whoever reads finds out as well, and does what is to be done


def _spawn(command: Sequence[str], socket_fd: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [*command, f"--socket-fd={socket_fd}"],
        pass_fds=[socket_fd],
        stdin=subprocess.DEVNULL,
        cwd=_PACKAGE_ROOT,  # `python -m` finds the same packages from there, wherever we were started
    )
