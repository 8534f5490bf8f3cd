"""openapi.yaml, from the code of both services: `python -m deploy.openapi [--check]`."""

import sys
from pathlib import Path
from typing import Any

import yaml

import authsvc.openapi
import runner.openapi
from schemas import openapi

FILE = Path(__file__).parent.parent / "openapi.yaml"
SERVERS = {
    "authsvc": {"url": "http://127.0.0.1:8001", "description": "authsvc"},
    "runner": {"url": "http://127.0.0.1:8002", "description": "runner"},
}


def document() -> dict[str, Any]:
    """Both services in one document; a path that both answer says so by its two servers."""
    merged = openapi.build(
        title="lcm-realtime",
        version="1",
        description=(
            "The token service (authsvc) and the runner's HTTP. Realtime pictures come over the runner's WebSockets: "
            "`asyncapi.yaml` describes them."
        ),
        operations=[*authsvc.openapi.OPERATIONS, *runner.openapi.OPERATIONS],
        security_schemes=runner.openapi.SECURITY_SCHEMES | authsvc.openapi.SECURITY_SCHEMES,
    )
    alone = {"authsvc": authsvc.openapi.document(), "runner": runner.openapi.document()}
    for path, item in merged["paths"].items():
        item["servers"] = [SERVERS[name] for name, described in alone.items() if path in described["paths"]]
    return merged


def text() -> str:
    """The file's content."""
    return yaml.safe_dump(document(), sort_keys=False, allow_unicode=True, width=120)


def main() -> None:
    """Write the file, or with --check say whether it is the code's."""
    if "--check" in sys.argv[1:]:
        sys.exit(0 if FILE.read_text() == text() else f"{FILE.name} is not the code's: run `make docs`")
    FILE.write_text(text())


if __name__ == "__main__":
    main()
