"""Competitors in processes of their own, driven in turns: what one keeps in memory or lets spin is no other's trouble.

A turn is one competitor's; it measures itself, so the way to its process and back is not in the numbers.
"""

import multiprocessing
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from bench.peers import Peer, Picture, Request

PATIENCE_S = 600
REST_S = 0.02
"""Between turns: threads of the last competitor that still spin go to sleep."""

Load = Callable[[], Peer]


class Broken(Exception):
    """A competitor failed; the message is its traceback."""


@dataclass
class Competitor:
    """A peer in its process."""

    name: str
    process: BaseProcess
    connection: Connection

    def picture(self, request: Request) -> Picture:
        """The picture that it draws from our engine's noise."""
        picture: Picture = self._ask("picture", request)
        return picture

    def seconds(self, requests: Sequence[Request]) -> float:
        """How long it takes to draw requests that wait at the same time."""
        time.sleep(REST_S)
        seconds: float = self._ask("seconds", list(requests))
        return seconds

    def _ask(self, what: str, argument: Any) -> Any:
        self.connection.send((what, argument))
        return self.answer()

    def answer(self) -> Any:
        """What it says next."""
        if not self.connection.poll(PATIENCE_S):
            raise Broken(f"{self.name}: no answer within {PATIENCE_S} s")
        try:
            succeeded, value = self.connection.recv()
        except EOFError as error:
            raise Broken(f"{self.name}: its process died") from error
        if not succeeded:
            raise Broken(f"{self.name}: {value}")
        return value


@contextmanager
def competing(loads: dict[str, Load]) -> Iterator[dict[str, Competitor]]:
    """Start a process for each peer, one after the other, and wait until it is loaded."""
    context = multiprocessing.get_context("spawn")
    competitors: dict[str, Competitor] = {}
    try:
        for name, load in loads.items():
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(there, load), name=name, daemon=True)
            process.start()
            there.close()
            competitors[name] = Competitor(name, process, here)
            competitors[name].answer()
        yield competitors
    finally:
        for competitor in competitors.values():
            competitor.connection.close()
            competitor.process.join(10)


@contextmanager
def loaded_or_none(name: str, load: Load, say_why: Callable[[Broken], None]) -> Iterator[Competitor | None]:
    """One peer in its process; None, and `say_why` is told, if it cannot be loaded here."""
    with ExitStack() as stack:
        try:
            competitor = stack.enter_context(competing({name: load}))[name]
        except Broken as error:
            say_why(error)
            yield None
            return
        yield competitor


def in_process(measure: Callable[[], Any]) -> Any:
    """What `measure` returns, computed in a process of its own: what it took is free afterwards.

    Raises:
        Broken: it failed.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_return, args=(there, measure), daemon=True)
    process.start()
    there.close()
    try:
        return Competitor("measurement", process, here).answer()
    finally:
        process.join(10)


def _return(connection: Connection, measure: Callable[[], Any]) -> None:
    try:
        connection.send((True, measure()))
    except Exception:
        connection.send((False, traceback.format_exc()))


def _serve(connection: Connection, load: Load) -> None:
    try:
        peer = load()
        connection.send((True, None))
        while True:
            what, argument = connection.recv()
            connection.send((True, _timed(peer, argument) if what == "seconds" else peer.picture(argument)))
    except EOFError:
        pass  # the run is over
    except Exception:
        connection.send((False, traceback.format_exc()))


def _timed(peer: Peer, requests: Sequence[Request]) -> float:
    started = time.perf_counter()
    peer.draw(requests)
    return time.perf_counter() - started
