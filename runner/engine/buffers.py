"""Tensors that keep their address on the device, for graphs that are bound to them once and run many times."""

import ctypes
import functools
import logging
import weakref
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import DTypeLike, NDArray

from runner.engine.devices import Device
from runner.engine.memory import out_of_memory_told

_log = logging.getLogger(__name__)

Array = NDArray[Any]
Floats = NDArray[np.float32]
Shape = tuple[int, ...]

ROW_BYTES: Final = 65536
"""Rows of this size and above go to a GPU one by one, smaller ones with all the tensor's rows at once."""


class Place(NamedTuple):
    """A tensor as ONNX Runtime binds it; whoever gives it out keeps the memory."""

    address: int
    shape: Shape
    dtype: DTypeLike


class Buffer:
    """A tensor of rows, [capacity, …], all zeros at first.

    On the CPU the graph reads the host's array itself; elsewhere `flush` copies what was written since the last.
    """

    def __init__(self, capacity: int, row: Shape, dtype: DTypeLike, device: Device) -> None:
        """Allocate it.

        Raises:
            OutOfMemory: there is no room.
        """
        self._device = device
        with out_of_memory_told():
            self._host: Array = np.zeros((capacity, *row), dtype)
            self._value = device.tensor(self._host)
        self._traces: list[_Trace] = [self._host.dtype.type(0)] * capacity
        self._changed: set[int] = set()

    def write(self, row: int, source: Array) -> None:
        """Put `source` into a row, unless it is what was written there last: the same array, or as constant."""
        if _left(self._traces[row], source):
            return
        self._host[row] = source
        self._traces[row] = source.flat[0] if _is_constant(source) else weakref.ref(source)
        self._changed.add(row)

    def flush(self) -> None:
        """Let the device see what was written."""
        if self._changed and not self._device.shares_host_memory:
            self._upload()
        self._changed.clear()

    def place(self, rows: int) -> Place:
        """The first `rows` rows."""
        shape = (rows, *self._host.shape[1:])
        return Place(self._value.data_ptr(), shape, self._host.dtype.type)

    def _upload(self) -> None:
        row_bytes = self._host[0].nbytes
        if self._host.dtype != np.float32 or row_bytes < ROW_BYTES or not lends_rows(self._device):
            self._value.update_inplace(self._host)
            return
        for row in self._changed:
            address = self._value.data_ptr() + row * row_bytes
            tensor_at(address, self._host.shape[1:], self._device).update_inplace(self._host[row])


_Trace = np.generic | weakref.ref[Array]
"""Of the last array in a row: its value, where it has only one, or which it was. It is not kept alive for that."""


def _left(trace: _Trace, source: Array) -> bool:
    """Whether `source` left the trace."""
    if isinstance(trace, weakref.ref):
        return trace() is source
    return _is_constant(source) and bool(source.flat[0] == trace)


def _is_constant(source: Array) -> bool:
    return not any(source.strides)  # a scalar, or one that was broadcast


class Pool:
    """Latents of one shape, [slots, c, h, w] in float32: written by the graph alone, so there is no copy of them."""

    def __init__(self, slots: int, row: Shape, device: Device, previous: Floats | None = None) -> None:
        """Allocate it; the first slots hold what `previous` has, the others zeros.

        Raises:
            OutOfMemory: there is no room.
        """
        self._device = device
        self.slots = slots
        with out_of_memory_told():
            self._host: Floats = np.zeros((slots, *row), np.float32)
            if previous is not None:
                self._host[: len(previous)] = previous
            self._value = device.tensor(self._host)

    @property
    def place(self) -> Place:
        """All of it."""
        return Place(self._value.data_ptr(), self._host.shape, np.float32)

    def values(self) -> Floats:
        """A copy of all slots on the host."""
        return np.array(self._value.numpy())

    def read(self, slot: int) -> Floats:
        """A copy of a slot on the host, [c, h, w]."""
        if not lends_rows(self._device):
            return np.array(self._value.numpy()[slot])
        address = self._value.data_ptr() + slot * self._host[0].nbytes
        return np.array(tensor_at(address, self._host.shape[1:], self._device).numpy())


@functools.cache
def lends_rows(device: Device) -> bool:
    """Whether `tensor_at` works there: some builds of ONNX Runtime may take no address of a GPU's memory."""
    try:
        whole = device.tensor(np.zeros((2, 2), np.float32))
        row = tensor_at(whole.data_ptr() + 8, (2,), device)
        row.update_inplace(np.array([1, 2], np.float32))
        return bool((whole.numpy() == [[0, 0], [1, 2]]).all() and (row.numpy() == [1, 2]).all())
    except Exception as error:  # ONNX Runtime's exceptions share no base class but this one
        _log.warning("tensors go to %s whole, not row by row: %s", device.kind, error)
        return False


def tensor_at(address: int, shape: Shape, device: Device) -> onnxruntime.OrtValue:
    """A float32 tensor over memory of someone else, who keeps it: rows that ONNX Runtime can copy from and to.

    It goes through DLPack (dlpack.h, DLManagedTensor), ONNX Runtime's only way to take an address.
    """
    sides = (ctypes.c_int64 * len(shape))(*shape)
    managed = _ManagedTensor(
        _Tensor(address, _Device(_DLPACK_DEVICES[device.kind], device.index), len(shape), _FLOAT32, sides, None, 0),
        None,
        _forget,
    )
    _lent[ctypes.addressof(managed)] = (managed, sides)
    capsule = _new_capsule(ctypes.addressof(managed), b"dltensor", None)
    return onnxruntime.OrtValue.from_dlpack(capsule)


class _Device(ctypes.Structure):
    _fields_ = (("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32))


class _DataType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),  # null: compact and row-major
        ("byte_offset", ctypes.c_uint64),
    )


_Deleter: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _ManagedTensor(ctypes.Structure):
    _fields_ = (("dl_tensor", _Tensor), ("manager_ctx", ctypes.c_void_p), ("deleter", _Deleter))


_DLPACK_DEVICES: Final = {"cpu": 1, "cuda": 2}  # kDLCPU, kDLCUDA
_FLOAT32: Final = _DataType(2, 32, 1)  # kDLFloat
_lent: dict[int, object] = {}
"""Descriptions of tensors that ONNX Runtime still holds."""


_forget: Final = _Deleter(_lent.__delitem__)
_new_capsule: Callable[[int, bytes, None], Any] = ctypes.pythonapi.PyCapsule_New
ctypes.pythonapi.PyCapsule_New.restype = ctypes.py_object
ctypes.pythonapi.PyCapsule_New.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
