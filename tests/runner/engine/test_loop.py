"""The engine's loop against a fake pipeline and a clock that only the device's work moves."""

import itertools
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.engine.finishing import PATIENCE_PICTURES
from runner.engine.loop import EngineLoop, Task
from runner.engine.messages import Failed, Finished, FromWorker, Progress, Refused, Started, Statistics
from runner.engine.request import GenerationRequest
from tests.runner.engine.simulation import (
    ENCODE_S,
    PREPARE_S,
    READ_S,
    STAGE_S,
    STEP_S,
    Card,
    Simulation,
    request,
)

instants = st.floats(0, 20, allow_nan=False)


def keep_busy(simulation: Simulation, clients: int, until: float) -> None:
    """Clients that ask again as soon as they are answered, and began at different times."""

    def ask(client: str, number: int) -> None:
        simulation.ask(simulation.world.now, f"{client}:{number}", flow=client)

    def again(prompt: str) -> None:
        client, colon, number = prompt.partition(":")
        if colon and simulation.world.now < until:
            ask(client, int(number) + 1)

    simulation.when_answered = again
    for number in range(clients):
        simulation.world.at(1.3 * number, lambda client=f"client {number}": ask(client, 0))


def first_step(simulation: Simulation, prompt: str) -> float:
    return simulation.runs("step", prompt)[0].start


def test_one_request_goes_straight_through() -> None:
    simulation = Simulation()
    simulation.ask(0, "a")
    simulation.run()
    assert [run.what for run in simulation.pipeline.runs] == ["prepare", *["step"] * 4, "stage", "stage"]
    (finished,) = simulation.answers()["a"]
    assert isinstance(finished, Finished)
    assert [image.content for image in finished.result.images] == [b"a"]
    assert simulation.said[0] == (0, Started(1))


def test_the_timings_say_how_long_each_stage_took() -> None:
    simulation = Simulation()
    simulation.ask(0, "other")
    simulation.ask(0.5, "a")
    simulation.run()
    (finished,) = simulation.answers()["a"]
    assert isinstance(finished, Finished)
    timings = finished.result.timings
    whole = next(time for time, message in simulation.said if message == finished) - 0.5
    assert list(timings) == ["queue", "text", "denoise", "decode", "encode"]
    assert timings["text"] == pytest.approx(READ_S + PREPARE_S)
    # It arrived in the middle of the other's first step.
    assert timings["queue"] == pytest.approx(PREPARE_S + STEP_S - 0.5 - READ_S)
    # Between its steps the other one's picture was decoded, and its own waited for that.
    assert timings["denoise"] == pytest.approx(4 * STEP_S + 2 * STAGE_S)
    assert timings["decode"] == pytest.approx(2 * STAGE_S)
    assert timings["encode"] == pytest.approx(ENCODE_S)
    assert sum(timings.values()) == pytest.approx(whole)


@given(st.floats(2, 20))
def test_a_new_request_takes_part_in_the_next_step(arrival: float) -> None:
    """Whenever it comes: once it is read, no step begins without it."""
    simulation = Simulation()
    keep_busy(simulation, clients=4, until=22)
    simulation.ask(arrival, "new")
    simulation.run()
    admitted = first_step(simulation, "new")
    between = [run for run in simulation.runs("step") if arrival + READ_S < run.start < admitted]
    assert between == []
    # What runs when it comes, one stage of a decoder that was put off before, and whoever else is new.
    assert admitted - arrival <= STEP_S + STAGE_S + 5 * PREPARE_S + 1e-9


def held_up() -> tuple[EngineLoop, list[FromWorker]]:
    """A loop whose side threads never come to anything."""
    said: list[FromWorker] = []
    tasks: list[Task] = []
    simulation = Simulation()
    return EngineLoop(simulation.pipeline, said.append, tasks.append, lambda task: task()), said


def test_pictures_that_are_hard_to_read_hold_up_no_prompt() -> None:
    loop, said = held_up()
    loop.put(1, request("a", image=b"hard to read"), "A")
    loop.put(2, request("b"), "B")
    while loop.turn():
        pass
    assert [message.id for message in said if isinstance(message, Finished)] == [2]


def test_the_picture_of_a_caller_who_left_is_let_go_before_it_is_read() -> None:
    loop, _ = held_up()
    picture = bytes(1000)
    before = sys.getrefcount(picture)
    loop.put(1, request("a", image=picture), "A")
    assert sys.getrefcount(picture) > before
    loop.cancel(1)
    loop.turn()
    assert sys.getrefcount(picture) == before


def gaps(simulation: Simulation) -> list[float]:
    """How long samples that could have stepped waited between two steps."""
    steps = simulation.runs("step")
    found = []
    for one, following in itertools.pairwise(steps):
        prompts = {*one.prompts} & {*following.prompts}
        if prompts:
            found.append(following.start - one.end)
    return found


@given(st.floats(0.05, 3.0), st.floats(0.05, 3.0), st.integers(1, 4), st.integers(1, 6))
def test_nobody_under_way_waits_much_longer_than_a_step(
    prepare_s: float, stage_s: float, stages: int, clients: int
) -> None:
    """Between two steps: what fits into the time of a step, or one run of each kind if one alone takes longer."""
    simulation = Simulation(prepare_s=prepare_s, stage_s=stage_s, stages=stages)
    keep_busy(simulation, clients=clients, until=60)
    simulation.run()
    assert max(gaps(simulation)) <= max(STEP_S, stage_s) + prepare_s + 1e-6


@given(st.floats(1.01, 3.0), st.integers(2, 6))
def test_a_decoder_that_is_slower_than_a_step_delays_it_by_one_stage_only(stage_s: float, clients: int) -> None:
    simulation = Simulation(stage_s=stage_s, prepare_s=0.0)
    keep_busy(simulation, clients=clients, until=60)
    simulation.run()
    assert max(gaps(simulation)) <= stage_s + 1e-6


def test_pictures_are_finished_even_if_newcomers_never_end() -> None:
    simulation = Simulation(stage_s=2.0, rows_max=4)
    simulation.ask(0, "a", flow="A", num_inference_steps=1)
    for number in range(40):
        simulation.ask(number * 0.9, f"new {number}", num_inference_steps=2)
    simulation.run()
    answered = next(time for time, message in simulation.said if isinstance(message, Finished) and message.id == 1)
    assert answered < 12


def test_a_large_picture_is_finished_even_if_small_ones_never_end() -> None:
    """Its flow has had more than all the small ones will for a long time."""
    simulation = Simulation()
    simulation.ask(10, "large", flow="large", width=1024, height=1024, num_inference_steps=2)
    keep_busy(simulation, clients=4, until=300)
    simulation.run()
    denoised_at = simulation.runs("step", "large")[-1].end
    decoded_at = simulation.runs("stage", "large")[-1].end
    between = [run for run in simulation.runs("stage") if denoised_at <= run.start < decoded_at]
    assert len(between) <= 2 * (PATIENCE_PICTURES * 5 + 3)


def test_without_steps_everything_else_runs_back_to_back() -> None:
    simulation = Simulation(rows_max=8)
    simulation.ask(0, "a", num_images=3, num_inference_steps=1)
    simulation.run()
    runs = simulation.pipeline.runs
    assert all(one.end == following.start for one, following in itertools.pairwise(runs))
    assert [run.what for run in runs] == ["prepare", "step", *["stage"] * 6]


def test_who_leaves_is_dropped_before_the_next_step_and_makes_room() -> None:
    simulation = Simulation(rows_max=1)
    simulation.ask(0, "a", flow="A")
    simulation.ask(0, "b", flow="B")
    simulation.cancel(1.5, "a")
    simulation.run()
    assert all(run.start < 1.5 for run in simulation.runs("step", "a"))
    assert simulation.answers()["a"] == []
    assert len(simulation.answers()["b"]) == 1
    steps = simulation.runs("step", "b")
    # From then on it steps without a pause.
    late = [run for run in steps if run.start > 1.5]
    assert late[-1].end - late[0].start == pytest.approx(len(late) * STEP_S)


@pytest.mark.parametrize("time", [0.01, 0.05, 0.5, 3.0, 4.3, 4.6, 5.0])
def test_who_leaves_at_any_stage_leaves_nothing_behind(time: float) -> None:
    simulation = Simulation(card=Card(has_safety_checker=True))
    simulation.ask(0, "a", num_images=2)
    simulation.cancel(time, "a")
    simulation.ask(6, "b")
    simulation.run()
    assert simulation.pipeline.held == set()
    assert simulation.answers()["a"] == []
    assert not simulation.loop.is_drawing
    assert all(run.start <= time for run in simulation.pipeline.runs if "a" in run.prompts)
    assert len(simulation.answers()["b"]) == 1


@pytest.mark.parametrize("rows_max", [1, 4])
@pytest.mark.parametrize("prepare_s", [0.1, 0.9])
def test_a_flood_from_one_socket_does_not_delay_another(rows_max: int, prepare_s: float) -> None:
    simulation = Simulation(rows_max=rows_max, prepare_s=prepare_s)
    for number in range(40):
        simulation.ask(0, f"flood {number}", flow="A")
    simulation.ask(7.5, "new", flow="B")
    simulation.run()
    assert first_step(simulation, "new") - 7.5 <= STEP_S + STAGE_S + 2 * prepare_s
    steps = simulation.runs("step", "new")
    # At worst every other step is the flood's.
    between = 1 if rows_max == 1 else 0
    longest = (1 + between) * (STEP_S + max(STEP_S, prepare_s) + STAGE_S)
    assert all(following.start - one.start <= longest for one, following in itertools.pairwise(steps))
    assert (
        len([run for run in simulation.runs("step") if steps[0].start < run.start < steps[-1].start]) <= 2 + 4 * between
    )


def test_a_request_that_is_slow_to_prepare_is_admitted_all_the_same() -> None:
    simulation = Simulation(prepare_s=3 * STEP_S)
    keep_busy(simulation, clients=3, until=60)
    simulation.ask(20, "new")
    simulation.run()
    # What runs when it comes, the other newcomers with a step after each, and its own.
    assert first_step(simulation, "new") - 20 <= 4 * (3 * STEP_S + STEP_S + STAGE_S)


def test_who_leaves_while_the_request_is_read_costs_the_device_nothing() -> None:
    simulation = Simulation()

    def read(request: GenerationRequest) -> GenerationRequest:
        simulation.loop.cancel(1)
        return request

    simulation.pipeline.read = read  # type: ignore[method-assign]
    simulation.ask(0, "a")
    simulation.run()
    assert simulation.pipeline.runs == []
    assert simulation.answers()["a"] == []


def test_the_safety_checker_looks_before_pictures_are_encoded() -> None:
    simulation = Simulation(card=Card(has_safety_checker=True))
    simulation.ask(0, "a", num_images=2)
    simulation.ask(0, "b", check_safety=False)
    simulation.run()
    (checked,) = simulation.runs("check")
    assert checked.prompts == ("a", "a")
    results = {prompt: answer[0].result for prompt, answer in simulation.answers().items()}
    assert results["a"].has_nsfw_concepts == [False, False]
    assert results["b"].has_nsfw_concepts == []


def test_too_little_memory_makes_batches_smaller_for_good() -> None:
    simulation = Simulation(rows_that_fit=3)
    for number in range(8):
        simulation.ask(0, f"{number}")
    simulation.run()
    assert [type(*answers) for answers in simulation.answers().values()] == [Finished] * 8
    assert max(run.rows for run in simulation.runs("step")) <= 3


def test_too_little_memory_for_one_alone_is_said_of_its_size() -> None:
    simulation = Simulation(rows_that_fit=1)
    simulation.ask(0, "a", guidance_scale=5.0)
    simulation.ask(0, "b")
    simulation.run()
    (refused,) = simulation.answers()["a"]
    assert isinstance(refused, Refused)
    assert (refused.field, refused.kind) == ("image_size", "out_of_memory")
    assert isinstance(simulation.answers()["b"][0], Finished)


@pytest.mark.parametrize("stage", ["prepare", "step", "stage", "check", "encode"])
def test_one_that_fails_fails_alone(stage: str, caplog: pytest.LogCaptureFixture) -> None:
    simulation = Simulation(fails_in=stage, card=Card(has_safety_checker=True))
    for prompt in ("a", "fails", "b"):
        simulation.ask(0, prompt, num_images=2)
    simulation.run()
    (failed,) = simulation.answers()["fails"]
    assert isinstance(failed, Failed)
    assert failed.error_id in caplog.text
    assert "the secret cause" in caplog.text
    assert {type(simulation.answers()[prompt][0]) for prompt in "ab"} == {Finished}
    assert simulation.pipeline.held == set()


def test_it_says_which_requests_get_further_and_what_it_has_counted() -> None:
    simulation = Simulation()
    simulation.ask(0, "a", num_inference_steps=10)
    simulation.ask(30, "b")
    simulation.run()
    progress = [message.id for _, message in simulation.said if isinstance(message, Progress)]
    assert progress.count(1) >= 9
    times = [time for time, message in simulation.said if isinstance(message, Statistics)]
    assert all(following - one >= 1 for one, following in itertools.pairwise(times))
    last = [message.statistics for _, message in simulation.said if isinstance(message, Statistics)][-1]
    assert last.steps_by_size == {"8x8": 14} or last.ticks == 13  # the very last ones are not told yet


asked = st.fixed_dictionaries(
    {
        "num_inference_steps": st.integers(1, 5),
        "num_images": st.integers(1, 3),
        "width": st.sampled_from([64, 64, 128]),
        "guidance_scale": st.sampled_from([1.0, 5.0]),
    }
)
requests = st.tuples(
    instants, st.sampled_from("ABC"), asked, st.sampled_from(["", "", "", "refused", "fails"]), st.none() | instants
)


@given(
    st.lists(requests, min_size=1, max_size=12),
    st.integers(2, 6),
    st.integers(1, 8),
    st.sampled_from(["", "prepare", "step", "stage", "check", "encode"]),
    st.booleans(),
)
def test_whatever_comes_and_goes_each_request_is_answered_once(
    arriving: list[tuple[float, str, dict[str, Any], str, float | None]],
    rows_max: int,
    rows_that_fit: int,
    fails_in: str,
    checks: bool,
) -> None:
    simulation = Simulation(
        rows_max=rows_max, rows_that_fit=rows_that_fit, fails_in=fails_in, card=Card(has_safety_checker=checks)
    )
    cancelled = {}
    for number, (arrival, flow, changes, kind, leaving) in enumerate(arriving):
        prompt = f"{kind} {number}"
        simulation.ask(arrival, prompt, flow, **changes)
        if leaving is not None and leaving >= arrival:
            simulation.cancel(leaving, prompt)
            cancelled[prompt] = leaving
    simulation.run()
    for prompt, answers in simulation.answers().items():
        assert len(answers) == 1 or (not answers and prompt in cancelled)
    for time, message in simulation.said:
        if isinstance(message, Finished | Refused | Failed):
            assert time <= cancelled.get(f"{arriving[message.id - 1][3]} {message.id - 1}", time)
    for run in simulation.runs("step"):
        assert run.rows <= max(2, min(rows_max, rows_that_fit))
        assert all(run.start <= cancelled.get(prompt, run.start) for prompt in run.prompts)
    assert simulation.pipeline.held == set()
    assert not simulation.loop.is_drawing
