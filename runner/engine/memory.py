"""Tells lack of memory from other failures of ONNX Runtime, which has no exception of its own for it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from runner.engine.request import OutOfMemory

_SIGNS: Final = re.compile(
    r"bad[ _]alloc"  # the C++ exception, whatever it is wrapped in
    r"|failed to allocate memory"  # ONNX Runtime's arena ("Failed to allocate memory for requested buffer of size")
    r"|available memory of \d+ is smaller than requested"  # the same, where gpu_mem_limit is set
    r"|out of memory"  # CUDA ("CUDA failure 2: out of memory")
    r"|CUDNN_STATUS_ALLOC_FAILED|CUBLAS_STATUS_ALLOC_FAILED",
    re.IGNORECASE,
)


def is_out_of_memory(error: Exception) -> bool:
    """Whether that is what an exception of ONNX Runtime or of the host means."""
    return isinstance(error, MemoryError) or bool(_SIGNS.search(str(error)))


@contextmanager
def out_of_memory_told() -> Iterator[None]:
    """Raise `OutOfMemory` for what fails inside for lack of memory; everything else stays as it is."""
    try:
        yield
    except OutOfMemory:
        raise
    except Exception as error:  # ONNX Runtime's exceptions share no base class but this one
        if is_out_of_memory(error):
            raise OutOfMemory(str(error) or "no memory") from error
        raise
