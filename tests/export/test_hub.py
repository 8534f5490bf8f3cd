"""Checkpoints by hub id. Each look-up is a process of its own: the library reads the environment at import."""

import json
import os
import random
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runner.export import source
from tests.export import hub_server
from tests.export.hollow import WEIGHTS, hollow_checkpoint, write, write_lora, write_weights
from tests.export.terminal import on_a_terminal

CHUNK = 10 * 2**20
"""huggingface_hub writes a file in pieces of this size: what came of a piece before a break is lost."""

pytestmark = pytest.mark.export  # for huggingface_hub in the version that the exporter is pinned to

RESOLVE = """
import dataclasses, json, sys
from runner.export import source
from runner.export.errors import ExportError
from runner.export.lora import Lora
calls = {"resolve": source.resolve, "resolve_component": source.resolve_component, "lora": Lora.resolve}
try:
    call, *arguments = sys.argv[1:]
    told = lambda words: print(words, file=sys.stderr)
    found = calls[call](*arguments, progress=told)
    print(json.dumps(dataclasses.asdict(found), default=str))
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


def look_up(cache: Path, endpoint: str, *call: str, offline: bool = False) -> dict[str, Any]:
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
    assert "hf download owner/model" in found["message"]


def test_what_to_run_where_there_is_a_hub(checkpoint: Path, cache: Path, no_hub: str, tmp_path: Path) -> None:
    needed = {path.relative_to(checkpoint) for path in checkpoint.rglob("*") if path.is_file()}
    for other in ("unet/model.onnx", "unet/diffusion_pytorch_model.bin", "flax_model.msgpack", "sample.png"):
        write(checkpoint / other)
    (advice,) = re.findall("`hf (.*?)`", look_up(cache, no_hub, "resolve", "owner/model")["message"])
    with hub_server.serve({"owner/model": checkpoint}) as hub:
        command = [Path(sys.executable).with_name("hf"), *shlex.split(advice)]
        subprocess.run(command, cwd=tmp_path, env=os.environ | {"HF_ENDPOINT": hub.endpoint}, check=True)
    fetched = tmp_path / "owner" / "model"
    files = {path.relative_to(fetched) for path in fetched.rglob("*") if path.is_file()}
    assert {file for file in files if file.parts[0] != ".cache"} == needed
    assert source.resolve(str(fetched)).folder == fetched


@pytest.mark.parametrize("offline", [False, True])
def test_without_the_hub_its_cache_serves(checkpoint: Path, cache: Path, no_hub: str, offline: bool) -> None:
    repository = cache / "models--owner--model"
    snapshot = repository / "snapshots" / hub_server.COMMIT
    snapshot.parent.mkdir(parents=True)
    checkpoint.rename(snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(hub_server.COMMIT)
    assert look_up(cache, no_hub, "resolve", "owner/model", offline=offline)["folder"] == str(snapshot)


class TestBrokenDownload:
    FILE = "unet/diffusion_pytorch_model.safetensors"

    def test_the_second_run_fetches_only_the_rest(self, checkpoint: Path, cache: Path) -> None:
        content = random.Random(0).randbytes(CHUNK + 2**20)
        (checkpoint / self.FILE).write_bytes(content)
        with hub_server.serve({"owner/model": checkpoint}) as hub:
            hub.breaks_after[self.FILE] = CHUNK + 2**19
            broken = look_up(cache, hub.endpoint, "resolve", "owner/model")
            assert broken["error"] == "DownloadBroken"
            assert "run the same command again" in broken["message"]
            hub.breaks_after.clear()
            others = {file: len(starts) for file, starts in hub.sent.items() if file != self.FILE}
            found = look_up(cache, hub.endpoint, "resolve", "owner/model")
            assert hub.sent[self.FILE] == [0, CHUNK]
            assert {file: len(starts) for file, starts in hub.sent.items() if file in others} == others
        assert (Path(found["folder"]) / self.FILE).read_bytes() == content

    def test_one_that_goes_on_breaking_can_be_tried_again_and_again(self, checkpoint: Path, cache: Path) -> None:
        (checkpoint / self.FILE).write_bytes(bytes(2**20))
        with hub_server.serve({"owner/model": checkpoint}) as hub:
            hub.breaks_after[self.FILE] = 1000
            errors = {look_up(cache, hub.endpoint, "resolve", "owner/model")["error"] for _ in range(2)}
        assert errors == {"DownloadBroken"}


def test_how_far_a_download_is_can_be_seen(checkpoint: Path, cache: Path) -> None:
    (checkpoint / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(bytes(2 * CHUNK))
    with hub_server.serve({"owner/model": checkpoint}) as hub:
        environment = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "0"}
        shown = on_a_terminal("-c", RESOLVE, "resolve", "owner/model", environment=environment)
    assert "fetching owner/model" in shown
    assert re.search(r"unet/diffusion_pytorch_model\.safetensors: +100%.*21\.0M/21\.0M", shown)


class TestLora:
    @pytest.fixture
    def repository(self, tmp_path: Path) -> Path:
        write(tmp_path / "lora" / "README.md")
        write(tmp_path / "lora" / "sample.png")
        return tmp_path / "lora"

    def test_diffusers_own_name(self, repository: Path, cache: Path) -> None:
        write_lora(repository / "pytorch_lora_weights.safetensors")
        write_lora(repository / "other.safetensors")
        with hub_server.serve({"owner/lcm-lora": repository}) as hub:
            found = look_up(cache, hub.endpoint, "lora", "owner/lcm-lora:0.8")
        assert Path(found["file"]).name == "pytorch_lora_weights.safetensors"
        assert (found["source"], found["scale"]) == ("owner/lcm-lora", 0.8)
        assert hub.fetched == {"README.md", "pytorch_lora_weights.safetensors"}

    def test_the_only_one_there(self, repository: Path, cache: Path) -> None:
        write_lora(repository / "pixel-art.safetensors")
        with hub_server.serve({"owner/pixel-art": repository}) as hub:
            found = look_up(cache, hub.endpoint, "lora", "owner/pixel-art")
        assert Path(found["file"]).name == "pixel-art.safetensors"

    def test_once_fetched_it_needs_no_hub(self, repository: Path, cache: Path, no_hub: str) -> None:
        write_lora(repository / "pixel-art.safetensors")
        with hub_server.serve({"owner/pixel-art": repository}) as hub:
            online = look_up(cache, hub.endpoint, "lora", "owner/pixel-art")
        assert look_up(cache, no_hub, "lora", "owner/pixel-art") == online
        assert look_up(cache, no_hub, "lora", "owner/pixel-art", offline=True) == online

    def test_without_the_hub_and_never_fetched(self, cache: Path, no_hub: str) -> None:
        assert look_up(cache, no_hub, "lora", "owner/pixel-art")["error"] == "HubUnreachable"

    def test_several_and_one_of_them(self, repository: Path, cache: Path) -> None:
        write_lora(repository / "pixel-art.safetensors")
        write_lora(repository / "oil.safetensors")
        with hub_server.serve({"owner/styles": repository}) as hub:
            unclear = look_up(cache, hub.endpoint, "lora", "owner/styles")
            found = look_up(cache, hub.endpoint, "lora", "owner/styles/oil.safetensors")
            missing = look_up(cache, hub.endpoint, "lora", "owner/styles/water.safetensors")
        assert unclear["error"] == "SourceNotFound"
        assert "owner/styles/oil.safetensors, owner/styles/pixel-art.safetensors" in unclear["message"]
        assert Path(found["file"]).name == "oil.safetensors"
        assert missing["error"] == "SourceNotFound"
        assert "pixel-art" not in {Path(file).stem for file in hub.fetched}


def test_a_single_file_with_sdxls_configuration(checkpoint: Path, cache: Path, tmp_path: Path) -> None:
    write_weights(tmp_path / "fine-tuned" / "model.safetensors")
    with hub_server.serve({source.SDXL: checkpoint, "owner/fine-tuned": tmp_path / "fine-tuned"}) as hub:
        found = look_up(cache, hub.endpoint, "resolve", "owner/fine-tuned/model.safetensors")
    assert Path(found["single_file"]).name == "model.safetensors"
    assert found["source"] == "owner/fine-tuned/model.safetensors"
    assert not any(file.endswith(".safetensors") for file in hub.fetched - {"model.safetensors"})


def test_a_vae_of_a_whole_checkpoint_is_fetched_alone(checkpoint: Path, cache: Path) -> None:
    with hub_server.serve({"owner/model": checkpoint}) as hub:
        look_up(cache, hub.endpoint, "resolve_component", "owner/model", "vae")
    assert {file for file in hub.fetched if file.endswith(".safetensors")} == {
        "vae/diffusion_pytorch_model.safetensors"
    }
