"""`authsvc serve`."""

from typing import Any

import click

from authsvc.cli.config import load_settings
from authsvc.cli.output import example, print_json


@click.command(epilog=example("serve --port 8001"))
@click.option("--host", help="Address to listen on (AUTHSVC_HOST).")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on, 0 for a free one (AUTHSVC_PORT).")
@click.option("--json", "as_json", is_flag=True, help="Log as JSON lines, and print the URL as a JSON object.")
def serve(host: str | None, port: int | None, as_json: bool) -> None:
    """Serve HTTP until SIGTERM or Ctrl-C."""
    # Here, because Flask, gevent and gunicorn are half of a command's start.
    from authsvc.serving.master import NoWorkers
    from authsvc.serving.master import serve as run

    given: dict[str, Any] = {"host": host, "port": port, "log_format": "json" if as_json else None}
    settings = load_settings(**{name: value for name, value in given.items() if value is not None})
    try:
        run(settings, lambda url: _announce(url, as_json))
    except NoWorkers:
        raise click.ClickException("no worker could start; the lines above say why") from None


def _announce(url: str, as_json: bool) -> None:
    if as_json:
        print_json({"url": url})
    else:
        click.echo(f"authsvc is listening on {url}")
