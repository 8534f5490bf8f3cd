"""authsvc and a runner for all examples; each example installed once."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.examples.backends import FOLDER, RECIPES, Backend, install
from tests.processes import ROOT, Process
from tests.stack import Stack, running
from tests.tiny_bundle import make_tiny_bundle


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running(make_tiny_bundle(tmp_path_factory.mktemp("model") / "tiny")) as started:
        yield started


@pytest.fixture(scope="session")
def node_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """examples/node, installed."""
    return install(ROOT / "examples" / "node", [["npm", "ci"]], tmp_path_factory.mktemp("client") / "node")


@pytest.fixture(scope="session", params=RECIPES)
def example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Backend:
    name = request.param
    target = tmp_path_factory.mktemp("backend") / name
    if shutil.which("npm") is None and (FOLDER / name / "package.json").exists():
        pytest.skip("Node.js and npm are not installed")
    return Backend(name, install(FOLDER / name, RECIPES[name].install(target), target))


@pytest.fixture(scope="session")
def backend(example: Backend, stack: Stack) -> Iterator[Process]:
    """The example at work, with an API key of the stack's."""
    with example.running(stack.authsvc_url, stack.key) as process:
        yield process
