"""What counts as growth, and a short soak of a real runner."""

import json
import random
import subprocess

import pytest

from bench.soak import Trend, leaks, left_over
from tests.processes import ROOT, clean_environment, module

STEADY = {"resident_mb": 80.0, "descriptors": 100.0, "threads": 3.0, "greenlets": 200.0}


def samples(**growing):
    """Ninety of a process that wavers; what is named grows besides, by so much over the whole."""
    chance = random.Random(0)
    return [
        {
            "gateway": {
                name: value + chance.gauss(0, 0.02 * value) + growing.get(name, 0) * number / 89
                for name, value in STEADY.items()
            }
        }
        for number in range(90)
    ]


def test_a_line_is_fitted():
    trend = Trend.of([1.0, 3.0, 5.0, 7.0])

    assert trend.grown == pytest.approx(6)
    assert trend.wavers == pytest.approx(0)


def test_noise_is_no_leak():
    assert leaks(samples())[0] == []


@pytest.mark.parametrize(("name", "growth"), [("resident_mb", 40), ("descriptors", 40), ("greenlets", 300)])
def test_growth_beyond_the_noise_is_one(name, growth):
    [found], trends = leaks(samples(**{name: growth}))

    assert found.startswith(f"gateway: {name} grew by")
    assert trends["gateway"][name]["grown"] == pytest.approx(growth / 2, rel=0.3)  # of the second half


def test_what_has_grown_in_the_first_half_alone_is_none():
    first, second = samples(resident_mb=80)[:45], [{"gateway": {**STEADY, "resident_mb": 160.0}}] * 45

    assert leaks([*first, *second])[0] == []


def test_what_is_left_over_when_all_have_gone():
    before, after = {"gateway": STEADY}, {"gateway": {**STEADY, "descriptors": 120.0}}

    assert left_over(before, before) == []
    assert left_over(before, after) == ["gateway: descriptors 100 before, 120 after"]


def test_a_short_soak_answers_every_caller_and_leaves_nothing_over():
    environment = clean_environment()
    for name in ("LCM_TEST_SECRETS", "PYTHONPATH"):  # the sitecustomize there would stand before the soak's
        environment.pop(name, None)
    command = module("bench.soak", "--quick", "--json", "--minutes", "0.1", "--connections", "20")
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout.splitlines()[-1])

    assert (found["failures"], found["left_over"], found["replaced_processes"]) == ([], [], [])
    assert found["answers"] > 0
    # The gateway's own are frozen (`gc.freeze`) and unseen; those of authsvc show that they are counted at all.
    assert max(process["greenlets"] for process in found["rest"]["before"].values()) > 0
    assert done.returncode == 0, done.stderr
