"""The README's six examples, on the model that ships: each that draws gives a picture of what was asked."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from pocket.judge import Verdict, judge
from tests.processes import ROOT, run_module
from tests.stack import Stack, running

POCKET = ROOT / "models" / "pocket"
README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running(POCKET) as started:
        yield started


def seen(picture: Path) -> Verdict:
    return judge(np.asarray(Image.open(picture).convert("RGB")))


def environment(stack: Stack) -> dict[str, str]:
    """What the README exports, at this stack's addresses."""
    return {
        **os.environ,
        "FAL_KEY": stack.key,
        "FAL_RUN_HOST": f"localhost:{stack.runner_tls_port}",
        "SSL_CERT_FILE": str(stack.ca),
        "AUTHSVC_URL": stack.authsvc_url,
        "RUNNER_URL": stack.runner_url,
    }


def curl(stack: Stack, nth: int) -> Any:
    """The JSON that the README's nth curl gets at this stack's addresses."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    shown = re.findall(r"(curl -s .*?)\n```", README, re.DOTALL)[nth]
    here = stack.runner_url.replace("ws://", "http://")
    command = shown.replace("http://127.0.0.1:8001", stack.authsvc_url).replace("http://127.0.0.1:8002", here)
    done = subprocess.run(["sh", "-c", command], env=environment(stack), capture_output=True, text=True, timeout=30)
    return json.loads(done.stdout)


def test_curl_mints_a_token(stack: Stack) -> None:
    answer = curl(stack, 0)
    assert answer["expires_in"] == 120
    assert answer["allowed_apps"] == ["fal-ai/fast-lcm-diffusion/realtime"]


def test_curl_gets_a_link_to_a_picture(stack: Stack, tmp_path: Path) -> None:
    picture = tmp_path / "picture.jpg"
    picture.write_bytes(httpx.get(curl(stack, 1)["images"][0]["url"]).raise_for_status().content)
    verdict = seen(picture)
    assert (verdict.shape, verdict.colour, verdict.size, verdict.background) == ("circle", "yellow", "small", "black")


def test_the_app_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = re.search(r"```python\n(import runner as fal.*?)```", README, re.DOTALL)
    assert shown is not None
    (tmp_path / "my_app.py").write_text(shown[1])
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # the README has the file in the folder of the start
    with running(POCKET, app="me/my-app=my_app:MyApp") as stack:
        assert curl(stack, 2) == {"output": "HELLO"}


def test_the_python_example(stack: Stack, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "examples" / "python_client.py")]
    done = subprocess.run(command, cwd=tmp_path, env=environment(stack), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    star, heart, square = (seen(tmp_path / f"{name}.jpg") for name in ("star", "heart", "square"))
    assert (star.shape, star.colour, star.place, star.background) == ("star", "red", "left", "blue")
    assert (heart.shape, heart.colour, heart.size, heart.background) == ("heart", "green", "large", "yellow")
    assert (square.shape, square.colour, square.background) == ("square", "black", "white")


@pytest.mark.skipif(shutil.which("npm") is None, reason="Node.js and npm are not installed")
def test_the_javascript_example(stack: Stack, tmp_path: Path) -> None:
    folder = tmp_path / "node"
    shutil.copytree(ROOT / "examples" / "node", folder, ignore=shutil.ignore_patterns("node_modules"))
    subprocess.run(["npm", "ci"], cwd=folder, check=True, capture_output=True)
    done = subprocess.run(
        ["node", "realtime.mjs"], cwd=folder, env=environment(stack), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    verdict = seen(folder / "picture.jpg")
    assert (verdict.shape, verdict.colour, verdict.background) == ("heart", "green", "yellow")


def test_generate_without_any_server(tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    prompt = "a purple triangle on a white background"
    done = run_module("runner", "generate", "--model", str(POCKET), prompt, "--seed", "3", "-o", str(out))
    assert done.returncode == 0, done.stderr
    verdict = seen(out)
    assert (verdict.shape, verdict.colour, verdict.background) == ("triangle", "purple", "white")
