"""The examples of docs/http.md, word for word but for the addresses, which are this stack's."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.processes import ROOT
from tests.stack import Stack

PAGE = (ROOT / "docs" / "http.md").read_text()
LIBRARY, CURL, CLIENT = (
    re.search(pattern, PAGE, re.DOTALL)
    for pattern in (
        r"```python\n(import json\n.*?)```",
        r"\n(curl -s .*?)\n```",
        r"bin/python -c '\n(.*?)'\n```",
    )
)


def run(stack: Stack, *command: str) -> str:
    env = {
        **os.environ,
        "FAL_KEY": stack.key,
        "FAL_RUN_HOST": f"localhost:{stack.runner_tls_port}",
        "SSL_CERT_FILE": str(stack.ca),
    }
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(stack: Stack) -> None:
    assert CURL is not None
    here = stack.runner_url.replace("ws://", "http://")
    assert '"seed":' in run(stack, "sh", "-c", CURL[1].replace("http://127.0.0.1:8002", here))


def test_fal_client_runs_and_streams(stack: Stack) -> None:
    assert CLIENT is not None
    results = [line for line in run(stack, sys.executable, "-c", CLIENT[1]).splitlines() if "'preview'" not in line]
    assert len(results) == 2  # of run, and the last of the stream
    assert all("'images'" in result for result in results)


def test_http_over_websocket_with_any_library(stack: Stack) -> None:
    assert LIBRARY is not None
    printed = run(stack, sys.executable, "-c", LIBRARY[1].replace("ws://127.0.0.1:8002", stack.runner_url))
    assert re.match(r"200 \d+ [\d.e-]+$", printed)
