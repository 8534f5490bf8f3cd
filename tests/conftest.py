"""What holds for the whole suite."""

from hypothesis import settings

from tests.leaks.plugin import pytest_runtest_makereport  # first: it watches what the others import
from tests.tiny_bundle import tiny_bundle

__all__ = ["pytest_runtest_makereport", "tiny_bundle"]

# Examples may take as long as the machine is busy: no test asserts a time.
settings.register_profile("without deadline", deadline=None)
settings.load_profile("without deadline")
