"""The stages of a generation as Prometheus reads them from a real runner, and its health beside them."""

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.sessions import session
from tests.stack import Stack

STAGES = {"queue", "text", "encode_image", "denoise", "step", "decode", "encode", "send"}


def counts(address: str) -> dict[str, float]:
    """How often each stage was timed, and `request`."""
    families = text_string_to_metric_families(httpx.get(f"{address}/metrics").text)
    samples = [sample for family in families for sample in family.samples]
    stages = {s.labels["stage"]: s.value for s in samples if s.name == "runner_stage_seconds_count"}
    [requests] = [s.value for s in samples if s.name == "runner_request_seconds_count"]
    return stages | {"request": requests}


def test_every_stage_of_a_picture_is_timed_once(stack: Stack) -> None:
    address = stack.runner_url.replace("ws://", "http://")
    before = counts(address)
    with session(stack) as opened:
        assert opened.ask(prompt="a red circle", image_size={"width": 64, "height": 64})["images"]
    after = counts(address)
    assert {name for name in after if after[name] == before.get(name, 0) + 1} == STAGES | {"request"}


def test_the_health_of_a_runner_that_serves(stack: Stack) -> None:
    found = httpx.get(f"{stack.runner_url.replace('ws://', 'http://')}/health").json()
    assert found == {"status": "ok", "parts": [{"name": "worker 0 on cpu", "state": "ready"}]}
