"""What holds for the whole suite."""

from hypothesis import settings

from tests.tiny_bundle import tiny_bundle

__all__ = ["tiny_bundle"]

# Examples may take as long as the machine is busy: no test asserts a time.
settings.register_profile("without deadline", deadline=None)
settings.load_profile("without deadline")
