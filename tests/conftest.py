"""Fixtures for the whole suite."""

from tests.tiny_bundle import tiny_bundle

__all__ = ["tiny_bundle"]
