"""The process's end of the socket to the gateway: frames in, buffers out, and no copy of a picture in between."""

import asyncio
import itertools
import socket
from collections import deque
from collections.abc import Callable
from typing import Final

from runner.hosting.frames import READ_BYTES, Frame, FrameReader

_BUFFERS_MAX: Final = 64
"""Buffers of one system call; the socket takes no more than a few pictures anyway."""


class Wire:
    """Belongs to the loop's thread.

    No transport of asyncio's: what the socket does not take at once that one copies into a buffer, which grows and
    shrinks by megabytes with every burst of pictures.

    Args:
        end: Non-blocking.
        received: Gets each frame.
        lost: Called once, when the gateway is gone; with FrameError if it does not make sense.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        end: socket.socket,
        received: Callable[[Frame], None],
        lost: Callable[[Exception | None], None],
    ) -> None:
        self._loop = loop
        self._socket = end
        self._received = received
        self._lost = lost
        self._reader = FrameReader()
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._waiting: deque[bytes | memoryview] = deque()
        self._is_flush_due = False
        self._is_open = True
        loop.add_reader(end, self._read)

    def post(self, *buffers: bytes) -> None:
        """Sends a frame, with whatever else is sent before the loop turns."""
        self._waiting.extend(buffers)
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        try:
            while self._waiting and self._is_open:
                self._sent(self._socket.sendmsg(itertools.islice(self._waiting, _BUFFERS_MAX)))
        except BlockingIOError:
            self._loop.add_writer(self._socket, self._flush)
            return  # the flush stays due, and comes when there is room
        except OSError:
            self._close(None)
        self._is_flush_due = False
        self._loop.remove_writer(self._socket)

    def _sent(self, size: int) -> None:
        waiting = self._waiting
        while size:
            buffer = waiting.popleft()
            if len(buffer) > size:
                waiting.appendleft(memoryview(buffer)[size:])
                return
            size -= len(buffer)

    def _read(self) -> None:
        try:
            size = self._socket.recv_into(self._buffer)
            for frame in self._reader.receive_data(self._buffer[:size]):
                self._received(frame)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        # Whatever it is, nothing that follows could be understood.
        except Exception as error:
            self._close(error)
            return
        if not size:
            self._close(None)

    def _close(self, error: Exception | None) -> None:
        if not self._is_open:
            return
        self._is_open = False
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._waiting.clear()
        self._lost(error)
