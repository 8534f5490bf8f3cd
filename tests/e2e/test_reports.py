"""What a runner tells authsvc about its sockets, from the picture to `authsvc usage`."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.sessions import APP, session
from tests.processes import module, run_module, start_process
from tests.stack import Stack, running

SIZE = {"width": 64, "height": 64}


def command(stack: Stack, *arguments: str) -> Any:
    done = run_module("authsvc", *arguments, "--json", env=stack.data)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_usage_is_counted_by_key_and_app_once_the_runner_has_stopped(bundle: Path) -> None:
    with running(bundle, reports=True) as stack:
        token = stack.mint(APP)
        for _ in range(2):
            with session(stack, token) as opened:
                opened.ask(prompt="a red circle", num_images=2, image_size=SIZE)
        stack.runner.stop()
        [row] = command(stack, "usage")["usage"]
        kinds = [event["kind"] for event in command(stack, "audit", "list")["events"]]
    assert (row["key_id"], row["app"]) == (stack.key.partition(":")[0], APP)
    assert (row["connections"], row["images"], row["pixels"]) == (2, 4, 4 * 64 * 64)
    assert row["seconds"] > 0
    assert sorted(kinds)[:4] == ["closed", "closed", "connected", "connected"]


def test_what_happened_while_authsvc_was_away_is_reported_later_and_once(bundle: Path) -> None:
    with running(bundle, reports=True, idle_timeout_s="600") as stack:
        with session(stack) as opened:
            opened.ask(prompt="a red circle", image_size=SIZE)
            stack.authsvc.stop()
        stack.runner.wait_for_line("session events cannot be reported just now")
        with start_process(module("authsvc", "serve", "--port", str(stack.authsvc.port)), stack.data):
            stack.runner.wait_for_line("session events are reported again; 0 were lost")
            stack.runner.stop()
            [row] = command(stack, "usage")["usage"]
    assert (row["connections"], row["images"]) == (1, 1)


def test_a_runner_without_a_key_says_so(stack: Stack) -> None:
    stack.runner.wait_for_line("usage is not reported: RUNNER_AUTHSVC_KEY is not set")


@pytest.mark.parametrize("key", ["lcmk_0123456789ab:S3CRET", "minting"])
def test_a_key_that_may_not_report_disturbs_no_socket_and_stays_secret(bundle: Path, stack: Stack, key: str) -> None:
    key = stack.key if key == "minting" else key
    env = {"RUNNER_AUTHSVC_KEY": key, "RUNNER_AUTHSVC_URL": stack.authsvc_url, "RUNNER_MODEL": str(bundle)}
    with start_process(module("runner", "serve", "--port", "0", "--device", "cpu"), env) as runner:
        runner.wait_for_line("runner is ready")
        with httpx.Client(base_url=runner.url) as client:
            url = runner.url.replace("http", "ws", 1)
            other = replace(stack, runner_url=url)
            with session(other) as opened:
                opened.ask(prompt="a red circle", image_size=SIZE)
            said = runner.wait_for_line("session events cannot be reported").string
            assert "RUNNER_AUTHSVC_KEY is refused with 40" in said
            metrics = client.get("/metrics").text
        for name in ("runner_reports_waiting", "runner_open_sessions", "runner_pictures_sent_total"):
            assert f"\n{name} " in metrics
        runner.stop()
        secret = key.partition(":")[2]
        assert secret not in runner.text + metrics


def test_a_key_that_is_none_is_refused_by_name_and_not_repeated(bundle: Path) -> None:
    done = run_module("runner", "serve", "--model", str(bundle), env={"RUNNER_AUTHSVC_KEY": "S3CRET"})
    assert done.returncode != 0
    assert "RUNNER_AUTHSVC_KEY" in done.stderr
    assert "S3CRET" not in done.stderr + done.stdout
