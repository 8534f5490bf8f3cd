"""The apps of one runner: the model under its names, and users' apps in processes of their own."""

from collections.abc import Mapping
from typing import Any, Final

import gevent

from runner.apps.engine import Worker
from runner.apps.serving import ServedApp
from runner.built_in import BuiltInApps
from runner.doors.inline import InlineApp
from runner.engine.client import EngineClient
from runner.engine.request import EngineUnavailable
from runner.engine.supervisor import EngineState
from runner.hosting.bridge import HostedApp
from runner.hosting.supervisor import AppState
from runner.settings import Settings
from schemas.service import PartHealth

STOP_GRACE_S: Final = 5.0
"""For `teardown` of the apps, and for the engine's workers to go."""


class ServedApps:
    """Makes the apps that the settings name; `start` starts their processes, and the engine if any is on the model."""

    def __init__(self, settings: Settings, engine: EngineClient, built_in: BuiltInApps) -> None:
        self._engine = engine
        self._hosted: list[HostedApp] = []
        self.needs_engine = False
        """Whether any app is on the model."""
        by_id: dict[str, ServedApp] = {}
        for listed in settings.apps:
            if listed.target is None:
                by_id[listed.app_id] = InlineApp(built_in.app(listed.app_id))
                self.needs_engine = True
            else:
                app = HostedApp(listed.app_id, listed.target, drain_grace_s=settings.shutdown_timeout_s / 2)
                by_id[listed.app_id] = app
                self._hosted.append(app)
        self.by_id: Mapping[str, ServedApp] = by_id

    @property
    def hosted(self) -> list[HostedApp]:
        """Those in processes of their own."""
        return list(self._hosted)

    @property
    def given_up(self) -> list[Any]:
        """Events; one is set once something will never be ready."""
        engine = [self._engine.given_up] if self.needs_engine else []
        return [*engine, *(app.given_up for app in self._hosted)]

    @property
    def why_given_up(self) -> str | None:
        """What will never be ready and why, for the operator; None if nothing."""
        for app in self._hosted:
            if app.given_up.is_set():
                return f"--app {app.app_id}={app.target}: {app.detail}"
        return self._engine.detail if self.needs_engine and self._engine.given_up.is_set() else None

    def start(self) -> None:
        """Starts the processes in the background."""
        for app in self._hosted:
            app.start()
        if self.needs_engine:
            self._engine.start()

    def stop(self) -> None:
        """Ends all processes, by force where they take too long."""
        ending = [gevent.spawn(app.stop, STOP_GRACE_S) for app in self._hosted]
        self._engine.stop(STOP_GRACE_S)
        gevent.joinall(ending, raise_error=True)

    def parts(self) -> list[PartHealth]:
        """How each process is, of the engine and of the apps."""
        workers = self._engine.workers if self.needs_engine else []
        parts = [_worker_health(number, seat) for number, seat in enumerate(workers)]
        return parts + [PartHealth(name=f"app {app.app_id}", state=app.state.lower()) for app in self._hosted]

    def obstacle(self) -> str | None:
        """Why not every app can answer now; None if all can."""
        if self.needs_engine and self._engine.state is not EngineState.READY:
            activity = next((seat.activity for seat in self._engine.workers if seat.activity), None)
            return f"The engine is {self._engine.state.lower()}{f': {activity}' if activity else ''}."
        for app in self._hosted:
            if app.state is not AppState.READY:
                has_failed = app.state is AppState.FAILED
                state = "has failed: its log says why" if has_failed else f"is {app.state.lower()}"
                return f"The app {app.app_id} {state}."
        return None

    def wait_ready(self) -> str:
        """Blocks until every app can answer; returns what is served, for the operator.

        Raises:
            EngineUnavailable: something cannot, if only for now; the text is for the operator.
        """
        for app in self._hosted:
            app.wait_settled()
            if app.state is not AppState.READY:
                raise EngineUnavailable(f"{app.app_id}: {app.state}: {app.detail}")
        names = ", ".join(sorted(self.by_id))
        if not self.needs_engine:
            return names
        self._engine.wait_ready()
        card = self._engine.card
        return f"{card.name} ({card.family}), {card.default_width}x{card.default_height}; apps: {names}"


def _worker_health(number: int, worker: Worker) -> PartHealth:
    part = PartHealth(name=f"worker {number} on {worker.device}", state=worker.state.lower())
    if (activity := worker.activity) is not None:
        part.activity = activity.words
        if activity.total:
            part.done, part.total = activity.done, activity.total
    return part
