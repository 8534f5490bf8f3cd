"""What apps and watchers need of an engine; the client of the worker processes provides it."""

from collections.abc import Generator, Sequence
from typing import Protocol

from runner.engine.request import (
    Activity,
    EngineStatistics,
    GenerationRequest,
    GenerationResult,
    ModelCard,
    StepPreview,
)


class Engine(Protocol):
    """A model that generates. Calls block their greenlet, never the hub."""

    @property
    def card(self) -> ModelCard:
        """What the model can do.

        Raises:
            EngineUnavailable: it has not been loaded yet.
        """

    def wait_ready(self, timeout: float | None = None) -> None:
        """Waits until the model is loaded.

        Raises:
            EngineUnavailable: it will not be, or took more than `timeout` seconds.
        """

    def generate(self, request: GenerationRequest) -> GenerationResult:
        """Generates; killing the greenlet that waits here gives the work up.

        Raises:
            GenerationError: see its subclasses.
        """

    def stream(self, request: GenerationRequest) -> Generator[StepPreview | GenerationResult]:
        """Generates, and yields previews of the first picture on the way to the result, which comes last.

        Nothing happens before the first is taken. Closing it, or killing the greenlet that waits in it, gives the
        work up.

        Raises:
            GenerationError: see its subclasses.
        """


class Worker(Protocol):
    """One worker's place, for whoever watches: what is at it may have been started again."""

    @property
    def device(self) -> str:
        """What it draws on."""

    @property
    def state(self) -> str:
        """One word, a member of `supervisor.EngineState`."""

    @property
    def activity(self) -> Activity | None:
        """What it does to become ready, if it is not."""

    @property
    def restarts(self) -> int:
        """Processes started after the first one."""

    @property
    def pending(self) -> int:
        """Requests that it has in hand."""

    @property
    def statistics(self) -> EngineStatistics:
        """What it has counted, over restarts."""


class WatchedEngine(Protocol):
    """An engine that can be watched. Nothing here blocks."""

    @property
    def pending(self) -> int:
        """Requests that are not answered."""

    @property
    def workers(self) -> Sequence[Worker]:
        """The workers."""
