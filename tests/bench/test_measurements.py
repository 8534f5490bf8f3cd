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


MACHINE = {"date": "2026-01-01", "cores": 2, "cpu": "a CPU", "load_1m": 0.1, "python": "3.12", "packages": {}}


def test_both_gateways_stand_side_by_side():
    def figures(rate):
        return {"per_second": rate, "cpu_us": 90.0, "p50_ms": 1.5, "p99_ms": 2.5}

    pair = {"50": {"ours": figures(2000.0), "fal": figures(1000.0)}}
    waiting = {"base_mb": 90.0, "fresh_kb": 20.0, "used_kb": 25.0}
    result = {
        "machine": MACHINE,
        "peer": {"fal": "1.83.0"},
        "rounds": 7,
        "seconds": 3.0,
        "cores": 2,
        "load_generator_busy": 0.15,
        "painter": {"/realtime": pair, "/thumbnail/realtime": pair},
        "pocket": {"/realtime": pair},
        "idle": {"sockets": 1000, "ours": waiting, "fal": {**waiting, "used_kb": 50.0}},
    }

    page = measurements.gateway(result)

    assert "| returns 60 KB | 50 | 2000 | 1000 | 90 | 90 | 1.5 | 1.5 | 2.5 | 2.5 |" in page
    assert "| the bundled model | 50 | 2000 | 1000 |" in page
    assert "fal's SDK: 50 KB for each of 1000" in " ".join(page.split())


def test_a_late_hub_stands_beside_a_machine_that_is_late():
    late = {"p50_ms": 0.5, "p99_ms": 12.0}
    result = {
        "machine": MACHINE,
        "seconds": 30.0,
        "busy_sockets": 8,
        "probe_every_ms": 20.0,
        "pictures_per_s": 34.5,
        "phases": {"engine": {"hub": {**late, "ticks": 3000}, "nobody": {**late, "max_ms": 20.0}}},
    }

    page = measurements.hub_tick(result)

    assert "| the engine is saturated | the hub's timers | 0.5 | 12 |  |" in page
    assert "| the engine is saturated | a process that does nothing | 0.5 | 12 | 20 |" in page


def test_a_soak_says_what_grew():
    trend = {"median": 80.0, "grown": 0.25, "wavers": 0.1}
    result = {
        "machine": MACHINE,
        "minutes": 30.0,
        "connections": 200,
        "hostile": 20,
        "answers": 9000,
        "failed": 0,
        "visits": {"draw": 10, "half_a_frame": 2},
        "leaks": [],
        "left_over": [],
        "replaced_processes": [],
        "second_half": {
            "gateway: engine.worker 123": dict.fromkeys(("resident_mb", "descriptors", "threads", "greenlets"), trend)
        },
    }
    goal = next(goal for goal in measurements.GOALS if goal.bench == "soak")

    page = measurements.soak(result)

    assert "| gateway: engine.worker | 80 | 0.25 | 80 | 0.25 |" in page
    assert "nothing grew, nothing was left over" in " ".join(page.split())
    assert "| 0 | met |" in goal.row({"soak": result})
    leaking = {**result, "leaks": ["gateway: threads grew by 9.0"]}
    assert "gateway: threads grew by 9.0." in " ".join(measurements.soak(leaking).split())
    assert "| 1 | **missed** |" in goal.row({"soak": leaking})
