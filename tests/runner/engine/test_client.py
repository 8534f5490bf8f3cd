"""The client with real worker processes, killed for real."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import gevent
import psutil
import pytest
from gevent.event import Event

from runner.engine.admission import LEARNING
from runner.engine.client import EngineClient
from runner.engine.ledger import DEATHS_MAX
from runner.engine.pipeline import Pipeline
from runner.engine.request import (
    FLOW,
    LIMITS,
    EngineBusy,
    EngineUnavailable,
    GenerationFailed,
    GenerationLimits,
    GenerationRequest,
    InvalidRequest,
)
from runner.engine.supervisor import EngineState
from tests.runner.engine.conftest import difference, request
from tests.runner.engine.processes import FAULTY_WORKER, PATIENCE_S, Fifo, exit_of
from tests.tiny_bundle import make_tiny_bundle

QUICKLY = (0.0,)
"""Back-off for tests."""


@pytest.fixture
def engine(tiny_bundle: Path) -> Iterator[Callable[..., EngineClient]]:
    """Makes engines and stops them after the test."""
    made: list[EngineClient] = []

    def make(bundle: Path = tiny_bundle, command=FAULTY_WORKER, **options) -> EngineClient:
        made.append(EngineClient(bundle, threads=1, command=command, back_off_s=QUICKLY, **options))
        made[-1].start()
        return made[-1]

    yield make
    for client in made:
        client.stop(PATIENCE_S)


@pytest.fixture
def ready(engine) -> EngineClient:
    client = engine()
    client.wait_ready(PATIENCE_S)
    return client


@pytest.fixture(scope="module")
def shared(tiny_bundle: Path) -> Iterator[EngineClient]:
    """One engine for all tests that leave its worker alive."""
    client = EngineClient(tiny_bundle, threads=1, command=FAULTY_WORKER)
    client.start()
    client.wait_ready(PATIENCE_S)
    yield client
    client.stop(PATIENCE_S)


@pytest.fixture
def fifo(tmp_path: Path) -> Fifo:
    return Fifo(tmp_path / "fifo")


def finished(jobs: list[gevent.Greenlet]) -> list:
    gevent.joinall(jobs, timeout=PATIENCE_S, raise_error=True)
    assert all(job.ready() for job in jobs)
    return [job.value for job in jobs]


def wait_until_in_hand(client: EngineClient, number: int) -> None:
    """Until the workers have said of so many requests that they have begun with them."""
    with gevent.Timeout(PATIENCE_S):
        while sum(entry.is_running for entry in client._desk._ledger) < number:
            gevent.sleep()


def test_it_serves_what_the_pipeline_draws(engine, pipeline: Pipeline) -> None:
    client = engine(command=(sys.executable, "-m", "runner.engine.worker"))
    client.wait_ready(PATIENCE_S)
    assert client.state is EngineState.READY
    assert client.card == pipeline.card
    drawn = client.generate(request(num_images=2)).images
    expected = pipeline.generate(request(num_images=2)).images
    assert max(map(difference, drawn, expected)) < 0.01


def test_twenty_callers_at_once_get_each_their_own_picture(shared: EngineClient, pipeline: Pipeline) -> None:
    asked = [request(prompt=f"star {n}", seed=n) for n in range(20)]
    for one, result in zip(asked, finished([gevent.spawn(shared.generate, a) for a in asked]), strict=True):
        assert difference(result.images[0], pipeline.generate(one).images[0]) < 0.01


def test_kill_9_under_load_answers_every_request_with_its_picture(ready: EngineClient, pipeline: Pipeline) -> None:
    answers: list[int] = []
    progressed = Event()

    def ask(number: int):
        result = ready.generate(request(seed=number, num_inference_steps=8))
        answers.append(number)
        progressed.set()
        return result

    jobs = [gevent.spawn(ask, number) for number in range(60)]
    for killed in range(1, 4):
        progressed.clear()
        assert progressed.wait(PATIENCE_S)
        assert ready.pending > 0
        os.kill(ready.worker_pids[0], signal.SIGKILL)
        while ready.restarts < killed:  # the next answer has to come from the next worker
            gevent.sleep()
    results = finished(jobs)
    assert sorted(answers) == list(range(60))
    for number, result in enumerate(results):
        expected = pipeline.generate(request(seed=number, num_inference_steps=8))
        assert difference(result.images[0], expected.images[0]) < 0.01
    assert ready.restarts == 3


def test_requests_made_while_the_worker_restarts_wait_for_it(ready: EngineClient) -> None:
    os.kill(ready.worker_pids[0], signal.SIGKILL)
    while ready.state is EngineState.READY:
        gevent.sleep()
    assert ready.state is EngineState.RESTARTING
    (result,) = finished([gevent.spawn(ready.generate, request())])
    assert result.images
    assert (ready.state, ready.restarts) == (EngineState.READY, 1)


@pytest.mark.parametrize("device", ["cpu", "cpu,cpu"])
def test_a_poisonous_request_is_given_up_and_those_beside_it_are_answered(
    engine, fifo: Fifo, device: str, pipeline: Pipeline
) -> None:
    client = engine(device=device)
    client.wait_ready(PATIENCE_S)
    # All are under way in the same worker when it dies, in the step that they share.
    held = gevent.spawn(client.generate, request(prompt=fifo.prompt))
    fifo.wait_for_worker()
    asked = [request(seed=n) for n in range(1, 4)]
    before = [gevent.spawn(client.generate, one) for one in asked]
    poison = gevent.spawn(client.generate, request(prompt="die"))
    more = [request(seed=n) for n in range(4, 8)]
    after = [gevent.spawn(client.generate, one) for one in more]
    if device == "cpu":
        wait_until_in_hand(client, 9)
    fifo.release()
    gevent.spawn(fifo.keep_open)  # it is run again, and is not to wait then
    assert finished([held])[0].images
    for one, result in zip(asked + more, finished([*before, *after]), strict=True):
        assert difference(result.images[0], pipeline.generate(one).images[0]) < 0.01
    with pytest.raises(GenerationFailed):
        poison.get(timeout=PATIENCE_S)
    assert client.restarts == DEATHS_MAX
    assert client.generate(request()).images


def test_a_pile_of_poison_takes_nobody_along(ready: EngineClient) -> None:
    jobs = [gevent.spawn(ready.generate, request(prompt="die" if n % 3 == 0 else "", seed=n)) for n in range(9)]
    gevent.joinall(jobs, timeout=PATIENCE_S)
    assert [isinstance(job.exception, GenerationFailed) for job in jobs] == [n % 3 == 0 for n in range(9)]
    assert ready.pending == 0


def test_a_worker_that_says_nonsense_is_replaced(ready: EngineClient) -> None:
    with pytest.raises(GenerationFailed):
        ready.generate(request(prompt="garble"))
    assert ready.restarts == 3
    assert ready.generate(request()).images


def test_a_worker_that_hangs_is_replaced_and_its_request_run_again(engine, fifo: Fifo) -> None:
    client = engine(stall_s=0.5)
    client.wait_ready(PATIENCE_S)
    caller = gevent.spawn(client.generate, request(prompt=fifo.prompt))
    fifo.wait_for_worker()
    with exit_of(client.worker_pids[0]):
        assert client.restarts == 0
    fifo.release()
    fifo.wait_for_worker()  # the next one is at it
    fifo.release()
    assert finished([caller])[0].images
    assert client.restarts == 1


@pytest.mark.parametrize("image", [None, b"GIF89a"], ids=["taken in hand", "refused"])
def test_newcomers_do_not_speak_for_an_engine_that_hangs(engine, fifo: Fifo, image: bytes | None) -> None:
    client = engine(stall_s=0.5)
    client.wait_ready(PATIENCE_S)
    caller = gevent.spawn(client.generate, request(prompt=fifo.prompt))
    fifo.wait_for_worker()
    hung = client.worker_pids[0]

    def ask() -> None:
        with suppress(InvalidRequest, EngineUnavailable):
            client.generate(request(image=image))

    def keep_asking() -> None:
        while True:  # more often than once in `stall_s`, and nobody waits for long
            asked = gevent.spawn(ask)
            gevent.sleep(0.1)
            asked.kill()

    asking = gevent.spawn(keep_asking)
    with exit_of(hung):
        pass
    asking.kill()
    fifo.release()
    fifo.wait_for_worker()  # the next one is at it
    fifo.release()
    assert finished([caller])[0].images


def test_a_killed_caller_takes_its_queued_request_along(shared: EngineClient, fifo: Fifo, tmp_path: Path) -> None:
    running = gevent.spawn(shared.generate, request(prompt=fifo.prompt))
    fifo.wait_for_worker()
    never = Fifo(tmp_path / "never")  # were it drawn, the worker would be stuck
    leaving = gevent.spawn(shared.generate, request(prompt=never.prompt))
    gevent.sleep()
    assert shared.pending == 2
    leaving.kill()
    staying = gevent.spawn(shared.generate, request())
    gevent.sleep()
    assert shared.pending == 2
    wait_until_in_hand(shared, 2)  # so the worker has heard of the one that left as well
    fifo.release()
    assert all(result.images for result in finished([running, staying]))


def test_a_caller_that_times_out_leaves_nothing_behind(shared: EngineClient, fifo: Fifo) -> None:
    caller = gevent.spawn(shared.generate, request(prompt=fifo.prompt))
    fifo.wait_for_worker()
    caller.kill(gevent.Timeout())
    assert isinstance(caller.exception, gevent.Timeout)
    assert shared.pending == 0
    fifo.release()
    assert shared.generate(request()).images
    assert shared.restarts == 0


def test_a_worker_killed_by_a_request_whose_caller_left_blames_nobody_else(ready: EngineClient, fifo: Fifo) -> None:
    caller = gevent.spawn(ready.generate, request(prompt=fifo.prompt))
    fifo.wait_for_worker()
    staying = gevent.spawn(ready.generate, request())
    gevent.sleep()
    caller.kill()
    os.kill(ready.worker_pids[0], signal.SIGKILL)
    fifo.release()
    assert finished([staying])[0].images


def test_invalid_requests_and_failures_come_back_as_such(shared: EngineClient) -> None:
    with pytest.raises(InvalidRequest) as invalid:
        shared.generate(request(width=63))
    assert (invalid.value.field, invalid.value.kind) == ("image_size", "multiple_of")
    with pytest.raises(GenerationFailed) as failed:
        shared.generate(request(prompt="fail"))
    assert len(failed.value.error_id) == 32
    assert "secret" not in str(failed.value)
    assert shared.restarts == 0


def test_too_many_pending_are_refused(engine, fifo: Fifo) -> None:
    client = engine(max_pending=2)
    client.wait_ready(PATIENCE_S)
    jobs = [gevent.spawn(client.generate, request(prompt=fifo.prompt)), gevent.spawn(client.generate, request())]
    fifo.wait_for_worker()
    with pytest.raises(EngineBusy, match="busy") as busy:
        client.generate(request())
    assert busy.value.retry_after_s >= 1
    fifo.release()
    finished(jobs)


def test_who_would_wait_too_long_is_told_to_come_back(engine, fifo: Fifo) -> None:
    client = engine(max_wait_s=1e-6)
    client.wait_ready(PATIENCE_S)
    for _ in range(LEARNING):
        assert client.generate(request()).images  # nobody is before it
    held = gevent.spawn(client.generate, request(prompt=fifo.prompt))
    fifo.wait_for_worker()
    with pytest.raises(EngineBusy):
        client.generate(request())
    fifo.release()
    finished([held])
    assert client.generate(request()).images


def test_each_result_is_observed_with_its_time(engine) -> None:
    seen: list[tuple[GenerationRequest, float]] = []
    client = engine(observe=lambda asked, result, seconds: seen.append((asked, seconds)))
    client.wait_ready(PATIENCE_S)
    result = client.generate(request())
    with pytest.raises(InvalidRequest):
        client.generate(request(width=63))
    [(asked, seconds)] = seen
    assert asked == request()
    assert seconds >= sum(result.timings.values())


def test_nothing_is_taken_before_the_first_worker_is_ready(engine) -> None:
    client = engine()
    assert client.state is EngineState.STARTING
    with pytest.raises(EngineUnavailable, match="the engine is starting"):
        client.generate(request())
    with pytest.raises(EngineUnavailable, match="starting"):
        _ = client.card
    with pytest.raises(EngineUnavailable, match="STARTING"):
        client.wait_ready(timeout=0)


def test_a_bad_bundle_fails_at_once_and_tells_only_the_operator_why(engine, tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path)
    (bundle / "step.onnx").write_bytes(b"")
    client = engine(bundle)
    with pytest.raises(EngineUnavailable, match=r"FAILED: .*step\.onnx: has 0 bytes"):
        client.wait_ready(PATIENCE_S)
    assert (client.state, client.restarts) == (EngineState.FAILED, 0)
    assert "step.onnx" in client.detail
    with pytest.raises(EngineUnavailable) as raised:
        client.generate(request())
    assert str(raised.value) == "the engine has failed"


def test_a_bundle_that_goes_bad_fails_those_who_wait(engine, tmp_path: Path, fifo: Fifo) -> None:
    bundle = make_tiny_bundle(tmp_path / "bundle")
    client = engine(bundle)
    client.wait_ready(PATIENCE_S)
    waiting = gevent.spawn(client.generate, request(prompt=fifo.prompt))
    fifo.wait_for_worker()
    (bundle / "step.onnx").unlink()
    os.kill(client.worker_pids[0], signal.SIGKILL)
    fifo.release()
    with pytest.raises(EngineUnavailable, match="the engine has failed"):
        waiting.get(timeout=PATIENCE_S)


@pytest.mark.parametrize("command", [(sys.executable, "-c", "raise SystemExit(3)"), ("/no/such/program",)])
def test_workers_that_never_get_ready_keep_nobody_waiting(engine, command) -> None:
    client = engine(command=command)
    with pytest.raises(EngineUnavailable, match="FAILED: 5 workers in a row"):
        client.wait_ready(PATIENCE_S)
    with pytest.raises(EngineUnavailable, match="the engine has failed"):
        client.generate(request())


def test_an_engine_whose_workers_died_serves_again_as_soon_as_one_gets_ready(engine, tmp_path: Path) -> None:
    cure = tmp_path / "cure"
    code = (
        "import os, sys;"
        f"os.path.exists({str(cure)!r}) or sys.exit(3);"
        f"os.execv(sys.executable, [*{FAULTY_WORKER!r}, *sys.argv[1:]])"
    )
    client = engine(command=(sys.executable, "-c", code))
    with pytest.raises(EngineUnavailable, match="FAILED"):
        client.wait_ready(PATIENCE_S)
    cure.touch()
    with gevent.Timeout(PATIENCE_S):
        while client.state is EngineState.FAILED:
            gevent.sleep()
    assert client.state is EngineState.READY
    assert client.generate(request()).images


@pytest.fixture
def pair(engine) -> EngineClient:
    """Two workers, both ready."""
    client = engine(device="cpu,cpu")
    with gevent.Timeout(PATIENCE_S):
        while any(seat.state is not EngineState.READY for seat in client.workers):
            gevent.sleep()
    return client


def test_several_workers_share_the_work(pair: EngineClient, fifo: Fifo, pipeline: Pipeline) -> None:
    assert len(set(pair.worker_pids)) == 2
    held = gevent.spawn(pair.generate, request(prompt=fifo.prompt))
    fifo.wait_for_worker()
    asked = [request(seed=n) for n in range(10)]
    results = []
    for one in asked:  # one after the other: each goes past the worker that is held
        results += finished([gevent.spawn(pair.generate, one)])
    assert not held.ready()
    fifo.release()
    assert finished([held])[0].images
    for one, result in zip(asked, results, strict=True):
        assert difference(result.images[0], pipeline.generate(one).images[0]) < 0.01


def test_what_a_worker_leaves_is_drawn_by_the_others(pair: EngineClient, fifo: Fifo) -> None:
    held = gevent.spawn(pair.generate, request(prompt=fifo.prompt))
    fifo.wait_for_worker()
    jobs = [gevent.spawn(pair.generate, request(seed=n)) for n in range(20)]
    wait_until_in_hand(pair, 10)
    assert [seat.pending for seat in pair.workers].count(0) < 2
    busy = next(n for n, seat in enumerate(pair.workers) if seat.pending)
    os.kill(pair.worker_pids[busy], signal.SIGKILL)
    fifo.release()
    gevent.spawn(fifo.keep_open)
    assert all(result.images for result in finished([held, *jobs]))
    assert pair.pending == 0


def test_kill_9_of_either_worker_under_load_answers_every_request_once(pair: EngineClient) -> None:
    answers: list[int] = []
    progressed = Event()

    def ask(number: int) -> None:
        assert pair.generate(request(seed=number, num_inference_steps=8)).images
        answers.append(number)
        progressed.set()

    jobs = [gevent.spawn(ask, number) for number in range(60)]
    for killed in (0, 1, 0):
        progressed.clear()
        assert progressed.wait(PATIENCE_S)
        if (pid := pair.workers[killed].supervisor.worker_pid) is not None:
            os.kill(pid, signal.SIGKILL)
    finished(jobs)
    assert sorted(answers) == list(range(60))


def test_one_worker_is_enough_to_serve_and_each_says_how_it_is(engine, tmp_path: Path, pair: EngineClient) -> None:
    os.kill(pair.worker_pids[0], signal.SIGKILL)
    with gevent.Timeout(PATIENCE_S):
        while pair.workers[0].state is EngineState.READY:
            gevent.sleep()
    assert pair.state is EngineState.READY
    assert pair.detail.startswith("worker 0 on cpu: the worker died")
    assert "worker 1 on cpu: ready" in pair.detail
    assert pair.generate(request()).images


def test_the_counts_go_on_over_a_restart(ready: EngineClient) -> None:
    def drawn() -> int:
        return ready.workers[0].statistics.pictures

    for expected in (1, 2):
        assert ready.generate(request()).images
        with gevent.Timeout(PATIENCE_S):
            while drawn() < expected:
                gevent.sleep(0.01)
        if expected == 1:
            os.kill(ready.worker_pids[0], signal.SIGKILL)
            while ready.restarts == 0:
                gevent.sleep()
            assert drawn() == 1
            ready.wait_ready(PATIENCE_S)
    assert ready.workers[0].statistics.answers == {"finished": 2}


def test_who_a_generation_is_for_reaches_the_worker(engine) -> None:
    client = engine(command=(sys.executable, "-m", "tests.runner.engine.echo_worker"))
    client.wait_ready(PATIENCE_S)

    def ask(flow: str) -> str:
        FLOW.set(flow)
        with pytest.raises(InvalidRequest) as refused:
            client.generate(request())
        return refused.value.message

    flows = [f"socket {number}" for number in range(5)]
    assert finished([gevent.spawn(ask, flow) for flow in flows]) == flows


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        (GenerationLimits(max_pixels=63 * 64), "image_size"),
        (GenerationLimits(max_steps=1), "num_inference_steps"),
    ],
)
def test_no_app_can_have_more_drawn_than_the_socket_s_token_allows(
    shared: EngineClient, limits: GenerationLimits, field: str
) -> None:
    def ask(limits: GenerationLimits) -> object:
        LIMITS.set(limits)
        return shared.generate(request(width=64, height=64, num_inference_steps=2))

    with pytest.raises(InvalidRequest) as refused:
        gevent.spawn(ask, limits).get()
    assert refused.value.field == field
    assert gevent.spawn(ask, GenerationLimits(max_pixels=64 * 64, max_steps=2)).get().images


def test_stopping_ends_every_worker(pair: EngineClient) -> None:
    first, second = pair.worker_pids
    with exit_of(first), exit_of(second):
        pair.stop(PATIENCE_S)
    assert pair.state is EngineState.STOPPED


def test_stopping_answers_those_who_wait_and_ends_the_worker(ready: EngineClient, fifo: Fifo) -> None:
    waiting = gevent.spawn(ready.generate, request(prompt=fifo.prompt))
    fifo.wait_for_worker()
    with exit_of(ready.worker_pids[0]):
        ready.stop(PATIENCE_S)
    fifo.release()
    assert ready.state is EngineState.STOPPED
    with pytest.raises(EngineUnavailable, match="shutting down"):
        waiting.get(timeout=PATIENCE_S)
    with pytest.raises(EngineUnavailable, match="shutting down"):
        ready.generate(request())


def test_a_worker_that_does_not_listen_is_stopped_by_force(ready: EngineClient) -> None:
    pid = ready.worker_pids[0]
    os.kill(pid, signal.SIGSTOP)
    with exit_of(pid):
        ready.stop(timeout=0)


def test_a_device_that_does_not_exist_is_refused_at_once(tiny_bundle: Path) -> None:
    with pytest.raises(ValueError, match=r"cpu or cuda:N.*not 'gpu'"):
        EngineClient(tiny_bundle, "gpu")


def test_the_gateways_side_loads_nothing_of_the_model() -> None:
    """Its process stays small, and starts without the engine's libraries."""
    code = (
        "import sys, runner.engine.client;"
        "print(sorted({'numpy', 'onnxruntime', 'PIL', 'tokenizers'} & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


def test_the_worker_is_a_direct_child_and_outlives_nobody(tiny_bundle: Path) -> None:
    """Kill -9 a gateway: nothing can be said to the worker any more, and still it ends."""
    gateway = (
        "import sys, gevent; from pathlib import Path; from runner.engine.client import EngineClient;"
        f"client = EngineClient(Path({str(tiny_bundle)!r})); client.start(); client.wait_ready(30);"
        "print(client.worker_pids[0], flush=True); gevent.sleep(1000)"
    )
    with subprocess.Popen([sys.executable, "-c", gateway], stdout=subprocess.PIPE, text=True) as process:
        pid = int(process.stdout.readline())
        assert psutil.Process(pid).ppid() == process.pid
        with exit_of(pid):
            process.kill()


def test_restarting_leaks_neither_descriptors_nor_threads_nor_children(ready: EngineClient) -> None:
    def footprint() -> list[int]:
        us = psutil.Process()
        return [us.num_fds(), us.num_threads(), len(us.children(recursive=True))]

    before = footprint()
    for _ in range(2):
        os.kill(ready.worker_pids[0], signal.SIGKILL)
        while ready.state is EngineState.READY:
            gevent.sleep()
        ready.wait_ready(PATIENCE_S)
    # Fewer is fine: the hub's idle threads may end meanwhile.
    assert all(now <= then for now, then in zip(footprint(), before, strict=True))
