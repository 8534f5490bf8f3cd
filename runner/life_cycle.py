"""One runner from its start to its end: signals, and what is said on stdout for whoever started it."""

import gc
import logging
import signal
from typing import Final

import click
import gevent
from gevent.event import Event

from httpbase import logs, open_files
from runner.engine.request import EngineUnavailable
from runner.gateway import Gateway
from runner.listening import connections_max
from runner.served_apps import ServedApps
from runner.settings import Settings

logger = logging.getLogger(__name__)

THREADS: Final = 24
"""More than the questions to the token service that may wait at once (4 keys, 4 one-time tokens, the key set, the
revocations, a report): while it hangs, look-ups of names and the next poll still find a thread."""


YOUNG_MAX: Final = 10_000
"""New objects between two collections; CPython's own 700 are a handful of messages."""


class CannotServe(Exception):
    """The model or an app cannot be used here, and waiting does not help; the text is for the operator."""


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        OSError: an address is taken, or a certificate cannot be read.
        CannotServe: what cannot draw had better end, so that whoever started it notices.
    """
    logs.configure(settings.log_level, settings.log_format)
    open_files.allow(connections_max(settings))
    stopping, hurry = _stop_signals()
    gevent.get_hub().threadpool.maxsize = THREADS
    gateway = Gateway(settings)
    urls = gateway.start()
    click.echo(f"runner is listening on {' and '.join(urls)}")
    announcer = gevent.spawn(_announce_ready, gateway.apps)
    gevent.wait([stopping, *gateway.apps.given_up], count=1)
    logger.info("stopping")
    why_given_up = gateway.apps.why_given_up
    announcer.kill()
    gateway.stop(hurry)
    if why_given_up is not None:
        raise CannotServe(why_given_up)


def _stop_signals() -> tuple[Event, Event]:
    """What the first signal to stop sets, and what the second sets."""
    stopping, hurry = Event(), Event()

    def heed() -> None:
        (hurry if stopping.is_set() else stopping).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, heed)
    return stopping, hurry


def _announce_ready(apps: ServedApps) -> None:
    """Say on stdout when every app can answer, or why one cannot so far."""
    try:
        served = apps.wait_ready()
    except EngineUnavailable as error:
        if apps.why_given_up is None:
            click.echo(f"runner cannot serve yet: {error}", err=True)
        return
    _spare_the_collector()
    click.echo(f"runner is ready: {served}")


def _spare_the_collector() -> None:
    """Leave out of every collection what is there for good, and collect less often.

    A connection leaves no cycles behind (`test_nothing_is_kept_of_a_session…`): there is little to find.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_MAX, *gc.get_threshold()[1:])
