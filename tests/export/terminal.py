"""A program with a terminal to write to, and what it wrote there."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping

_ROWS = 40


def on_a_terminal(*arguments: str, environment: Mapping[str, str] | None = None, columns: int = 120) -> str:
    """What Python shows on stderr, control characters included."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, columns, 0, 0))
    variables = os.environ | {"TERM": "xterm"} | (environment or {})
    with subprocess.Popen([sys.executable, *arguments], stderr=theirs, env=variables) as process:
        os.close(theirs)
        shown = b"".join(iter(lambda: _read(ours), b""))
    os.close(ours)
    assert process.returncode == 0, shown
    return shown.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux says that the other side is closed
        return b""
