"""docs/measurements.md is what the results say, and says of each goal whether it is met."""

import pytest

from bench import measurements
from bench.floors import floor_ms


def test_the_page_is_that_of_the_results():
    assert measurements.PAGE.read_text() == measurements.page(measurements.read()), "run: make docs"


def test_a_goal_is_met_missed_or_open():
    goal = next(goal for goal in measurements.GOALS if goal.bench == "admission")

    assert "| 1.2 | met, by 8 % |" in goal.row({"admission": {"admission_p95_steps": 1.2}})
    assert "| 1.56 | **missed**, by 20 % |" in goal.row({"admission": {"admission_p95_steps": 1.56}})
    assert "| open | not run yet: `python -m bench.admission` |" in goal.row({})


def test_speed_is_a_goal_to_be_exceeded():
    goal = next(goal for goal in measurements.GOALS if "H200: 512x512, 4 steps, eight waiting" in goal.what)

    def row(rate):
        return goal.row({"gpu": {"measurements": {"ours/full_vae/512/s4/b8": {"pictures_per_s": rate}}}})

    assert "met, by 10 %" in row(66.0)
    assert "**missed**, by 10 %" in row(54.0)


def test_the_floors_are_those_of_the_reference():
    """512 and 1024, 4 steps, prompt known: 11.2 and 47.5 ms; TAESDXL 8.2 and 35.0; eight at once 89.8."""
    text = 1000 * 1.635e-3 / 4.3

    def floor(vae, side, batch):
        return pytest.approx(floor_ms(vae, side, 4, batch) - batch * text, abs=0.1)

    assert [floor("full_vae", 512, 1), floor("full_vae", 1024, 1)] == [11.2, 47.5]
    assert [floor("tiny_vae", 512, 1), floor("tiny_vae", 1024, 1)] == [8.2, 35.0]
    assert floor("full_vae", 512, 8) == 89.8


def test_gpu_results_appear_with_their_share_of_the_floor():
    found = {"p50_ms": 23.0, "p90_ms": 24.0, "min_ms": 22.0, "pictures_per_s": 43.5}
    result = {
        "device": "NVIDIA H200",
        "machine": {
            "date": "2026-01-01",
            "cores": 16,
            "cpu": "a CPU",
            "load_1m": 0.1,
            "python": "3.12",
            "packages": {},
        },
        "measurements": {
            "ours/full_vae/512/s4/b1": found,
            "against_diffusers/full_vae/512/s4/b1": {"ours": found, "diffusers": found, "times_faster": 1.0},
            "stages/full_vae/512": {
                "read": 0.1,
                "text": 1.0,
                "step": {"1": 3.0, "2": 4.0, "4": 6.0, "8": 10.0},
                "decoder_stages": [3.0, 4.5],
                "jpeg": 1.5,
            },
        },
        "not_run": {"against_torch.compile/full_vae": "no compiler"},
    }

    page = measurements.gpu(result)

    assert "| full VAE | 512x512 | 4 | 1 | 23 | 24 | 43.5 | 11.6 | 50 % |" in page
    assert "| full VAE | 512x512 | 8 | 1 | open |" in page
    assert "| diffusers | full_vae | 512 | 4 | 1 | 23 | 23 | 1 |" in page
    assert "| torch.compile/full_vae | not run: no compiler |" in page
    assert "| full_vae | 512 | 0.1 | 1 | 3 | 4 | 6 | 10 | 7.5 | 4.5 | 1.5 |" in page
