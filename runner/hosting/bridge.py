"""An app in a process of its own, as the doors see it: what it declares, and the streams that are open to it."""

import itertools
import time
from collections.abc import Sequence
from typing import Final

from gevent.event import Event

from runner.apps.serving import AppUnavailable, Conversation, HttpEndpoint, Socket, SocketEndpoint, SocketTerms
from runner.hosting import frames
from runner.hosting.frames import Frame
from runner.hosting.hosted_http import HostedHttp
from runner.hosting.hosted_socket import HostedConversation
from runner.hosting.link import DeclaredSocket, Stream
from runner.hosting.process import WORKER_COMMAND
from runner.hosting.supervisor import BACK_OFF_S, AppState, AppSupervisor

LOOKUP_WAIT_S: Final = 10.0
"""How long a request waits for an app that is starting."""
BACKLOG_MAX_BYTES: Final = 64 * 1024 * 1024
"""What may wait for a process that does not read; beyond it no new request is taken."""

_STARTING: Final = "the app is starting: try again in a few seconds"
_WHY_NOT: Final = {
    AppState.STARTING: _STARTING,
    AppState.RESTARTING: _STARTING,
    AppState.FAILED: "the app has failed to start: its log on the server says why",
    AppState.STOPPED: "the server is shutting down",
}


class HostedApp:
    """One app in a process of its own, kept alive.

    Args:
        app_id: `owner/alias`, for the log and the operator.
        target: `module:Class`, importable from where the runner was started.
        drain_grace_s: How long raw sockets go on when the runner stops; only their handlers know when they are done.
        command: The worker program.
        back_off_s: Waits before restarts, see `supervisor.BACK_OFF_S`.
    """

    def __init__(
        self,
        app_id: str,
        target: str,
        *,
        drain_grace_s: float = 5.0,
        command: Sequence[str] = WORKER_COMMAND,
        back_off_s: Sequence[float] = BACK_OFF_S,
    ) -> None:
        self.app_id = app_id
        self.target = target
        self.drain_grace_s = drain_grace_s
        self.given_up = Event()
        """Set once no process will ever be ready; `detail` says why."""
        self._sockets: dict[str, HostedSocket] | None = None
        self._http: dict[str, HttpEndpoint] = {}
        self._streams: dict[int, Stream] = {}
        self._ids = itertools.count(1)
        self._settled = Event()  # set while the state is one that lasts
        self._described = Event()
        self._supervisor = AppSupervisor([*command, f"--app={target}"], app_id, self, back_off_s)

    @property
    def state(self) -> AppState:
        """How the process is."""
        return self._supervisor.state

    @property
    def detail(self) -> str:
        """The state in words, for the operator: it may name files of this machine."""
        return self._supervisor.detail

    @property
    def restarts(self) -> int:
        """Processes started after the first one."""
        return self._supervisor.restarts

    @property
    def pid(self) -> int | None:
        """Process id of the app there is now."""
        return self._supervisor.pid

    @property
    def open_streams(self) -> int:
        """Sockets and requests that are open to it."""
        return len(self._streams)

    def start(self) -> None:
        """Starts the process in the background."""
        self._supervisor.start()

    def stop(self, timeout: float = 5.0) -> None:
        """Ends the process, by force after `timeout` seconds."""
        self._supervisor.stop(timeout)
        self.app_died()

    def wait_settled(self, timeout: float | None = None) -> None:
        """Blocks until the app is ready, or has failed, or is stopped."""
        self._settled.wait(timeout)

    # What the doors ask.

    def socket(self, path: str) -> SocketEndpoint | None:
        """The endpoint where WebSockets are opened, or None. Blocks while the app is starting.

        Raises:
            AppUnavailable: it took too long, or the app has failed.
        """
        patience_s = self._await_description()
        assert self._sockets is not None
        endpoint = self._sockets.get(path)
        if endpoint is not None:
            self._await_ready(patience_s)
        return endpoint

    def http(self, path: str) -> HttpEndpoint | None:
        """The endpoint that answers HTTP, or None. Blocks while the app is starting.

        Raises:
            AppUnavailable: it took too long, or the app has failed.
        """
        patience_s = self._await_description()
        endpoint = self._http.get(path)
        if endpoint is not None:
            self._await_ready(patience_s)
        return endpoint

    def _await_description(self) -> float:
        """How long, in seconds, may still be waited."""
        deadline = time.monotonic() + LOOKUP_WAIT_S
        if self.state not in (AppState.FAILED, AppState.STOPPED):
            self._described.wait(LOOKUP_WAIT_S)
        if self._sockets is None:
            raise AppUnavailable(_WHY_NOT.get(self.state, _STARTING))
        return max(deadline - time.monotonic(), 0)

    def _await_ready(self, patience_s: float) -> None:
        self._settled.wait(patience_s)
        self.check_ready()

    # What the streams ask.

    def check_ready(self) -> None:
        """Lets a new stream through.

        Raises:
            AppUnavailable: nobody would answer it.
        """
        if why_not := _WHY_NOT.get(self.state):
            raise AppUnavailable(why_not)
        if self._supervisor.waiting_bytes > BACKLOG_MAX_BYTES:
            raise AppUnavailable("the app is busy: try again in a few seconds")

    def enter(self, stream: Stream) -> int:
        """Opens a stream; returns what it is called on the wire."""
        number = next(self._ids)
        self._streams[number] = stream
        return number

    def leave(self, number: int, code: int) -> None:
        """Ends a stream, if that has not been done; the app learns that its peer closed with `code`."""
        if self._streams.pop(number, None) is not None:
            self.post(frames.encode((frames.END, number, code, "")))

    def post(self, *buffers: bytes) -> None:
        """Sends a frame to the app, in one piece or several."""
        self._supervisor.post(*buffers)

    # What the supervisor says.

    def state_changed(self) -> None:
        """Wakes whoever waits for the app."""
        if self.state in (AppState.STARTING, AppState.RESTARTING):
            self._settled.clear()
        else:
            self._settled.set()
        if self.state in (AppState.FAILED, AppState.STOPPED):
            self._described.set()  # there is nothing more to wait for
        if self._supervisor.has_given_up:
            self.given_up.set()

    def app_said(self, frame: Frame) -> None:
        """Hands a frame to its stream; one of a stream that has ended here meanwhile is dropped."""
        if (stream := self._streams.get(frame[1])) is not None:
            if frame[0] == frames.END:
                del self._streams[frame[1]]
            stream.received(frame)
        elif frame[0] == frames.ENDPOINTS:
            self._describe(frame[2])

    def app_died(self) -> None:
        """Ends every stream."""
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.lost()

    def _describe(self, endpoints: Sequence[tuple[str, str, float | None]]) -> None:
        methods: dict[str, set[str]] = {}
        self._sockets = {}
        for kind, path, session_timeout in endpoints:
            if kind == "http":
                methods.setdefault(path, set()).add("POST")
            elif kind == "page":
                methods.setdefault(path, set()).add("GET")
            else:
                declared = DeclaredSocket(kind != "raw", kind == "unary", session_timeout)
                self._sockets[path] = HostedSocket(self, declared)
        self._http = {path: HostedHttp(self, frozenset(names)) for path, names in methods.items()}
        self._described.set()


class HostedSocket:
    """A path of an app where WebSockets are opened."""

    def __init__(self, app: HostedApp, declared: DeclaredSocket) -> None:
        self._app = app
        self._declared = declared

    def open(self, socket: Socket, terms: SocketTerms) -> Conversation:
        """The conversation of the socket with the app."""
        return HostedConversation(self._app, self._declared, socket, terms)
