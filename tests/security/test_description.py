"""H10: schemathesis asks a running service everything that openapi.yaml says can be asked, and all its checks hold."""

import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
import yaml

from deploy import openapi
from schemas.keys import Role
from tests.processes import ROOT, Process, module, run_module, start_process
from tests.security.callers import SECURED

CONFIGURATION = Path(__file__).parent / "schemathesis.toml"
EXAMPLES = 50 if os.environ.get("CI") == "true" else 8
"""For each operation, beside its own examples and every single edge of its schema."""
PLENTY = str(10**9)
BY_CHANCE = {"revokeSigningKey"}
"""What only succeeds where one answer is used for the next question, as schemathesis does now and then."""


def authsvc_description() -> dict[str, object]:
    """What openapi.yaml says of authsvc; it describes the runner too."""
    described = yaml.safe_load(openapi.FILE.read_text())
    described["paths"] = {
        path: item
        for path, item in described["paths"].items()
        if any(server["description"] == "authsvc" for server in item.get("servers", []))
    }
    return described


@pytest.mark.timeout(900)
def test_h10_the_running_service_is_what_openapi_yaml_describes(tmp_path: Path) -> None:
    description = tmp_path / "openapi.json"
    description.write_text(json.dumps(authsvc_description()))
    env = {
        "AUTHSVC_DATA_DIR": str(tmp_path / "authsvc"),
        **{f"AUTHSVC_{name}_PER_MINUTE": PLENTY for name in ("KEY_RATE", "ADDRESS_RATE", "FAILURES")},
    }
    with start_process(module("authsvc", "serve", "--port", "0"), env) as service:
        roles = [option for role in Role for option in ("--role", role.value)]
        created = run_module("authsvc", "keys", "create", "--apps", "*", *roles, "--json", env=env)
        key = json.loads(created.stdout)["key"]
        # Another administrator: the last one can neither be revoked nor changed into somebody else.
        run_module("authsvc", "keys", "create", "--role", "admin", env=env)
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIGURATION), "run", str(description)),
            *("--url", service.url, "--header", f"Authorization: Key {key}"),
            *("--checks", "all", "--phases", "examples,coverage,fuzzing,stateful", "--continue-on-failure"),
            *("--max-examples", str(EXAMPLES), "--seed", "4", "--output-sanitize", "true"),
        ]
        hooks = {"SCHEMATHESIS_HOOKS": "tests.security.schemathesis_hooks", "SCHEMATHESIS_KEY_ID": key.split(":")[0]}
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, **hooks, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=840,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        answered = answers(service)
    # What is refused for want of a key, or of a thing that is there, shows little: it all worked too.
    for operation in SECURED:
        if operation.operation_id not in BY_CHANCE:
            assert answered[operation.method, template(operation.path)] & set(operation.answers), operation.path
    assert not [status for statuses in answered.values() for status in statuses if status >= 500]


def template(path: str) -> str:
    """A path with a dot for what names one key."""
    return re.sub(r"^/(signing-)?keys/(?!rotate$)[^/]+", r"/\1keys/.", path)


def answers(service: Process) -> dict[tuple[str, str], set[int]]:
    """The statuses that the service logged, by method and path."""
    found: dict[tuple[str, str], set[int]] = defaultdict(set)
    for method, path, status in re.findall(r"request_log: (\w+) '([^']*)' (\d{3})", service.text):
        found[method, template(path)].add(int(status))
    return found
