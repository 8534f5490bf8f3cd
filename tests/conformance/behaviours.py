"""What the tests of this folder say about themselves; `table.py` makes docs/conformance.md of it."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeVar

Test = TypeVar("Test", bound=Callable[..., Any])

ATTRIBUTE: Final = "__behaviour__"


class Whose(StrEnum):
    """Who does at fal what its SDK does not, so that there is nothing to run a test against."""

    GATEWAY = "fal's gateway, which is closed"
    MODEL = "fal's model, which is closed"
    CLIENT = "the official client"
    OURS = "nobody: ours alone"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """One behaviour of fal's wire, held by one test."""

    section: str
    """Of the contract: `3`, `2e`."""
    text: str
    differs: str = ""
    """Why ours is another on purpose: how, and what for. Empty: the same is asserted of both targets."""
    whose: Whose = Whose.GATEWAY
    """For a test without a `target`."""


def behaviour(section: str, text: str, *, differs: str = "", whose: Whose = Whose.GATEWAY) -> Callable[[Test], Test]:
    """Say which behaviour a test holds.

    A test that asks `target.pick` for another outcome of ours than of fal's has to explain it in `differs`, and one
    that explains has to ask: the fixture `target` sees to that.
    """

    def mark(test: Test) -> Test:
        setattr(test, ATTRIBUTE, Behaviour(section, text, differs, whose))
        return test

    return mark
