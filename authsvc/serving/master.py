"""The processes of `authsvc serve`: gunicorn's master keeps the socket and watches workers that answer on it.

The master imports the application's modules, so that a worker starts in no time; each worker then builds an
application of its own, for neither database connections nor threads survive a fork. The master alone prepares the
database, once: a worker that starts anew while the database is away serves 503 until it is back, and does not die.

Signals to the master: SIGTERM and SIGINT stop it once the requests in hand are answered, a second SIGINT or SIGQUIT
at once. SIGHUP puts new workers into the place of the old ones. SIGUSR2 starts a second master with the code that is
installed now, on the same socket; SIGTERM then ends the first one.
"""

import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn

import gevent
import gevent.socket
from gevent.event import Event
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.workers.ggevent import GeventPyWSGIWorker

from authsvc.app import create_app
from authsvc.context import context
from authsvc.installation import connect_database, open_database
from authsvc.metrics import Metrics
from authsvc.serving.server import GRACEFUL_TIMEOUT_S, IDLE_LINGER_S, MAX_CONNECTIONS, Server
from authsvc.settings import Settings
from authsvc.shared_counts import SharedRows
from httpbase import logs, open_files

logger = logging.getLogger(__name__)

HANGING_AFTER_S: Final = 30
"""A worker whose event loop stood still for so long is killed and replaced."""

_BACKLOG: Final = 1024
_HEARTBEAT_S: Final = 1
_CLOSING_S: Final = 6
"""What a worker needs after its last answer: the audit buffer writes what it has."""

_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
_MEMORY_FOLDER: Final = Path("/dev/shm")  # noqa: S108 - files are made there as mkstemp makes them


class NoWorkers(Exception):
    """The workers cannot start."""


def serve(settings: Settings, announce: Callable[[str], None]) -> None:
    """Serves until SIGTERM or SIGINT.

    Args:
        settings: What the operator set.
        announce: Called with the URL once connections are accepted.

    Raises:
        OSError: the address is taken, or the data folder cannot be made.
        sqlalchemy.exc.DatabaseError: the database cannot be used.
        NoWorkers: a worker failed before it served; the log says why.
    """
    logs.configure(settings.log_level, settings.log_format)
    open_files.allow(MAX_CONNECTIONS)  # of each worker, which inherits the limit
    open_database(settings).close()
    if settings.workers > 1 and settings.redis_url is None:
        logger.warning(
            "each of the %d workers counts rate limits for itself, so callers get up to %d times as much: "
            "set AUTHSVC_REDIS_URL",
            settings.workers,
            settings.workers,
        )
    # What is imported stays: a collection need not look at it again, which would also copy the pages to every worker.
    gc.freeze()
    master = os.getpid()
    try:
        _Master(_Application(settings, announce)).run()
    except SystemExit as end:
        # Every worker ends here too, for it was forked below; its exit status is for the master to see.
        if end.code and os.getpid() == master:
            raise NoWorkers from None
        raise


class _Application(BaseApplication):
    """gunicorn's view of us: the configuration, and what a worker needs."""

    cfg: Config

    def __init__(self, settings: Settings, announce: Callable[[str], None]) -> None:
        self.settings = settings
        self.announce = announce
        # A place for each worker, also while old ones still answer beside their successors.
        self.rows = SharedRows(3 * settings.workers)
        # A master that SIGUSR2 started was given the sockets of the first one.
        self._bind = "inherited" if "GUNICORN_FD" in os.environ else f"fd://{_listen(settings.host, settings.port)}"
        super().__init__()

    def load_config(self) -> None:
        """Called at the start and again at SIGHUP."""
        chosen = {
            "child_exit": lambda _, worker: self.rows.release(worker.row),
            "bind": self._bind,
            "control_socket_disable": True,
            "graceful_timeout": GRACEFUL_TIMEOUT_S + IDLE_LINGER_S + _CLOSING_S,
            "logger_class": _Log,
            "proc_name": "authsvc",
            "timeout": HANGING_AFTER_S,
            "worker_class": _Worker,
            "worker_tmp_dir": str(_MEMORY_FOLDER) if os.access(_MEMORY_FOLDER, os.W_OK) else None,
            "workers": self.settings.workers,
        }
        for name, value in chosen.items():
            self.cfg.set(name, value)


def _listen(host: str, port: int) -> int:
    """A listening socket as a descriptor. Bound here, because gunicorn would try a taken port for five seconds."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=_BACKLOG).detach()


class _Log(Logger):
    """Sends gunicorn's lines the way of all others, and what it does in the normal course of things to debug."""

    def setup(self, cfg: Config) -> None:
        self.cfg = cfg
        self.error_log.propagate = True

    def info(self, msg: object, *args: object, **kwargs: Any) -> None:
        self.debug(msg, *args, **kwargs)


class _Master(Arbiter):
    """Starts workers, watches them, and replaces those that die."""

    app: _Application

    def __init__(self, app: _Application) -> None:
        super().__init__(app)
        # For SIGUSR2: gunicorn's own guess from sys.argv takes `-m authsvc` for a script in our folder.
        self.START_CTX["args"] = sys.orig_argv

    def spawn_worker(self) -> int:
        # A signal that came before the worker can hear it would be lost, and it would outlive the master's patience.
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
        try:
            return int(super().spawn_worker())
        finally:
            if os.getpid() == self.pid:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)

    def handle_term(self) -> NoReturn:
        logger.info("stopping")
        raise StopIteration

    handle_int = handle_term

    def handle_hup(self) -> None:
        logger.info("starting new workers in the place of the old ones")
        super().handle_hup()

    def handle_ttin(self) -> None:
        logger.warning("SIGTTIN and SIGTTOU do nothing here: AUTHSVC_WORKERS says how many workers there are")

    handle_ttou = handle_ttin


class _Worker(GeventPyWSGIWorker):
    """One process with our server in it. Nothing is monkey-patched: see `authsvc.serving.server`."""

    app: _Application

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.row = self.app.rows.claim()  # this runs in the master

    def patch(self) -> None:
        """Makes the sockets gevent's, and nothing else."""
        self.sockets = [gevent.socket.socket(fileno=listener.detach()) for listener in self.sockets]

    def init_signals(self) -> None:
        super().init_signals()
        self._stopping = Event()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the master decides
        gevent.signal_handler(signal.SIGTERM, self._stopping.set)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)

    def handle_quit(self, sig: int, frame: FrameType | None) -> NoReturn:
        """Leaves at once."""
        sys.exit(0)

    def load_wsgi(self) -> None:
        settings = self.app.settings
        database, row = connect_database(settings), self.app.rows.row(self.row)
        self.application = create_app(settings, database=database, row=row)
        gc.collect()
        gc.freeze()  # the application stays as well
        self.metrics: Metrics = self.application.extensions["authsvc_metrics"]

    def run(self) -> None:
        servers = [self._server(listener) for listener in self.sockets]
        for server in servers:
            server.start()
        if self.age == 1:
            self.app.announce(servers[0].url)
        self._wait()
        gevent.joinall([gevent.spawn(server.stop) for server in servers])
        with self.application.app_context():
            context().close()
        self.metrics.refresh()  # what the audit log lost

    def _server(self, listener: gevent.socket.socket) -> Server:
        settings = self.app.settings
        return Server(listener, self.application, threads=settings.threads, is_one_of_many=settings.workers > 1)

    def _wait(self) -> None:
        """Until it is time to stop: told to, or orphaned."""
        while not self._stopping.is_set() and os.getppid() == self.ppid:
            self.tmp.notify()
            self.metrics.refresh()
            self._stopping.wait(_HEARTBEAT_S)
