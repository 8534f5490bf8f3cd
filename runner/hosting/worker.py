"""The process of one app: imports its class, runs `setup`, and serves what the gateway lets in.

It is started by the gateway (`process.AppProcess`) with one end of a socket pair, and ends with it: however the
gateway goes, the app does not outlive it.
"""

import argparse
import asyncio
import ctypes
import gc
import importlib
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from runner.apps.framework import (
    App,
    DeclarationError,
    HttpDeclaration,
    Mode,
    RawSocketDeclaration,
    RealtimeDeclaration,
    declarations,
)
from runner.hosting import frames
from runner.hosting.asgi_server import Application, AsgiServer
from runner.hosting.lifespan import Lifespan, LifespanFailed

_log = logging.getLogger("runner.hosting.worker")  # it runs as __main__

TEARDOWN_S: Final = 4.0
"""How long `teardown` and the handlers under way may take once the gateway is gone."""

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3

PAGES: Final = ("/health", "/openapi.json")
"""What every app answers to GET besides its endpoints."""


class CannotServe(Exception):
    """No process will get any further; the text is for the operator."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs an app until its gateway goes away; returns the exit status."""
    # Whoever stops the whole process group means the gateway, which lets running work end first. Handlers, and not
    # SIG_IGN: the app's own child processes would inherit that.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    _keep_memory()
    arguments = _parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s app[%(process)d] %(name)s: %(message)s")
    end = socket.socket(fileno=arguments.socket_fd)
    end.setblocking(True)  # the gateway's end is non-blocking, and so was this one made
    threading.Thread(target=_end_with_the_gateway, args=(end.fileno(),), name="watch", daemon=True).start()
    try:
        app = load(arguments.app)
        application, endpoints = describe(app)
    except CannotServe as error:
        _say(end, (frames.CANNOT_START, 0, str(error)))
        return 1
    _say(end, (frames.ENDPOINTS, 0, endpoints))
    try:
        asyncio.run(_serve(application, end))
    except LifespanFailed as error:
        _log.error("%s", error, exc_info=error.__cause__)
        return 1
    return 0


def _say(end: socket.socket, frame: frames.Frame) -> None:
    with suppress(OSError):  # the gateway is gone, and we go with it
        end.sendall(frames.encode(frame))


def _keep_memory() -> None:
    """Has glibc's malloc keep what is freed (mallopt(3)).

    A process that makes pictures of 60 KB spends a third of its time getting and giving back pages otherwise.
    """
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, 16 * 1024 * 1024)
        mallopt(_M_MMAP_THRESHOLD, 4 * 1024 * 1024)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="runner.hosting.worker", description=__doc__)
    parser.add_argument("--app", required=True, metavar="MODULE:CLASS")
    parser.add_argument("--socket-fd", type=int, required=True, help="the inherited socket to the gateway")
    return parser.parse_args(argv)


def _end_with_the_gateway(socket_fd: int) -> None:
    """Ends the process some time after the gateway, whatever the app's handlers do."""
    hung_up = select.poll()
    hung_up.register(socket_fd, select.POLLHUP)
    hung_up.poll()
    time.sleep(TEARDOWN_S)
    os._exit(1)


def load(target: str) -> App:
    """An instance of `module:Class`.

    Raises:
        CannotServe: there is no such class, or it is no app.
    """
    module_name, _, class_name = target.partition(":")
    # As `python -m` does; a console script would not.
    if (here := os.getcwd()) not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    # A module is anybody's code, and may raise anything.
    except Exception as error:
        _log.exception("%s cannot be imported", module_name)
        raise CannotServe(f"the module {module_name} cannot be imported: {_what_to_do(module_name, error)}") from error
    found = getattr(module, class_name, None)
    if not (isinstance(found, type) and issubclass(found, App)):
        raise CannotServe(f"{module_name} has no class {class_name} that is derived from runner.App")
    return found()


def _what_to_do(module_name: str, error: Exception) -> str:
    if isinstance(error, DeclarationError):
        return str(error)
    text = f"{type(error).__name__}: {error}"
    if not isinstance(error, ModuleNotFoundError):
        return f"{text}; the log has the line"
    missing = error.name or ""
    if f"{module_name}.".startswith(f"{missing}."):
        return f"{text}; start the runner in the folder that holds it, or set PYTHONPATH"
    if missing.partition(".")[0] == "fal":
        return f"{text}; write `import runner as fal` and `from runner.exceptions import …`"
    if missing.partition(".")[0] == "runner":
        return f"{text}; docs/apps.md says what there is of fal's package"
    return f"{text}; install it where the runner is installed"


def describe(app: App) -> tuple[Application, list[tuple[str, str, float | None]]]:
    """The application that serves an app, and what the gateway has to know: kind, path and idle timeout of each door.

    Raises:
        CannotServe: it declares what cannot be.
    """
    from runner.hosting.application import build

    try:
        endpoints = [_endpoint(declared) for declared in declarations(type(app))]
        return build(app), [*endpoints, *(("page", path, None) for path in PAGES)]
    except DeclarationError as error:
        raise CannotServe(str(error)) from error


def _endpoint(declared: HttpDeclaration | RawSocketDeclaration | RealtimeDeclaration) -> tuple[str, str, float | None]:
    match declared:
        case RealtimeDeclaration(path=path, mode=Mode.UNARY, max_batch_size=1):
            return "unary", path, declared.session_timeout
        case RealtimeDeclaration(path=path):
            return "realtime", path, declared.session_timeout
        case RawSocketDeclaration(path=path):
            return "raw", path, None
        case HttpDeclaration(path=path):
            return "http", path, None


async def _serve(application: Application, end: socket.socket) -> None:
    lifespan = Lifespan(application)
    await lifespan.startup()
    # What is there now stays: the collector need not look at it again and again.
    gc.collect()
    gc.freeze()
    end.setblocking(False)
    await AsgiServer(application, lifespan.state, asyncio.get_running_loop()).serve(end)
    await lifespan.shutdown()


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Handlers that block in threads would hold up an ordinary exit, and nobody waits for them any more.
    os._exit(status)
