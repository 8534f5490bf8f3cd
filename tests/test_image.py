"""The images' install step, run as the Dockerfile runs it but into a clean folder: no Docker engine needed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = [pytest.mark.image, pytest.mark.timeout(900)]


def install(target: str, prefix: Path) -> None:
    subprocess.run(
        ["deploy/install.sh", target, str(prefix)],
        cwd=ROOT,
        check=True,
        env={**os.environ, "PYTHON": sys.executable},
    )


def run(prefix: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [prefix / "bin" / "python", "-I", *arguments], cwd=prefix, capture_output=True, text=True, timeout=120
    )


def installed(prefix: Path) -> set[str]:
    listed = run(prefix, "-c", "from importlib.metadata import distributions as d; print(*{x.name for x in d()})")
    return {name.lower() for name in listed.stdout.split()}


def test_the_cpu_runner_image_serves_the_bundled_model_without_torch(tmp_path: Path) -> None:
    install("runner-cpu", tmp_path / "runner")
    names = installed(tmp_path / "runner")
    assert "onnxruntime" in names
    assert names.isdisjoint({"torch", "diffusers", "transformers", "optimum", "onnxruntime-gpu", "pip", "pytest"})
    checked = run(tmp_path / "runner", "-m", "runner", "check", str(ROOT / "models" / "pocket"))
    assert checked.returncode == 0, checked.stderr


def test_the_authsvc_image_starts_without_an_inference_engine(tmp_path: Path) -> None:
    install("authsvc", tmp_path / "authsvc")
    assert installed(tmp_path / "authsvc").isdisjoint({"torch", "onnxruntime", "onnxruntime-gpu", "pip", "pytest"})
    checked = run(tmp_path / "authsvc", "-m", "authsvc", "check-config", "--json")
    assert checked.returncode == 0, checked.stderr


def test_the_gpu_requirement_resolves_without_the_cpu_engine() -> None:
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
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    names = {item["metadata"]["name"].lower() for item in json.loads(resolved.stdout)["install"]}
    assert {"onnxruntime-gpu", "nvidia-cublas", "nvidia-cudnn-cu13"} <= names
    assert names.isdisjoint({"onnxruntime", "torch"})
