"""CUDA device through cuda-python: memory, streams, events and graphs, every call checked.

cuda-python is imported when it is needed, by either of its names: `cuda.bindings.runtime` (12.6 on) or the
older `cuda.cudart`. Function names and their meaning are those of the CUDA Runtime API manual.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge.errors import EngineError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

MODULES = ("cuda.bindings.runtime", "cuda.cudart")
GPU_FILES = ("/dev/nvidiactl", "/proc/driver/nvidia", "/dev/nvmap", "/dev/nvhost-gpu", "/dev/dxg")
"""What a GPU's driver shows: on a PC (two), on a Jetson (two), under WSL."""


def load_cuda() -> Any:
    """The module with the CUDA runtime's functions.

    Raises:
        MissingExtraError: if cuda-python is not installed.
    """
    for name in MODULES:
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
    raise MissingExtraError("cuda-python", "tensorrt", "inference on an NVIDIA GPU")


def has_gpu() -> bool:
    """Whether a driver shows an NVIDIA GPU. Needs no library, so that a machine without one loads none."""
    return any(Path(file).exists() for file in GPU_FILES)


def why_no_cuda(device: int = 0) -> str | None:
    """Why there is no CUDA device of that number here, for people; None if there is one."""
    if not has_gpu():
        return "there is no NVIDIA GPU"
    try:
        cuda = load_cuda()
        error, count = cuda.cudaGetDeviceCount()
        if int(error) != 0:
            return f"CUDA finds no GPU: {_describe(cuda, error)}"
    except MissingExtraError as missing:
        return str(missing)
    except RuntimeError as failure:  # older cuda-python raises where libcuda.so.1 is not installed
        return f"CUDA finds no GPU: {failure}"
    return None if device < count else f"there is no CUDA device {device}, only {count}"


def cuda_versions() -> tuple[str, str]:
    """The newest CUDA that the driver knows, and the one that cuda-python was built for, such as "12.6".

    Raises:
        MissingExtraError: if cuda-python is not installed.
        RuntimeError: from older cuda-python, where there is no driver.
    """
    cuda = load_cuda()
    numbers = (cuda.cudaDriverGetVersion()[1], cuda.cudaRuntimeGetVersion()[1])
    driver, runtime = (f"{number // 1000}.{number % 1000 // 10}" for number in numbers)
    return driver, runtime


@dataclass(frozen=True, slots=True)
class Device:
    """Properties of a GPU.

    Attributes:
        name: such as "NVIDIA GeForce RTX 4090" or "Orin".
        compute_capability: such as "8.9".
        memory_bytes: of the device; shared with the CPU where it is integrated.
        is_integrated: it shares the CPU's memory, as on a Jetson.
    """

    name: str
    compute_capability: str
    memory_bytes: int
    is_integrated: bool


SHARED_FROM = (7, 2)
"""Integrated GPUs from this compute capability on see the CPU's caches: page-locked memory stays cached.

CUDA for Tegra, application note, "Memory Selection" and "I/O Coherency".
"""


@dataclass(frozen=True, slots=True)
class InputBuffer:
    """Memory that the host fills and the device reads.

    Attributes:
        host: uint8[size_bytes], page-locked.
        address: where the device reads.
        is_shared: both are one memory; otherwise `host` has to be copied to `address`.
    """

    host: NDArray[np.uint8]
    address: int
    is_shared: bool


class Cuda:
    """A CUDA device and what was taken from it; `close` gives everything back, newest first.

    Callable from any thread in which `use` was called; the thread that creates it has.

    Args:
        device: its number.

    Raises:
        EngineError: if there is no such device.
    """

    def __init__(self, device: int = 0) -> None:
        reason = why_no_cuda(device)
        if reason is not None:
            raise EngineError(f"{reason}; velora doctor tells more")
        self.device = device
        self._cuda = load_cuda()
        self._taken = contextlib.ExitStack()
        self.use()

    def use(self) -> None:
        """Make it this thread's device: TensorRT and CUDA act on the current one."""
        self._call("cudaSetDevice", self.device)

    def describe(self) -> Device:
        """Name, compute capability and memory."""
        said = self._call("cudaGetDeviceProperties", self.device)
        name = said.name.decode() if isinstance(said.name, bytes) else str(said.name)
        return Device(
            name=name.rstrip("\0"),
            compute_capability=f"{said.major}.{said.minor}",
            memory_bytes=int(said.totalGlobalMem),
            is_integrated=bool(said.integrated),
        )

    def free_bytes(self) -> int:
        """Memory that nobody uses now."""
        return int(self._call("cudaMemGetInfo")[0])

    def allocate(self, size_bytes: int) -> int:
        """Address of device memory, zeroed."""
        address = int(self._call("cudaMalloc", size_bytes))
        self._taken.callback(self._release, "cudaFree", address)
        self._call("cudaMemset", address, 0, size_bytes)
        self._call("cudaStreamSynchronize", 0)  # our streams do not wait for the default one, where it runs
        return address

    def allocate_host(self, size_bytes: int) -> NDArray[np.uint8]:
        """Page-locked host memory, uint8[size_bytes], zeroed; it dies with `close`."""
        return self._allocate_host(size_bytes, self._cuda.cudaHostAllocDefault)

    def allocate_input(self, size_bytes: int) -> InputBuffer:
        """Memory for an input, zeroed: one memory where the GPU shares the CPU's, else one on each side.

        Made for what is written once by the host and read once by the device, as images are. What the device
        reads many times, as tokens in a ring are, is faster in its own memory on a Jetson, too.
        """
        said = self.describe()
        major_minor = tuple(int(part) for part in said.compute_capability.split("."))
        if not said.is_integrated or major_minor < SHARED_FROM:
            return InputBuffer(self.allocate_host(size_bytes), self.allocate(size_bytes), is_shared=False)
        host = self._allocate_host(size_bytes, self._cuda.cudaHostAllocMapped)
        address = int(self._call("cudaHostGetDevicePointer", host.ctypes.data, 0))
        return InputBuffer(host, address, is_shared=True)

    def _allocate_host(self, size_bytes: int, flags: int) -> NDArray[np.uint8]:
        address = int(self._call("cudaHostAlloc", size_bytes, flags))
        self._taken.callback(self._release, "cudaFreeHost", address)
        array = np.ctypeslib.as_array((ctypes.c_uint8 * size_bytes).from_address(address))
        array[:] = 0
        return array

    def create_stream(self) -> int:
        """Handle of a stream that does not wait for the default stream."""
        stream = self._call("cudaStreamCreateWithFlags", self._cuda.cudaStreamNonBlocking)
        self._taken.callback(self._release, "cudaStreamDestroy", stream)
        return int(stream)

    def create_event(self) -> int:
        """Handle of an event without timing."""
        event = self._call("cudaEventCreateWithFlags", self._cuda.cudaEventDisableTiming)
        self._taken.callback(self._release, "cudaEventDestroy", event)
        return int(event)

    def copy_in(self, address: int, source: NDArray[np.uint8], stream: int) -> None:
        """Queue a copy of page-locked memory to the device; `source` is read when the stream gets there."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, source.ctypes.data, source.nbytes, kind, stream)

    def copy_out(self, target: NDArray[np.uint8], address: int, stream: int) -> None:
        """Queue a copy from the device into page-locked memory."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", target.ctypes.data, address, target.nbytes, kind, stream)

    def copy_within(self, target: int, source: int, size_bytes: int, stream: int) -> None:
        """Queue a copy from one place on the device to another."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        self._call("cudaMemcpyAsync", target, source, size_bytes, kind, stream)

    def fill(self, address: int, value: int, size_bytes: int, stream: int) -> None:
        """Queue setting every byte to `value`."""
        self._call("cudaMemsetAsync", address, value, size_bytes, stream)

    def record(self, event: int, stream: int) -> None:
        """Let the event stand for everything queued on the stream so far."""
        self._call("cudaEventRecord", event, stream)

    def wait(self, stream: int, event: int) -> None:
        """Let what is queued on the stream from now on come after the event."""
        self._call("cudaStreamWaitEvent", stream, event, 0)

    def synchronize(self, stream: int) -> None:
        """Block until the stream has done what was queued.

        Raises:
            EngineError: also if anything queued before has failed.
        """
        self._call("cudaStreamSynchronize", stream)

    def synchronize_event(self, event: int) -> None:
        """Block until the event has come."""
        self._call("cudaEventSynchronize", event)

    def capture(self, stream: int, submit: Callable[[], None]) -> int:
        """Handle of an executable graph of what `submit` queues on the stream, none of which runs now.

        The capture is thread-local: other threads go on using CUDA meanwhile. It is ended whatever happens,
        since a stream left capturing fails every later call.

        Raises:
            EngineError: if something cannot be captured, or if nothing was.
        """
        try:
            graph = self._capture(stream, submit)
            try:
                count = self._call("cudaGraphGetNodes", graph, 0)[1]
                if not count:
                    raise EngineError("the CUDA graph is empty")
                executable = self._call("cudaGraphInstantiate", graph, 0)
            finally:
                self._release("cudaGraphDestroy", graph)
        except EngineError:
            self._cuda.cudaGetLastError()  # forget it, or TensorRT takes it for its own at the next call
            raise
        self._taken.callback(self._release, "cudaGraphExecDestroy", executable)
        return int(executable)

    def _capture(self, stream: int, submit: Callable[[], None]) -> Any:
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream, mode)
        try:
            submit()
        except BaseException:
            _, graph = self._cuda.cudaStreamEndCapture(stream)
            if graph is not None and int(graph):
                self._release("cudaGraphDestroy", graph)
            raise
        return self._call("cudaStreamEndCapture", stream)

    def launch(self, graph: int, stream: int) -> None:
        """Queue an executable graph."""
        self._call("cudaGraphLaunch", graph, stream)

    def close(self) -> None:
        """Give everything back; errors of a device that is gone are not raised."""
        self._taken.close()

    def _call(self, name: str, *args: Any) -> Any:
        error, *results = getattr(self._cuda, name)(*args)
        if int(error) != 0:
            raise EngineError(f"{name}: {_describe(self._cuda, error)}")
        return results[0] if len(results) == 1 else tuple(results)

    def _release(self, name: str, handle: Any) -> None:
        getattr(self._cuda, name)(handle)


def _describe(cuda: Any, error: Any) -> str:
    _, text = cuda.cudaGetErrorString(error)
    words = text.decode() if isinstance(text, bytes) else str(text)
    return f"{words} ({getattr(error, 'name', error)})"
