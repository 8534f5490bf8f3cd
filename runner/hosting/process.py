"""The gateway's handle on the process of one app: start it, talk to it, end it. For gevent, nothing patched."""

import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from socket import MSG_DONTWAIT
from typing import Final

import gevent.socket
from gevent import subprocess

from runner.hosting.frames import READ_BYTES, Frame, FrameError, FrameReader

WORKER_COMMAND: Final = (sys.executable, "-m", "runner.hosting.worker")

_SEND_BUFFER_BYTES: Final = 1024 * 1024

_READ: Final = 1
"""libev's EV_READ."""

_OTHERS: Final = ("AUTHSVC_", "WEB_")
_OURS: Final = ("RUNNER_", "OTEL_")
_SECRET_ENDINGS: Final = ("_KEY", "_TOKEN", "_SECRET", "_PASSWORD", "_HEADERS")


class AppProcess:
    """A running app, a direct child of this process.

    Whoever posts never waits: what was posted goes out with one system call when the hub's loop turns, and what the
    system does not take then a greenlet sends on. The one that calls `frames` reads.
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
        self._is_flush_due = False
        self._writer: gevent.Greenlet[..., None] | None = None
        """Is there while the system takes no more."""

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def post(self, *buffers: bytes) -> None:
        """Sends a frame, in one piece or several, after all that was posted before; a dying process may not get it."""
        self._waiting.extend(buffers)
        self.waiting_bytes += sum(map(len, buffers))
        if not self._is_flush_due:
            self._is_flush_due = True
            gevent.get_hub().loop.run_callback(self._flush)

    def frames(self) -> Iterator[Frame]:
        """What the process says, until it is gone or says something that makes no sense."""
        reader, buffer = FrameReader(), memoryview(bytearray(READ_BYTES))
        hub = gevent.get_hub()
        readable = hub.loop.io(self._socket.fileno(), _READ)
        try:
            while True:
                # Before each read, not after one that finds nothing: an app that floods us always has more, and a
                # greenlet that finds its data ready never switches.
                hub.wait(readable)
                if not (received := self._socket.recv_into(buffer)):
                    return
                yield from reader.receive_data(buffer[:received])
        except (OSError, FrameError):
            return  # it died with something of ours unread, or lost its mind: over either way
        finally:
            readable.close()

    def kill(self) -> None:
        """Ends it by force; `frames` ends then as well."""
        self._process.send_signal(signal.SIGKILL)

    def end(self, grace_s: float) -> int:
        """Closes the socket, on which the app runs `teardown` and goes; kills it if it has not after `grace_s`.

        Returns:
            the exit status, negative for a signal.
        """
        if self._writer is not None:
            self._writer.kill()
        self._is_flush_due = True  # for good: nothing goes out any more
        self._socket.close()
        try:
            return int(self._process.wait(timeout=grace_s))
        except subprocess.TimeoutExpired:
            self.kill()
            return int(self._process.wait())

    def _flush(self) -> None:
        data, sent = self._take_waiting(), 0
        try:
            sent = self._socket.sendmsg([data], (), MSG_DONTWAIT)
        except BlockingIOError:
            pass
        except OSError:
            return  # it is gone: whoever reads finds out as well, and does what is to be done
        self.waiting_bytes -= sent
        if sent < len(data):
            self._writer = gevent.spawn(self._write, data[sent:])
        else:
            self._is_flush_due = False

    def _write(self, data: bytes) -> None:
        try:
            while data:
                self._socket.sendall(data)
                self.waiting_bytes -= len(data)
                data = self._take_waiting()
        except OSError:
            return  # see `_flush`
        self._writer = None
        self._is_flush_due = False

    def _take_waiting(self) -> bytes:
        buffers, self._waiting = self._waiting, []
        return b"".join(buffers)  # of one buffer that is itself


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
        if not name.startswith(_OTHERS) and not (name.startswith(_OURS) and name.endswith(_SECRET_ENDINGS))
    }
