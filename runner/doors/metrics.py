"""`GET /metrics` in Prometheus' text form: how the engine is and what it has done, and what happened at the doors.

Everything is read at the moment it is asked for; nothing is kept here. There are no secrets in it, nor anything of a
single caller. Still it tells how busy the place is: `RUNNER_METRICS=false` closes it, and a proxy can keep it inside.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from flask import Blueprint
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from httpbase import metrics
from runner.apps.engine import WatchedEngine, Worker
from runner.doors.reports import Reporter
from runner.doors.tally import Tally

_STATES: Final = ("STARTING", "READY", "RESTARTING", "FAILED", "STOPPED")
_ROWS_BOUNDS: Final = (1, 2, 4, 8, 16, 32)
_LABELS: Final = ("worker", "device")


def blueprint(engine: WatchedEngine, tally: Tally, reporter: Reporter | None, *others: Collector) -> Blueprint:
    """The route."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(EngineCollector(engine))
    registry.register(DoorCollector(tally, reporter))
    registry.register(tally.stages)
    for other in others:
        registry.register(other)
    return metrics.blueprint(registry)


class EngineCollector(Collector):
    """An engine as metrics. A worker is labelled by its number and its device."""

    def __init__(self, engine: WatchedEngine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        """Every metric, as things are now."""
        pending = GaugeMetricFamily("runner_engine_pending_requests", "Requests that are not answered yet.")
        pending.add_metric([], self._engine.pending)
        yield pending
        workers = [((str(number), worker.device), worker) for number, worker in enumerate(self._engine.workers)]
        yield _states(workers)
        yield from _gauges(workers)
        yield from _counters(workers)
        yield _rows(workers)


class DoorCollector(Collector):
    """What happened at the doors, and the reports about it."""

    def __init__(self, tally: Tally, reporter: Reporter | None) -> None:
        self._tally = tally
        self._reporter = reporter

    def collect(self) -> Iterator[Metric]:
        """Every metric, as things are now."""
        tally = self._tally
        yield _single(GaugeMetricFamily, "runner_open_sessions", "Sessions that are open.", tally.open_sessions)
        yield _single(CounterMetricFamily, "runner_pictures_sent", "Pictures sent over sockets.", tally.images)
        dropped = "Inputs of built-in apps' sockets that newer ones replaced before their turn."
        yield _single(CounterMetricFamily, "runner_inputs_dropped", dropped, tally.dropped_inputs)
        yield _labelled("runner_handshakes_refused", "Handshakes refused, by why.", "reason", tally.refusals)
        yield _labelled("runner_sessions_closed", "Sessions ended, by their close code.", "code", tally.closes)
        yield _labelled("runner_http_requests", "HTTP requests to apps, by status.", "status", tally.answers)
        if self._reporter is not None:
            backlog, lost = self._reporter.backlog, self._reporter.lost
            yield _single(GaugeMetricFamily, "runner_reports_waiting", "Session events not reported yet.", backlog)
            yield _single(CounterMetricFamily, "runner_reports_lost", "Session events never reported.", lost)


def _single(kind: type[GaugeMetricFamily | CounterMetricFamily], name: str, help_: str, value: float) -> Metric:
    family = kind(name, help_)
    family.add_metric([], value)
    return family


def _labelled(name: str, help_: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, help_, labels=(label,))
    for value, count in sorted(counts.items()):
        family.add_metric((value,), count)
    return family


Labelled = tuple[tuple[str, str], Worker]
Values = tuple[tuple[str, str, Callable[[Worker], float]], ...]
Counts = tuple[tuple[str, str, str, Callable[[Worker], dict[str, int]]], ...]

_GAUGES: Final[Values] = (
    ("in_hand_requests", "Requests that the worker was given and has not answered.", lambda w: w.pending),
    ("waiting_requests", "Of those, the ones without a step made.", lambda w: w.statistics.waiting_requests),
    ("running_requests", "Of those, the ones with a step made.", lambda w: w.statistics.running_requests),
    ("prompt_cache_bytes", "Size of the prompt embeddings kept.", lambda w: w.statistics.prompt_cache_bytes),
)
_COUNTERS: Final[Values] = (
    ("restarts", "Processes started after the first one.", lambda w: w.restarts),
    ("pictures", "Pictures drawn to the end.", lambda w: w.statistics.pictures),
    ("step_seconds", "Time spent in the step graph.", lambda w: w.statistics.step_seconds),
    ("prompt_cache_hits", "Prompts whose embeddings were kept.", lambda w: w.statistics.prompt_cache_hits),
    ("prompt_cache_misses", "Prompts that had to be encoded.", lambda w: w.statistics.prompt_cache_misses),
)
_LABELLED_COUNTERS: Final[Counts] = (
    ("answers", "Requests that have ended, by how.", "outcome", lambda w: w.statistics.answers),
    ("steps", "Steps of pictures, by the size of their latents.", "latents", lambda w: w.statistics.steps_by_size),
)


def _states(workers: Iterable[Labelled]) -> Metric:
    help_ = "1 for the state that the worker is in."
    family = GaugeMetricFamily("runner_worker_state", help_, labels=(*_LABELS, "state"))
    for labels, worker in workers:
        for state in _STATES:
            family.add_metric((*labels, state.lower()), float(worker.state == state))
    return family


def _gauges(workers: list[Labelled]) -> Iterator[Metric]:
    for name, help_, value in _GAUGES:
        family = GaugeMetricFamily(f"runner_worker_{name}", help_, labels=_LABELS)
        for labels, worker in workers:
            family.add_metric(labels, value(worker))
        yield family


def _counters(workers: list[Labelled]) -> Iterator[Metric]:
    for name, help_, value in _COUNTERS:
        family = CounterMetricFamily(f"runner_worker_{name}", help_, labels=_LABELS)
        for labels, worker in workers:
            family.add_metric(labels, value(worker))
        yield family
    for name, help_, label, counts in _LABELLED_COUNTERS:
        family = CounterMetricFamily(f"runner_worker_{name}", help_, labels=(*_LABELS, label))
        for labels, worker in workers:
            for key, count in sorted(counts(worker).items()):
                family.add_metric((*labels, key), count)
        yield family


def _rows(workers: Iterable[Labelled]) -> Metric:
    help_ = "Rows in one run of the step graph; the count is that of the runs."
    family = HistogramMetricFamily("runner_worker_step_rows", help_, labels=_LABELS)
    for labels, worker in workers:
        ticks = {int(rows): count for rows, count in worker.statistics.ticks_by_rows.items()}
        buckets = [
            (str(float(bound)), sum(count for rows, count in ticks.items() if rows <= bound)) for bound in _ROWS_BOUNDS
        ]
        everything = sum(ticks.values())
        family.add_metric(labels, [*buckets, ("+Inf", everything)], sum(rows * count for rows, count in ticks.items()))
    return family
