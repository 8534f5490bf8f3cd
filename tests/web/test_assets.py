"""The committed assets are what the sources build to; newcomers have no Node.js."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

WEB = Path(__file__).parents[2] / "web"
PAGE_MAX_BYTES = 250_000

needs_node = pytest.mark.skipif(shutil.which("npm") is None, reason="Node.js and npm are not installed")


def npm(*args: str) -> None:
    done = subprocess.run(["npm", *args], cwd=WEB, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def _toolchain() -> None:
    """What package-lock.json pins, installed where it is not yet."""
    installed = WEB / "node_modules" / ".package-lock.json"  # npm writes it last
    if not installed.exists() or installed.stat().st_mtime < (WEB / "package-lock.json").stat().st_mtime:
        npm("ci")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@needs_node
@pytest.mark.usefixtures("_toolchain")
def test_the_committed_assets_are_what_the_sources_build_to(tmp_path: Path) -> None:
    npm("exec", "--", "tsc", "--noEmit")
    npm("exec", "--", "vite", "build", "--outDir", str(tmp_path), "--emptyOutDir")
    built, committed = contents(tmp_path), contents(WEB / "static")
    stale = sorted(name for name in built | committed if built.get(name) != committed.get(name))
    assert stale == [], "run `npm run build` in web/ and commit web/static"


@needs_node
@pytest.mark.usefixtures("_toolchain")
def test_the_pages_decisions() -> None:
    npm("test")


def test_the_page_is_light() -> None:
    assert sum(map(len, contents(WEB / "static").values())) < PAGE_MAX_BYTES


def test_the_lock_file_names_no_registry_and_the_client_is_pinned() -> None:
    lock = (WEB / "package-lock.json").read_text()
    assert "resolved" not in lock
    packages = json.loads(lock)["packages"]
    assert packages["node_modules/@fal-ai/client"]["version"] == "1.10.1"
    assert all("integrity" in package for name, package in packages.items() if name)
