"""What an app needs of an engine; the client of the worker process provides it."""

from typing import Protocol

from runner.engine.request import GenerationRequest, GenerationResult, ModelCard


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
