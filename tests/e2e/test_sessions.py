"""Many sessions at once, and the worker dying under them: what users of a shared server depend on."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psutil

from tests.e2e.sessions import pixels, session
from tests.stack import Stack, running

SOCKETS = 20


def test_each_of_twenty_sessions_gets_its_own_pictures(stack: Stack) -> None:
    """No picture and no request_id ever swaps sockets: each is the one that a lone session gets for that seed."""
    asked = [
        {"prompt": f"picture number {n}", "seed": 1000 + n, "request_id": f"request {n}", "format": "png"}
        for n in range(SOCKETS)
    ]
    with session(stack) as alone:
        expected = [pixels(alone.ask(**fields)) for fields in asked]
    start = threading.Barrier(SOCKETS)

    def rounds(fields: dict[str, Any]) -> list[dict[str, Any]]:
        with session(stack) as mine:
            start.wait()
            return [mine.ask(**fields) for _ in range(3)]

    with ThreadPoolExecutor(SOCKETS) as pool:
        answers = list(pool.map(rounds, asked))

    for fields, results, picture in zip(asked, answers, expected, strict=True):
        for result in results:
            assert (result["request_id"], result["seed"]) == (fields["request_id"], fields["seed"])
            assert np.abs(pixels(result) - picture).mean() < 1
    others = [np.abs(one - other).mean() for i, one in enumerate(expected) for other in expected[:i]]
    assert min(others) > 1, "the pictures are too alike to tell a swap"


def test_the_worker_killed_under_load_costs_no_answer(stack: Stack, bundle: Any) -> None:
    requests, kills, sockets = 12, 3, 6
    with running(bundle) as shaken:
        gateway = psutil.Process(shaken.runner.pid)
        first_worker = worker_of(gateway).pid
        answered = threading.Semaphore(0)

        def load(number: int) -> list[str]:
            with session(shaken) as mine:
                for n in range(requests):
                    # Slow enough that some are always running or waiting when the worker dies.
                    mine.send(prompt="load", request_id=f"{number}.{n}", num_inference_steps=50, num_images=8)
                ids = []
                for _ in range(requests):
                    ids.append(mine.receive()["request_id"])
                    answered.release()
                mine.socket.ping().wait(10)  # the gateway and this socket are still up
                return ids

        with ThreadPoolExecutor(sockets) as pool:
            answers = [pool.submit(load, number) for number in range(sockets)]
            for _ in range(kills):
                for _ in range(sockets):
                    assert answered.acquire(timeout=60)
                worker_of(gateway).kill()
            for number, answer in enumerate(answers):
                assert answer.result() == [f"{number}.{n}" for n in range(requests)]

        assert worker_of(gateway).pid != first_worker
        assert gateway.is_running()


def worker_of(gateway: psutil.Process) -> psutil.Process:
    """The runner's worker, a direct child; there may be none for a moment after one was killed."""
    while True:
        alive = [child for child in gateway.children() if child.status() != psutil.STATUS_ZOMBIE]
        if alive:
            return alive[0]
        psutil.wait_procs(gateway.children(), timeout=0.05)
