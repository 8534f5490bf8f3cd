"""The images' install step, run as the Dockerfile runs it but into a clean folder: no Docker engine needed."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.processes import start_process

ROOT = Path(__file__).parent.parent

pytestmark = [pytest.mark.image, pytest.mark.timeout(900)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """What the Dockerfile's first stage copies, and nothing else of the checkout."""
    stage = (ROOT / "Dockerfile").read_text().split(" AS source\n")[1].split("\nFROM ")[0]
    for line in re.findall(r"^COPY (.+)$", stage, re.MULTILINE):
        *names, target = line.split()
        for name in names:
            place = tmp_path / "src" / (name if target == "./" else target)
            place.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, place)
    return tmp_path / "src"


def install(source: Path, target: str, prefix: Path) -> None:
    environment = {**os.environ, "PYTHON": sys.executable}
    subprocess.run(["deploy/install.sh", target, str(prefix)], cwd=source, check=True, env=environment)


def python(prefix: Path) -> list[str]:
    """The environment's own Python, isolated: nothing of this checkout is importable."""
    return [str(prefix / "bin" / "python"), "-I"]


def installed(prefix: Path) -> set[str]:
    code = "from importlib.metadata import distributions as d; print(*{x.name for x in d()})"
    listed = subprocess.run([*python(prefix), "-c", code], capture_output=True, text=True, check=True)
    return {name.lower() for name in listed.stdout.split()}


def test_the_cpu_runner_image_serves_the_bundled_model_without_torch(source: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "runner"
    install(source, "runner-cpu", prefix)
    names = installed(prefix)
    assert "onnxruntime" in names
    assert names.isdisjoint({"torch", "diffusers", "transformers", "optimum", "onnxruntime-gpu", "pip", "pytest"})
    settings = {"RUNNER_PORT": "0", "RUNNER_MODEL": str(ROOT / "models" / "pocket"), "RUNNER_DEVICE": "cpu"}
    with start_process([*python(prefix), "-m", "runner", "serve"], settings) as runner:
        runner.wait_for_line("runner is ready: pocket")
        assert httpx.get(f"{runner.url}/docs/swagger-ui.css").is_success


def test_the_authsvc_image_serves_without_an_inference_engine(source: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "authsvc"
    install(source, "authsvc", prefix)
    assert installed(prefix).isdisjoint({"torch", "onnxruntime", "onnxruntime-gpu", "pip", "pytest"})
    settings = {"AUTHSVC_PORT": "0", "AUTHSVC_DATA_DIR": str(tmp_path / "data")}
    with start_process([*python(prefix), "-m", "authsvc", "serve"], settings) as authsvc:
        assert httpx.get(f"{authsvc.url}/health/ready").is_success
        assert len(httpx.get(f"{authsvc.url}/.well-known/jwks.json").json()["keys"]) >= 1


def test_the_gpu_requirement_resolves_without_the_cpu_engine(source: Path) -> None:
    """`onnxruntime` and `onnxruntime-gpu` are one package directory: both together overwrite each other."""
    resolved = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--dry-run",
            "--quiet",
            "--ignore-installed",
            "--report",
            "-",
            ".[gpu]",
        ],
        cwd=source,
        capture_output=True,
        text=True,
        check=True,
    )
    names = {item["metadata"]["name"].lower() for item in json.loads(resolved.stdout)["install"]}
    assert {"onnxruntime-gpu", "nvidia-cublas", "nvidia-cudnn-cu13"} <= names
    assert names.isdisjoint({"onnxruntime", "torch"})
