"""The command line of the demo site."""

import logging
import signal
import socket
import sys
from types import FrameType
from typing import Any, NoReturn

import click
from pydantic import ValidationError
from waitress.server import create_server

from web.app import FORM_MAX_BYTES, create_app
from web.settings import Settings

THREADS = 8
CONNECTIONS_MAX = 1000
REQUEST_TIMEOUT_S = 20


@click.group()
def main() -> None:
    """The demo site: a login that mints tokens through authsvc, and the playground."""


@main.command(epilog="\b\nExample:\n  WEB_API_KEY=id:secret WEB_PASSWORD=demo python -m web serve")
@click.option("--host", help="Address to listen on.  [default: WEB_HOST or 127.0.0.1]")
@click.option("--port", type=int, help="Port to listen on, 0 for any free one.  [default: WEB_PORT or 8000]")
def serve(host: str | None, port: int | None) -> None:
    """Serve the site until Ctrl-C; WEB_API_KEY and WEB_PASSWORD must be set."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it narrates every request
    settings = _settings({"host": host, "port": port})
    listener = _listen(settings.host, settings.port)
    app = create_app(settings)
    server = create_server(
        app,
        sockets=[listener],
        threads=THREADS,
        ident=None,
        # Before Flask's own limit is asked, waitress would take a whole gigabyte in and spool it to disk.
        max_request_body_size=FORM_MAX_BYTES,
        # Half-sent requests hold a connection each: room for many, and not for long.
        connection_limit=CONNECTIONS_MAX,
        channel_timeout=REQUEST_TIMEOUT_S,
        cleanup_interval=5,
    )
    signal.signal(signal.SIGTERM, _stop)
    click.echo(f"demo site ready on {_url(settings.host, listener)}")
    server.run()  # returns after KeyboardInterrupt or SystemExit, its threads done
    app.extensions["site"].revoker.stop()


def _settings(flags: dict[str, Any]) -> Settings:
    """The environment's settings, overridden by the flags that were given."""
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        for entry in error.errors(include_input=False, include_url=False):
            name = "_".join(("WEB", *map(str, entry["loc"]))).upper()
            click.echo(f"{name}: {entry['msg']}", err=True)
        sys.exit(2)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = (error.strerror or "").partition(" (while")[0]  # CPython says the address once more there
        raise click.ClickException(f"cannot listen on {host} port {port}: {reason}") from None


def _url(host: str, listener: socket.socket) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{listener.getsockname()[1]}"


def _stop(signum: int, frame: FrameType | None) -> NoReturn:
    sys.exit(0)
