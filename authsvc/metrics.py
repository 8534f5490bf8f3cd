"""What `GET /metrics` tells Prometheus: how many requests, how long they took, and what became of mints.

The numbers are those of all workers together. A label's values are known before the first request: routes as they
are written here, methods and statuses that we know. So no caller can make the metrics grow, and there is nothing in
them of a key, a subject or an address. `AUTHSVC_METRICS=false` closes the door.
"""

import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any, Final

from flask import Flask, Response, g, request
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from authsvc.ledger.audit_buffer import AuditBuffer
from authsvc.serving.server import ARRIVED
from authsvc.shared_counts import GAUGES, NUMBERS, Row
from schemas.problems import KINDS

SECONDS_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
UNKNOWN_ROUTE: Final = ("other", "none")
"""The method and the route of a request that no route answers."""

_STATUSES: Final = (200, 201, 204, 304, *KINDS)
_OTHER: Final = "other"
_MINTING: Final = ("tokens.mint_realtime", "tokens.mint_legacy")
_REASONS: Final = tuple(kind.error_type for kind in KINDS.values())

Route = tuple[str, str]


class Metrics(Collector):
    """What one application counts, in the row of its process; read as the sum over all rows.

    Args:
        app: The application, with all its routes.
        row: Where this process counts.
        audit: Whose backlog is shown.
    """

    def __init__(self, app: Flask, row: Row, audit: AuditBuffer) -> None:
        self._row = row
        self._audit = audit
        self._dropped_before = 0
        self._workers, self._backlog = range(2)
        self._places = iter(range(GAUGES, NUMBERS))
        pairs = sorted((method, rule.rule) for rule in app.url_map.iter_rules() for method in rule.methods or ())
        routes: list[Route] = [*dict.fromkeys(pairs), UNKNOWN_ROUTE]
        statuses = [*map(str, _STATUSES), _OTHER]
        self._requests = {(*route, status): next(self._places) for route in routes for status in statuses}
        self._buckets = {route: [next(self._places) for _ in (*SECONDS_BOUNDS, "+Inf")] for route in routes}
        self._seconds = {route: next(self._places) for route in routes}
        self._refusals = {reason: next(self._places) for reason in (*_REASONS, _OTHER)}
        self._minted, self._unauthenticated = next(self._places), next(self._places)
        self._database_errors, self._dropped = next(self._places), next(self._places)

    def watch(self, app: Flask) -> None:
        """Counts every request of an application."""
        app.after_request(self._after_request)

    def _after_request(self, response: Response) -> Response:
        rule = request.url_rule
        route = (request.method, rule.rule) if rule is not None else UNKNOWN_ROUTE
        now = time.perf_counter()
        self._count(route, response.status_code, now - request.environ.get(ARRIVED, now))
        return response

    def _count(self, route: Route, status: int, seconds: float) -> None:
        if route not in self._seconds:
            route = UNKNOWN_ROUTE
        word = str(status) if status in _STATUSES else _OTHER
        places = [self._requests[*route, word], self._buckets[route][bisect_left(SECONDS_BOUNDS, seconds)]]
        if status == 401:
            places.append(self._unauthenticated)
        if g.get("database_failed"):
            places.append(self._database_errors)
        if request.endpoint in _MINTING:
            places.append(self._minted if status == 201 else self._refusals[_reason(status)])
        self._row.add(*places)
        self._row.add_amount(self._seconds[route], seconds)

    def refresh(self) -> None:
        """Writes down how this process is; its worker does so every second."""
        self._row.set(self._workers, 1)
        self._row.set(self._backlog, self._audit.backlog)
        dropped = self._audit.dropped
        self._row.add_amount(self._dropped, dropped - self._dropped_before)
        self._dropped_before = dropped

    def collect(self) -> Iterator[Metric]:
        """Every metric, as things are now."""
        self.refresh()
        yield self._labelled("authsvc_requests", "Requests answered.", ("method", "route", "status"), self._requests)
        yield self._durations()
        reasons = {(reason,): place for reason, place in self._refusals.items()}
        yield self._labelled("authsvc_mint_refusals", "Requests for a token that got none.", ("reason",), reasons)
        for name, help_, place in (
            ("tokens_minted", "Tokens minted.", self._minted),
            ("authentication_failures", "Requests without a good key where one is needed.", self._unauthenticated),
            ("database_errors", "Requests that the database could not serve.", self._database_errors),
            ("audit_events_dropped", "Audit events that could not be kept.", self._dropped),
        ):
            yield CounterMetricFamily(f"authsvc_{name}", help_, value=self._total(place))
        yield GaugeMetricFamily("authsvc_audit_backlog", "Audit events to be written.", self._total(self._backlog))
        yield GaugeMetricFamily("authsvc_workers", "Processes that serve.", self._total(self._workers))

    def _labelled(
        self, name: str, help_: str, labels: tuple[str, ...], places: Mapping[Any, int]
    ) -> CounterMetricFamily:
        family = CounterMetricFamily(name, help_, labels=labels)
        for values, place in places.items():
            if count := self._total(place):
                family.add_metric(values, count)
        return family

    def _durations(self) -> HistogramMetricFamily:
        help_ = "From the arrival of a request's last byte to its answer."
        family = HistogramMetricFamily("authsvc_request_seconds", help_, labels=("method", "route"))
        bounds = [*map(str, SECONDS_BOUNDS), "+Inf"]
        for route, places in self._buckets.items():
            counts = list(accumulate(self._total(place) for place in places))
            if counts[-1]:
                buckets = list(zip(bounds, counts, strict=True))
                family.add_metric(route, buckets, self._total(self._seconds[route]))
        return family

    def _total(self, place: int) -> float:
        return self._row.everyone.total(place)


def _reason(status: int) -> str:
    return KINDS[status].error_type if status in KINDS else _OTHER
