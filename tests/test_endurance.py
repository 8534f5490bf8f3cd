"""The short form of bench/endurance.py: random inputs, good and bad, through a real worker."""

import json

from tests.processes import run_module


def test_three_hundred_random_inputs_are_all_answered_and_the_worker_lives() -> None:
    done = run_module("bench.endurance", "--quick", "--json", "--seed", "7", timeout_s=110)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["failures"] == []
    assert found["restarts"] == 0
    assert sum(found["outcomes"].values()) == 300
    assert found["outcomes"]["picture"] > 50
    assert sum(count for outcome, count in found["outcomes"].items() if outcome.startswith("field error")) > 50
