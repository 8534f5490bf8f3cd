"""What comes before an application's first request and after its last, asked for as a server does."""

import asyncio
from typing import Any

import pytest

import runner as fal
from runner.hosting.application import build
from runner.hosting.lifespan import Lifespan, LifespanFailed


class Fragile(fal.App):
    def __init__(self, breaks: str) -> None:
        self.breaks = breaks

    def setup(self) -> None:
        if self.breaks == "setup":
            raise RuntimeError("no weights")

    async def teardown(self) -> None:
        if self.breaks == "teardown":
            raise RuntimeError("no goodbye")

    @fal.endpoint("/")
    def answer(self) -> str:
        return self.breaks


async def live(application: Any) -> None:
    lifespan = Lifespan(application)
    await lifespan.startup()
    await lifespan.shutdown()


@pytest.mark.parametrize(
    ("breaks", "words"),
    [("setup", r"^startup failed: (.|\n)*no weights"), ("teardown", r"^shutdown failed: (.|\n)*no goodbye")],
)
def test_a_failure_says_when_it_was_and_what_was_raised(breaks: str, words: str) -> None:
    with pytest.raises(LifespanFailed, match=words):
        asyncio.run(live(build(Fragile(breaks))))


def test_an_application_that_knows_nothing_of_it_does_not_start() -> None:
    async def ignorant(scope: Any, receive: Any, send: Any) -> None:
        raise KeyError(scope["type"])

    with pytest.raises(LifespanFailed, match="startup was not answered") as failed:
        asyncio.run(live(ignorant))
    assert isinstance(failed.value.__cause__, KeyError)
