"""The official @fal-ai/client 1.10.1 in Node, unmodified but for the host (see js/host.mjs)."""

import base64
import io
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.stack import Stack

JS = Path(__file__).parent / "js"
APP = "fal-ai/fast-lcm-diffusion"

pytestmark = pytest.mark.skipif(shutil.which("npm") is None, reason="Node.js and npm are not installed")


@pytest.fixture(scope="session")
def client() -> Path:
    """The folder of the driver, with the client that its lock file pins."""
    packages = json.loads((JS / "package.json").read_text())["dependencies"]
    if not all((JS / "node_modules" / name).exists() for name in packages):
        subprocess.run(["npm", "ci"], cwd=JS, check=True, capture_output=True)
    return JS


def play(client: Path, stack: Stack, scenario: str, **argument: Any) -> dict[str, Any]:
    at = {"runner": stack.runner_url, "authsvc": stack.authsvc_url, "key": stack.key, **argument}
    done = subprocess.run(
        ["node", "driver.mjs", scenario, json.dumps(at)], cwd=client, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def picture(result: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(result["images"][0]["content"])))


def jpeg(colour: str) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), colour).save(buffer, "JPEG")
    return base64.b64encode(buffer.getvalue()).decode()


def test_connect_send_result_and_a_close_that_is_no_error(client: Path, stack: Stack) -> None:
    seen = play(client, stack, "result")
    [result] = seen["results"]
    assert (result["request_id"], result["seed"]) == ("one", 7)
    assert picture(result).size == (result["images"][0]["width"], result["images"][0]["height"])
    assert result["images"][0]["content_type"] == "image/jpeg"
    assert result["has_nsfw_concepts"] == []
    assert seen["asked"] == [f"{APP}/realtime"]
    assert (seen["errors"], seen["code"]) == ([], 1000)


def test_image_to_image_path_takes_bytes(client: Path, stack: Stack) -> None:
    red, blue = (play(client, stack, "image_to_image", image=jpeg(colour)) for colour in ("red", "blue"))
    assert red["errors"] == blue["errors"] == []
    assert red["results"][0]["images"][0]["content"] != blue["results"][0]["images"][0]["content"]


def test_reconnects_by_itself_after_idle(client: Path, impatient_stack: Stack) -> None:
    seen = play(client, impatient_stack, "reconnect_after_idle")
    assert seen == {"ids": ["before", "after"], "errors": [], "code": 1000, "sockets": 2, "tokens": 2}


def test_a_token_for_another_app_is_noticed(client: Path, stack: Stack) -> None:
    seen = play(client, stack, "refused", apps=["fal-ai/another-app"])
    assert seen["results"] == 0
    assert seen["errors"][0]["body"]["error"] == "FORBIDDEN"
    assert (seen["code"], seen["errors"][1]["status"]) == (4003, 4003)


def test_a_token_that_is_none_is_noticed(client: Path, stack: Stack) -> None:
    seen = play(client, stack, "refused", token="not.a.token")
    assert seen["results"] == 0
    assert seen["errors"][0]["body"]["error"] == "UNAUTHORIZED"
    assert seen["code"] == 4001


def test_a_field_error_names_the_field_and_the_session_lives_on(client: Path, stack: Stack) -> None:
    seen = play(client, stack, "field_error_then_result")
    [error] = seen["errors"]
    assert error["status"] == 400
    assert error["message"].startswith("VALIDATION_ERROR: num_inference_steps")
    assert error["body"]["detail"][0]["loc"] == ["body", "num_inference_steps"]
    assert error["body"]["request_id"] == "bad"
    assert (seen["ids"], seen["sockets"]) == (["good"], 1)


def test_newest_wins_and_every_drop_is_counted(client: Path, stack: Stack) -> None:
    count = 40
    seen = play(client, stack, "newest_wins", count=count)
    assert seen["errors"] == []
    assert len(seen["ids"]) + seen["dropped"] == count
    assert seen["ids"] == sorted(seen["ids"], key=int)
