"""A run that was cut short goes on where it was; another machine's figures are not mixed with these."""

import json

import pytest

from bench.kept import Kept


def count(calls):
    calls.append(1)
    return len(calls)


def test_a_measurement_is_made_once_over_several_runs(tmp_path):
    calls = []
    for _ in range(2):
        kept = Kept(tmp_path / "gpu.json", {"device": "a"}, {})
        assert kept.measure("step", lambda: count(calls)) == 1


def test_what_was_measured_before_a_failure_is_kept(tmp_path):
    kept = Kept(tmp_path / "gpu.json", {"device": "a"}, {"benchmark": "gpu"})
    kept.measure("first", lambda: 1)
    with pytest.raises(ZeroDivisionError):
        kept.measure("second", lambda: 1 / 0)

    written = json.loads((tmp_path / "gpu.json").read_text())

    assert written["measurements"] == {"first": 1}
    assert written["benchmark"] == "gpu"


def test_another_device_starts_anew(tmp_path):
    Kept(tmp_path / "gpu.json", {"device": "a"}, {}).measure("step", lambda: 1)

    assert Kept(tmp_path / "gpu.json", {"device": "b"}, {}).measure("step", lambda: 2) == 2


def test_a_reason_goes_away_once_it_is_measured(tmp_path):
    kept = Kept(tmp_path / "gpu.json", {}, {})
    kept.skip("peer", "not installed")
    assert kept.content()["not_run"] == {"peer": "not installed"}

    kept.measure("peer", lambda: 1)

    assert kept.content()["not_run"] == {}
