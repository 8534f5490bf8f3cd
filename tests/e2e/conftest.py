"""One stack for many tests; tests that harm theirs start their own (see tests/stack.py)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack import Stack, running
from tests.tiny_bundle import make_tiny_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="session")
def stack(bundle: Path) -> Iterator[Stack]:
    with running(bundle) as started:
        yield started


@pytest.fixture(scope="session")
def impatient_stack(bundle: Path) -> Iterator[Stack]:
    """A runner that ends idle sessions after a moment."""
    with running(bundle, idle_timeout_s="0.5") as started:
        yield started
