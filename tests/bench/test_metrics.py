"""Percentiles of a histogram, as Prometheus has them."""

import pytest

from bench.metrics import Histogram

INFINITE = float("inf")


def test_percentiles_lie_on_a_line_through_their_bucket():
    histogram = Histogram({0.01: 50, 0.05: 90, 0.1: 100, INFINITE: 100})

    assert histogram.percentile(50) == pytest.approx(0.01)
    assert histogram.percentile(70) == pytest.approx(0.03)
    assert histogram.percentile(95) == pytest.approx(0.075)
    assert histogram.share_above(0.05) == pytest.approx(0.1)


def test_beyond_the_last_bound_nothing_is_known():
    assert Histogram({0.01: 5, 0.1: 10, INFINITE: 100}).percentile(99) == 0.1


def test_a_difference_is_what_came_since():
    since = Histogram({0.01: 60, INFINITE: 110}) - Histogram({0.01: 60, INFINITE: 100})

    assert since.count == 10
    assert since.share_above(0.01) == 1
