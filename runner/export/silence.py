"""Keeps what the libraries say about their own insides away from the person at the terminal."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def silence() -> Iterator[None]:
    """Withhold warnings, and log records below ERROR, until it is left.

    They are advice to install more packages, and the tracer's word for every size that a module compares in
    Python ("might not generalize"): the golden tests run other sizes than the traced one.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
