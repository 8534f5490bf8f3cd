"""The gateway's handle on the process of one app: start it, talk to it, end it. For gevent, nothing patched."""

import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import gevent.socket
from gevent import subprocess
from gevent.event import Event

from runner.hosting.frames import READ_BYTES, Frame, FrameError, FrameReader

WORKER_COMMAND: Final = (sys.executable, "-m", "runner.hosting.worker")

_SEND_BUFFER_BYTES: Final = 1024 * 1024

_OTHERS: Final = ("AUTHSVC_", "WEB_")
_SECRET_ENDINGS: Final = ("_KEY", "_TOKEN", "_SECRET", "_PASSWORD", "_HEADERS")


class AppProcess:
    """A running app, a direct child of this process.

    One greenlet writes to it, so that whoever posts never waits; the one that calls `frames` reads.
    """

    def __init__(self, command: Sequence[str]) -> None:
        """Starts `command` with one end of a socket pair, which either side sees close when the other dies.

        Raises:
            OSError: the system cannot start it.
        """
        self._socket, app_end = gevent.socket.socketpair()
        for end in (self._socket, app_end):  # the system's default holds three pictures
            end.setsockopt(gevent.socket.SOL_SOCKET, gevent.socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        with app_end:
            try:
                self._process = _spawn(command, app_end.fileno())
            except BaseException:  # OSError, or our greenlet was killed: either way nobody else will close it
                self._socket.close()
                raise
        self._waiting: list[bytes] = []
        self.waiting_bytes = 0
        """What was posted and not taken by the system yet: an app that hogs its interpreter reads nothing."""
        self._posted = Event()
        self._writer = gevent.spawn(self._write)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def post(self, *buffers: bytes) -> None:
        """Sends a frame, in one piece or several, after all that was posted before; a dying process may not get it."""
        self._waiting.extend(buffers)
        self.waiting_bytes += sum(map(len, buffers))
        self._posted.set()

    def frames(self) -> Iterator[Frame]:
        """What the process says, until it is gone or says something that makes no sense."""
        reader, buffer = FrameReader(), memoryview(bytearray(READ_BYTES))
        try:
            while received := self._socket.recv_into(buffer):
                yield from reader.receive_data(buffer[:received])
                # An app that floods us always has more to read, and a greenlet that finds its data ready never
                # switches. (A timer that is due as it is set has libev poll the sockets; `sleep(0)` does not.)
                gevent.sleep(1e-9)
        except (OSError, FrameError):
            return  # it died with something of ours unread, or lost its mind: over either way

    def kill(self) -> None:
        """Ends it by force; `frames` ends then as well."""
        self._process.send_signal(signal.SIGKILL)

    def end(self, grace_s: float) -> int:
        """Closes the socket, on which the app runs `teardown` and goes; kills it if it has not after `grace_s`.

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
                self._posted.wait()
                self._posted.clear()
                buffers, self._waiting = self._waiting, []
                data = b"".join(buffers)  # of one buffer that is itself
                del buffers
                self._socket.sendall(data)
                self.waiting_bytes -= len(data)
                del data  # an idle app must not hold its last picture
        except OSError:
            pass  # it is gone: whoever reads finds out as well, and does what is to be done


def _spawn(command: Sequence[str], socket_fd: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [*command, f"--socket-fd={socket_fd}"],
        pass_fds=[socket_fd],
        stdin=subprocess.DEVNULL,
        env=environment_of_apps(os.environ),
    )


def environment_of_apps(ours: Mapping[str, str]) -> dict[str, str]:
    """Our environment without what opens anything of ours: an app is anybody's code."""
    return {
        name: value
        for name, value in ours.items()
        if not name.startswith(_OTHERS) and not (name.startswith("RUNNER_") and name.endswith(_SECRET_ENDINGS))
    }
