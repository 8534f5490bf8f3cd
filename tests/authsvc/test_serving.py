"""The processes of `serve`: a master, its workers, and what signals and crashes do to those who mint meanwhile."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from authsvc.serving.server import MAX_CONNECTIONS
from tests.authsvc.conftest import APP, Served, serving
from tests.processes import module, start_process
from tests.stores import Store

MINTERS = 4


def served_by(workers: int, folder: Path) -> Store:
    return Store(folder, {"workers": str(workers)})


def mint(client: httpx.Client, served: Served) -> httpx.Response:
    headers = {"Authorization": f"Key {served.key}"}
    return client.post(f"{served.url}/tokens/", json={"app": APP}, headers=headers)


def workers_of(served: Served) -> set[int]:
    return {child.pid for child in psutil.Process(served.process.pid).children()}


@contextmanager
def minting(served: Served) -> Iterator[Callable[[int], list[int]]]:
    """Clients that mint without a pause, each on a connection that it keeps.

    Gives a function that waits for so many more answers and returns the status of all so far.
    """
    enough, statuses, counted = threading.Event(), [], threading.Semaphore(0)

    def mint_until_enough() -> None:
        with httpx.Client(timeout=30) as client:
            while not enough.is_set():
                statuses.append(mint(client, served).status_code)
                counted.release()

    def more(count: int) -> list[int]:
        for _ in range(count):
            assert counted.acquire(timeout=30)
        return list(statuses)

    with ThreadPoolExecutor(MINTERS) as pool:
        minters = [pool.submit(mint_until_enough) for _ in range(MINTERS)]
        try:
            yield more
        finally:
            enough.set()
        for minter in minters:
            minter.result()


@pytest.fixture(params=[1, 2])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    with serving(served_by(request.param, tmp_path)) as served:
        yield served


def test_a_reload_under_load_replaces_every_worker_and_loses_no_request(served: Served) -> None:
    with minting(served) as more:
        more(2 * MINTERS)
        before = workers_of(served)
        for _ in range(2):
            served.process.send_signal(signal.SIGHUP)
            psutil.wait_procs([psutil.Process(pid) for pid in before if psutil.pid_exists(pid)], timeout=30)
            after = workers_of(served)
            assert before.isdisjoint(after)
            assert len(after) == len(before)
            before = after
            more(2 * MINTERS)
        statuses = more(2 * MINTERS)
    assert set(statuses) == {201}


def test_a_worker_that_is_killed_is_replaced_and_its_counts_are_kept(served: Served) -> None:
    with httpx.Client() as client:
        for _ in range(5):
            assert mint(client, served).status_code == 201
    victims = workers_of(served)
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    served.process.wait_for_line("was sent SIGKILL")
    with httpx.Client(timeout=30) as client:  # connections wait in the master's socket until a new worker takes them
        assert mint(client, served).status_code == 201
        assert metrics(client, served)["authsvc_tokens_minted_total", ""] == 6
    assert workers_of(served).isdisjoint(victims)


def test_a_stop_answers_requests_in_hand_of_every_worker(served: Served) -> None:
    with httpx.Client() as client:
        mint(client, served)
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait() == 0
    served.process.wait_for_line("stopping")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{served.url}/health/live")


def test_workers_whose_master_was_killed_leave_the_port(served: Served) -> None:
    orphans = [psutil.Process(pid) for pid in workers_of(served)]
    os.kill(served.process.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(orphans, timeout=30)
    assert not alive
    port = str(served.process.port)
    with start_process(module("authsvc", "serve", "--port", port), served.env) as again:
        assert httpx.get(f"{again.url}/health/ready").is_success


def test_sigusr2_starts_a_second_master_on_the_same_socket(tmp_path: Path) -> None:
    with serving(served_by(1, tmp_path)) as served, minting(served) as more:
        more(MINTERS)
        first = psutil.Process(served.process.pid)
        old = workers_of(served)
        served.process.send_signal(signal.SIGUSR2)
        served.process.wait_for_line("listening on")
        while not (second := [child for child in first.children() if child.pid not in old and child.children()]):
            more(1)
        first.terminate()
        served.process.wait()
        statuses = more(4 * MINTERS)
        assert set(statuses) == {201}
        second[0].terminate()
        # The block ends with clients that still mint, so they stop before the second master does.


def test_a_worker_that_starts_while_the_database_is_away_answers_503_and_recovers(tmp_path: Path) -> None:
    with serving(served_by(1, tmp_path)) as served, httpx.Client(timeout=30) as client:
        away = tmp_path / "away"
        away.mkdir()
        files = list(tmp_path.glob("authsvc.sqlite3*"))
        for file in files:
            file.rename(away / file.name)
        for pid in workers_of(served):
            os.kill(pid, signal.SIGKILL)
        served.process.wait_for_line("was sent SIGKILL")
        assert client.get(f"{served.url}/health/live").is_success
        assert mint(client, served).status_code == 503
        for file in files:
            (away / file.name).rename(file)
        assert mint(client, served).status_code == 201
        assert metrics(client, served)["authsvc_database_errors_total", ""] >= 1


def test_several_workers_that_count_apart_are_warned_of(tmp_path: Path) -> None:
    with serving(served_by(2, tmp_path)) as served:
        served.process.wait_for_line("AUTHSVC_REDIS_URL")


def metrics(client: httpx.Client, served: Served) -> dict[tuple[str, str], float]:
    """What the metrics say: name and labels to value."""
    families = text_string_to_metric_families(client.get(f"{served.url}/metrics").text)
    return {
        (sample.name, " ".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_metrics_add_up_all_workers(served: Served) -> None:
    minted = 12
    for _ in range(minted):  # a connection each, so that each worker gets some
        with httpx.Client() as client:
            assert mint(client, served).status_code == 201
    with httpx.Client() as client:
        client.post(f"{served.url}/tokens/", json={}, headers={"Authorization": "Key a:b"})
        client.get(f"{served.url}/nowhere/{served.key}")
        for _ in range(3):
            found = metrics(client, served)
            assert found["authsvc_tokens_minted_total", ""] == minted
            assert found["authsvc_requests_total", "method=POST route=/tokens/ status=201"] == minted
            assert found["authsvc_request_seconds_count", "method=POST route=/tokens/"] == minted + 1
            assert found["authsvc_mint_refusals_total", "reason=unauthorized"] == 1
            assert found["authsvc_authentication_failures_total", ""] == 1
            assert found["authsvc_requests_total", "method=other route=none status=404"] == 1
            assert found["authsvc_workers", ""] == len(workers_of(served))
        text = client.get(f"{served.url}/metrics").text
    assert "lcmk_" not in text


def test_a_low_limit_of_open_files_does_not_lower_the_number_of_connections(tmp_path: Path) -> None:
    """Else a thousand idle connections have workers fail to accept, and to open their database."""
    command = ["sh", "-c", 'ulimit -Sn 256; exec "$@"', "sh", *module("authsvc", "serve")]
    with start_process(command, {"AUTHSVC_PORT": "0", "AUTHSVC_DATA_DIR": str(tmp_path)}) as process:
        (worker,) = psutil.Process(process.pid).children()
        assert worker.rlimit(psutil.RLIMIT_NOFILE)[0] >= MAX_CONNECTIONS
