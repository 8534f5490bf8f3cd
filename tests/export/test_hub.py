"""Checkpoints by hub id. Each look-up is a process of its own: the library reads the environment at import."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.export import hub_server
from tests.export.hollow import WEIGHTS, hollow_checkpoint, write

pytestmark = pytest.mark.export  # for huggingface_hub in the version that the exporter is pinned to

RESOLVE = """
import json, sys
from runner.export import source
from runner.export.errors import ExportError
try:
    call, *arguments = sys.argv[1:]
    found = getattr(source, call)(*arguments)
    print(json.dumps({"folder": str(found.folder), "source": found.source, "variant": found.variant}))
except ExportError as error:
    print(json.dumps({"error": type(error).__name__, "message": str(error)}))
"""


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return hollow_checkpoint(tmp_path / "original")


@pytest.fixture
def no_hub() -> str:
    """An endpoint at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        return f"http://127.0.0.1:{closed.getsockname()[1]}"


def look_up(cache: Path, endpoint: str, *call: str, offline: bool = False) -> dict[str, str]:
    environment = {"HF_ENDPOINT": endpoint, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": str(int(offline))}
    done = subprocess.run(
        [sys.executable, "-c", RESOLVE, *call], env=os.environ | environment, capture_output=True, check=True
    )
    return json.loads(done.stdout)


def test_what_is_needed_is_fetched_and_nothing_else(checkpoint: Path, cache: Path) -> None:
    needed = {path.relative_to(checkpoint).as_posix() for path in checkpoint.rglob("*") if path.is_file()}
    for other in ("unet/diffusion_pytorch_model.fp16.safetensors", "unet/model.onnx", "sd_xl_base.safetensors"):
        write(checkpoint / other)
    with hub_server.serve({"owner/model": checkpoint}) as hub:
        found = look_up(cache, hub.endpoint, "resolve", "owner/model")
    assert (found["source"], found["variant"]) == ("owner/model", None)
    assert hub.fetched == needed


def test_half_precision_is_fetched_where_there_is_nothing_else(checkpoint: Path, cache: Path) -> None:
    for component, stem in WEIGHTS.items():
        weights = checkpoint / component / f"{stem}.safetensors"
        weights.rename(weights.with_name(f"{stem}.fp16.safetensors"))
    with hub_server.serve({"owner/model": checkpoint}) as hub:
        assert look_up(cache, hub.endpoint, "resolve", "owner/model")["variant"] == "fp16"


def test_a_lone_unet(checkpoint: Path, cache: Path) -> None:
    with hub_server.serve({"owner/lcm": checkpoint / "unet"}) as hub:
        found = look_up(cache, hub.endpoint, "resolve_component", "owner/lcm", "unet")
    assert found["source"] == "owner/lcm"
    assert {path.name for path in Path(found["folder"]).iterdir()} == {
        "config.json",
        "diffusion_pytorch_model.safetensors",
    }


def test_no_such_repository(cache: Path) -> None:
    with hub_server.serve({}) as hub:
        found = look_up(cache, hub.endpoint, "resolve", "owner/model")
    assert found["error"] == "SourceNotFound"
    assert "no repository owner/model" in found["message"]


@pytest.mark.parametrize("offline", [False, True])
def test_no_way_to_the_hub(cache: Path, no_hub: str, offline: bool) -> None:
    found = look_up(cache, no_hub, "resolve", "owner/model", offline=offline)
    assert found["error"] == "HubUnreachable"
    assert "huggingface-cli download owner/model" in found["message"]


@pytest.mark.parametrize("offline", [False, True])
def test_without_the_hub_its_cache_serves(checkpoint: Path, cache: Path, no_hub: str, offline: bool) -> None:
    repository = cache / "models--owner--model"
    snapshot = repository / "snapshots" / hub_server.COMMIT
    snapshot.parent.mkdir(parents=True)
    checkpoint.rename(snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(hub_server.COMMIT)
    assert look_up(cache, no_hub, "resolve", "owner/model", offline=offline)["folder"] == str(snapshot)
