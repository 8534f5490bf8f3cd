"""A hub that something holds is late, and the metric says so."""

import time
from collections.abc import Iterator

import gevent
import pytest
from flask import Flask
from prometheus_client.parser import text_string_to_metric_families

from runner.doors import metrics
from runner.doors.hub_watch import HubWatch
from runner.doors.tally import Tally
from tests.runner.doors.test_metrics import Engine


@pytest.fixture
def watch() -> Iterator[HubWatch]:
    watch = HubWatch()
    watch.start()
    yield watch
    watch.stop()


def samples(watch: HubWatch) -> dict[str, float]:
    """Counts by their upper bound; `sum` and `count` too."""
    app = Flask("test")
    app.register_blueprint(metrics.blueprint(Engine([]), Tally(), None, watch))
    [family] = [
        family
        for family in text_string_to_metric_families(app.test_client().get("/metrics").text)
        if family.name == "runner_hub_lateness_seconds"
    ]
    return {sample.labels.get("le", sample.name.rpartition("_")[2]): sample.value for sample in family.samples}


def hold_the_hub(watch: HubWatch, seconds: float) -> None:
    while not samples(watch)["count"]:  # it has begun
        gevent.sleep(0.01)
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        pass
    before = samples(watch)["count"]
    while samples(watch)["count"] == before:
        gevent.sleep(0.001)


def test_every_moment_that_a_held_hub_missed_counts(watch: HubWatch) -> None:
    hold_the_hub(watch, 0.3)
    found = samples(watch)
    # Due every 10 ms: in 300 ms at least 19 were late by over 100 ms, and they add up.
    assert found["+Inf"] - found["0.1"] >= 19
    assert found["sum"] >= 19 * 0.1
    assert found["+Inf"] == found["count"]


def test_bounds_are_upper_bounds_and_counts_add_up(watch: HubWatch) -> None:
    hold_the_hub(watch, 0.05)
    found = samples(watch)
    counts = [found[bound] for bound in sorted((name for name in found if name[0].isdigit()), key=float)]
    assert counts == sorted(counts)
    assert counts[-1] <= found["+Inf"]


def test_it_can_be_stopped_before_it_was_started() -> None:
    HubWatch().stop()
