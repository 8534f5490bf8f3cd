"""The official clients over HTTP against the real services: run, and stream in both of its modes."""

import base64
import io
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.e2e.programs import program
from tests.stack import Stack

JS = Path(__file__).parent / "js"
APP = "fal-ai/fast-lcm-diffusion"

SCRIPT = """
import { createFalClient } from "@fal-ai/client";
const [at, scenario] = process.argv.slice(1);
const { runner, token, key } = JSON.parse(at);
const APP = "fal-ai/fast-lcm-diffusion";
const seen = { urls: [], authorized: [] };
const fal = createFalClient({
  credentials: key,
  suppressLocalCredentialsWarning: true,
  fetch: (url, init) => {
    seen.urls.push(new URL(String(url)).pathname);
    seen.authorized.push(new Headers(init?.headers).has("authorization"));
    return fetch(String(url).replace("https://fal.run", runner), init);
  },
});
const failed = (error) => ({ status: error.status, name: error.name, fields: error.fieldErrors, body: error.body });
const scenarios = {
  async run() {
    const { data, requestId } = await fal.run(APP, { input: { prompt: "a red circle", seed: 7 } });
    return { data, requestId };
  },
  async invalid() {
    return fal.run(APP, { input: { prompt: "a red circle", num_inference_steps: 1000 } }).catch(failed);
  },
  async stream(connectionMode) {
    const stream = await fal.stream(APP, {
      input: { prompt: "a red circle", seed: 7 }, connectionMode, tokenProvider: async () => token,
    });
    const events = [];
    for await (const event of stream) events.push(event);
    return { count: events.length, done: await stream.done() };
  },
};
const [name, argument] = scenario.split(" ");
console.log(JSON.stringify({ ...(await scenarios[name](argument)), ...seen }));
process.exit(0);
"""


def javascript(stack: Stack, scenario: str) -> dict[str, Any]:
    if not (JS / "node_modules" / "@fal-ai" / "client").exists():
        subprocess.run(["npm", "ci"], cwd=JS, check=True, capture_output=True)
    at = {"runner": stack.runner_url.replace("ws://", "http://"), "token": stack.mint(APP), "key": stack.key}
    done = subprocess.run(
        ["node", "--input-type=module", "-e", SCRIPT, json.dumps(at), scenario],
        cwd=JS,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def size(image: dict[str, Any]) -> tuple[int, int]:
    header, _, content = image["url"].partition(",")
    assert header == f"data:{image['content_type']};base64"
    return Image.open(io.BytesIO(base64.b64decode(content))).size


class TestPython:
    def test_run(self, stack: Stack) -> None:
        [result] = program(
            stack, 'print(json.dumps(fal_client.run(APP, {"prompt": "a red circle", "seed": 7}, timeout=30)))'
        )
        assert result["seed"] == 7
        [image] = result["images"]
        assert size(image) == (image["width"], image["height"])

    def test_run_async(self, stack: Stack) -> None:
        [result] = program(
            stack, 'print(json.dumps(asyncio.run(fal_client.run_async(APP, {"prompt": "x", "seed": 7}))))'
        )
        assert result["seed"] == 7

    def test_a_field_error_is_raised_with_its_list(self, stack: Stack) -> None:
        [refused] = program(
            stack,
            """
            try:
                fal_client.run(APP, {"prompt": "x", "num_inference_steps": 1000})
            except fal_client.client.FalClientHTTPError as error:
                print(json.dumps({"status": error.status_code, "type": error.error_type, "text": str(error)}))
            """,
        )
        assert (refused["status"], refused["type"]) == (422, "validation_error")
        assert "num_inference_steps" in refused["text"]

    def test_a_timeout_of_the_users_own_is_told_apart(self, stack: Stack) -> None:
        [refused] = program(
            stack,
            """
            try:
                fal_client.run(APP, {"prompt": "x", "num_images": 8}, headers={"x-fal-request-timeout": "0.1001"})
            except fal_client.client.FalClientHTTPError as error:
                print(json.dumps([error.status_code, error.error_type, dict(error.response_headers)]))
            else:
                print(json.dumps(None))
            """,
        )
        if refused is not None:  # a fast machine draws in less than the least timeout there is
            status, error_type, headers = refused
            assert (status, error_type, headers["x-fal-request-timeout-type"]) == (504, "request_timeout", "user")

    def test_stream_ends_with_what_run_gives(self, stack: Stack) -> None:
        *previews, last, run = program(
            stack,
            """
            for event in fal_client.stream(APP, {"prompt": "a red circle", "seed": 7}):
                print(json.dumps(event))
            print(json.dumps(fal_client.run(APP, {"prompt": "a red circle", "seed": 7})))
            """,
        )
        assert all(event["preview"] for event in previews)
        assert [image["url"] for image in last["images"]] == [image["url"] for image in run["images"]]


@pytest.mark.skipif(shutil.which("npm") is None, reason="Node.js and npm are not installed")
class TestJavaScript:
    def test_run(self, stack: Stack) -> None:
        seen = javascript(stack, "run")
        assert seen["data"]["seed"] == 7
        assert size(seen["data"]["images"][0])
        assert len(seen["requestId"]) == 36

    def test_a_field_error_is_its_validation_error(self, stack: Stack) -> None:
        seen = javascript(stack, "invalid")
        assert (seen["status"], seen["name"]) == (422, "ValidationError")
        assert seen["body"]["detail"][0]["loc"] == ["body", "num_inference_steps"]

    @pytest.mark.parametrize("mode", ["client", "server"])
    def test_stream(self, stack: Stack, mode: str) -> None:
        seen = javascript(stack, f"stream {mode}")
        assert seen["urls"] == [f"/{APP}/stream"]
        assert seen["authorized"] == [mode == "server"]
        assert seen["count"] >= 1
        assert seen["done"]["seed"] == 7
        assert size(seen["done"]["images"][0])
