"""Programs with the official fal_client 1.0.3, unmodified but for the host: its own environment variables and REST_URL.

It reads FAL_RUN_HOST when it is imported and speaks only TLS, so each runs as a user's program would: a process of its
own, with the development CA in SSL_CERT_FILE.
"""

import json
import os
import subprocess
import sys
import textwrap
from typing import Any

from tests.stack import Stack

LCM = "fal-ai/fast-lcm-diffusion"

PRELUDE = """
import asyncio, base64, json, sys
import fal_client
import fal_client.client
fal_client.client.REST_URL, APP = sys.argv[1:]
def show(result):
    print(json.dumps(result, default=lambda content: base64.b64encode(content).decode()))
"""


def program(stack: Stack, body: str, app: str = LCM) -> list[Any]:
    """Run `body` after PRELUDE, with `app` as APP; each line that it prints is a JSON document."""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(body), stack.authsvc_url, app],
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("FAL_")},
            "FAL_KEY": stack.key,
            "FAL_RUN_HOST": f"localhost:{stack.runner_tls_port}",
            "SSL_CERT_FILE": str(stack.ca),
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
