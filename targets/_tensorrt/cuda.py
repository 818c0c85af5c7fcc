"""The little of CUDA that TensorRT's Python API leaves to its caller: devices, events, graphs, copies.

Through ``ctypes`` over the libraries that TensorRT needs anyway: the driver (``libcuda``) for what the device is, and
the runtime (``libcudart``, found by Polygraphy) for what runs on it. https://docs.nvidia.com/cuda/
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

DRIVER_LIBRARIES = ("libcuda.so.1", "nvcuda.dll")
CAPABILITY_MAJOR, CAPABILITY_MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
DRIVER_VERSION = Path("/proc/driver/nvidia/version")
PINNED_TIMES = 5

HOST_TO_DEVICE, DEVICE_TO_HOST = 1, 2  # cudaMemcpyKind
CAPTURE_RELAXED = 2  # cudaStreamCaptureModeRelaxed: other threads may go on


class CudaError(RuntimeError):
    """A call of CUDA did not succeed."""


@dataclass(frozen=True)
class Device:
    """A GPU.

    Attributes:
        name: what its maker calls it.
        capability: its compute capability, such as ``8.9``.
        uuid: what tells it from others of its kind, as ``nvidia-smi`` writes it.
        driver: the driver's version, or that of its CUDA where the system does not say.
        cuda: the newest CUDA that the driver runs.
    """

    name: str
    capability: str
    uuid: str
    driver: str
    cuda: str


def driver() -> Any:
    """The driver's library, or None where there is none."""
    for name in DRIVER_LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


@cache
def devices() -> tuple[Device, ...]:
    """Every GPU that this process may use; none where there is no driver, or it does not start."""
    library = driver()
    if library is None or library.cuInit(0) != 0:
        return ()
    count, version = ctypes.c_int(), ctypes.c_int()
    if library.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    library.cuDriverGetVersion(ctypes.byref(version))
    cuda = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return tuple(_device(library, index, cuda) for index in range(count.value))


def _device(library: Any, index: int, cuda: str) -> Device:
    handle, name, uuid = ctypes.c_int(), ctypes.create_string_buffer(256), (ctypes.c_ubyte * 16)()
    library.cuDeviceGet(ctypes.byref(handle), index)
    library.cuDeviceGetName(name, len(name), handle)
    library.cuDeviceGetUuid(ctypes.byref(uuid), handle)
    parts = []
    for attribute in (CAPABILITY_MAJOR, CAPABILITY_MINOR):
        value = ctypes.c_int()
        library.cuDeviceGetAttribute(ctypes.byref(value), attribute, handle)
        parts.append(str(value.value))
    digits = bytes(uuid).hex()
    cut = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
    return Device(name.value.decode(errors="replace"), ".".join(parts), f"GPU-{cut}", _driver_version() or cuda, cuda)


def _driver_version() -> str:
    """``NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  ...``: the first word that is a version."""
    try:
        words = DRIVER_VERSION.read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return ""
    return next((word for word in words if word[:1].isdigit() and "." in word), "")


@cache
def runtime() -> Any:
    """The CUDA runtime, the one that Polygraphy uses as well.

    Polygraphy looks where toolkits and the wheels of CUDA 12 put it; those of CUDA 13 have another folder, and it is
    shown that too.

    Raises:
        CudaError: there is none.
    """
    from polygraphy import cuda

    before = os.environ.get("LD_LIBRARY_PATH", "")
    os.environ["LD_LIBRARY_PATH"] = os.pathsep.join([*filter(None, before.split(os.pathsep)), *_wheels()])
    try:
        return cuda.wrapper().handle
    except OSError as error:
        raise CudaError(f"there is no CUDA runtime (libcudart): {error}; pip install nvidia-cuda-runtime") from error
    finally:
        os.environ["LD_LIBRARY_PATH"] = before


def _wheels() -> list[str]:
    """Where NVIDIA's wheels put libraries: ``nvidia/cu13/lib``, ``nvidia/cuda_runtime/lib``."""
    places = [Path(place) / "nvidia" for place in sys.path if place]
    return [str(found.parent) for place in places for found in sorted(place.glob("*/lib/libcudart.so*"))]


def check(status: int, what: str) -> None:
    """Raises where a call of the runtime did not succeed."""
    if status != 0:
        raise CudaError(f"{what} gave CUDA error {status}")


def use(index: int) -> Device:
    """Makes a GPU the one that this thread works on, and tells which it is.

    Raises:
        Refused: ``bad-option`` where there is no such GPU.
    """
    found = devices()
    refuse_absent(index, found)
    check(runtime().cudaSetDevice(ctypes.c_int(index)), f"cudaSetDevice({index})")
    return found[index]


def refuse_absent(index: int, found: Sequence[Device]) -> None:
    """Refuses a ``--device`` that is not there."""
    from exporter.errors import Refused  # this file is also read by itself, by the probe

    if index >= len(found):
        raise Refused(
            "bad-option",
            f"--device {index}: there is no such GPU",
            where="target tensorrt",
            why=f"this machine has {len(found)}, counted from 0: {', '.join(d.name for d in found) or 'none'}",
            next="--device 0",
        )


class Events:
    """Two events of a stream, and the time between them by the GPU's own clock."""

    def __init__(self, stream: int) -> None:
        self._stream = ctypes.c_void_p(stream)
        self._start, self._end = ctypes.c_void_p(), ctypes.c_void_p()
        for event in (self._start, self._end):
            check(runtime().cudaEventCreate(ctypes.byref(event)), "cudaEventCreate")

    def timed(self, work: Callable[[], object]) -> float:
        """Nanoseconds that the GPU took for what ``work`` gave it; returns when it is done."""
        handle = runtime()
        check(handle.cudaEventRecord(self._start, self._stream), "cudaEventRecord")
        work()
        check(handle.cudaEventRecord(self._end, self._stream), "cudaEventRecord")
        check(handle.cudaEventSynchronize(self._end), "cudaEventSynchronize")
        spent = ctypes.c_float()
        check(handle.cudaEventElapsedTime(ctypes.byref(spent), self._start, self._end), "cudaEventElapsedTime")
        return spent.value * 1e6

    def free(self) -> None:
        """Gives the events back."""
        for event in (self._start, self._end):
            runtime().cudaEventDestroy(event)


class Graph:
    """What was enqueued on a stream once, to be replayed as one."""

    def __init__(self, stream: int, enqueue: Callable[[], object]) -> None:
        self._stream, handle = ctypes.c_void_p(stream), runtime()
        graph, self._instance = ctypes.c_void_p(), ctypes.c_void_p()
        check(handle.cudaStreamBeginCapture(self._stream, CAPTURE_RELAXED), "cudaStreamBeginCapture")
        try:
            enqueue()
        finally:
            ended = handle.cudaStreamEndCapture(self._stream, ctypes.byref(graph))
        check(ended, "cudaStreamEndCapture")
        made = handle.cudaGraphInstantiateWithFlags(ctypes.byref(self._instance), graph, ctypes.c_ulonglong(0))
        check(made, "cudaGraphInstantiateWithFlags")
        check(handle.cudaGraphDestroy(graph), "cudaGraphDestroy")

    def launch(self) -> None:
        """Enqueues all of it."""
        check(runtime().cudaGraphLaunch(self._instance, self._stream), "cudaGraphLaunch")


def copy(to: int, source: int, size: int, kind: int, stream: int) -> None:
    """Copies bytes between host and device, in the order of a stream."""
    place, origin = ctypes.c_void_p(to), ctypes.c_void_p(source)
    status = runtime().cudaMemcpyAsync(place, origin, ctypes.c_size_t(size), kind, ctypes.c_void_p(stream))
    check(status, "cudaMemcpyAsync")


def fill(place: int, byte: int, size: int) -> None:
    """Sets bytes on the device."""
    check(runtime().cudaMemset(ctypes.c_void_p(place), byte, ctypes.c_size_t(size)), "cudaMemset")


@contextmanager
def pinned(size: int) -> Iterator[int]:
    """Host memory that the GPU reads and writes by itself: what a copy is timed with."""
    pointer = ctypes.c_void_p()
    check(runtime().cudaMallocHost(ctypes.byref(pointer), ctypes.c_size_t(max(size, 1))), "cudaMallocHost")
    try:
        yield pointer.value or 0
    finally:
        runtime().cudaFreeHost(pointer)
