"""A CUDA device that lives in host memory, behind cuda-python's names, and that is as lazy as CUDA may be.

What is queued on a stream runs only when somebody waits for it, and nothing else runs with it but what its
events ask for: a missing event, a buffer that is reused too early or freed too early shows as a wrong result
or as an AssertionError, not as luck.
"""
# ruff: noqa: N801, N815

from __future__ import annotations

import itertools
import threading
import types
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


class cudaError_t(IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorNoDevice = 100
    cudaErrorStreamCaptureUnsupported = 900
    cudaErrorStreamCaptureInvalidated = 901


class cudaMemcpyKind(IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2
    cudaMemcpyDeviceToDevice = 3


class cudaStreamCaptureMode(IntEnum):
    cudaStreamCaptureModeGlobal = 0
    cudaStreamCaptureModeThreadLocal = 1


OK = cudaError_t.cudaSuccess


@dataclass
class Stream:
    queue: list[Callable[[], None]] = field(default_factory=list)
    done: int = 0
    captured: list[Callable[[], None]] | None = None
    is_valid: bool = True


@dataclass
class Event:
    stream: int = 0
    after: int = 0


@dataclass
class Properties:
    name: bytes = b"NVIDIA Fake GPU"
    major: int = 8
    minor: int = 7
    totalGlobalMem: int = 8 << 30
    integrated: int = 1


class FakeGPU:
    """The device's state; `module` is what stands in for `cuda.bindings.runtime`.

    Attributes:
        calls: names of the CUDA functions called, in order.
        fail: functions that shall fail from now on.
        last_error: the last failure that nobody has asked for; libraries take it for their own.
        empty_graphs: captures see nothing, as when another device is current.
    """

    def __init__(self, devices: int = 1) -> None:
        self.devices, self.properties, self.free_bytes = devices, Properties(), 4 << 30
        self.calls: list[str] = []
        self.fail: set[str] = set()
        self.empty_graphs = False
        self.last_error = OK
        self.memory: dict[int, tuple[str, NDArray[np.uint8], Any]] = {}
        self.streams: dict[int, Stream] = {}
        self.events: dict[int, Event] = {}
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.executables: dict[int, list[Callable[[], None]]] = {}
        self.lock = threading.Lock()
        self._handles = itertools.count(0x1000)
        self.module = types.ModuleType("cuda.bindings.runtime")
        for kind in (cudaError_t, cudaMemcpyKind, cudaStreamCaptureMode):
            setattr(self.module, kind.__name__, kind)
        self.module.cudaStreamNonBlocking = 1
        self.module.cudaEventDisableTiming = 2
        self.module.cudaHostAllocDefault = 0
        self.module.cudaHostAllocMapped = 2
        for name in [name for name in dir(self) if name.startswith("cuda")]:
            setattr(self.module, name, self._entry(name))

    def _entry(self, name: str) -> Callable[..., tuple[Any, ...]]:
        function = getattr(self, name)

        def call(*args: Any) -> tuple[Any, ...]:
            with self.lock:
                self.calls.append(name)
                failed = (cudaError_t.cudaErrorInvalidValue, None)
                results = failed if name in self.fail else function(*args)
                self.last_error = results[0] or self.last_error
                return results

        return call

    def view(self, address: int, size: int, kind: str = "device") -> NDArray[np.uint8]:
        """Memory that is alive, of that kind, and holds all of it; what is mapped is of both kinds."""
        for start, (found, array, _) in self.memory.items():
            if start <= address and address + size <= start + array.size:
                assert found in (kind, "mapped"), f"{found} memory where {kind} memory is needed"
                return array[address - start : address - start + size]
        raise AssertionError(f"{size} bytes at {address:#x} are not in memory that is alive")

    def submit(self, stream: int, work: Callable[[], None]) -> None:
        assert stream in self.streams, "on a stream that does not exist"
        target = self.streams[stream]
        if target.captured is None:
            target.queue.append(work)
        elif not self.empty_graphs:
            target.captured.append(work)

    def is_capturing(self, stream: int) -> bool:
        return self.streams[stream].captured is not None

    def run(self, stream: int, until: int | None = None) -> None:
        """Do what is queued on one stream up to a place in its queue."""
        target = self.streams[stream]
        while target.done < (len(target.queue) if until is None else until):
            work = target.queue[target.done]
            target.done += 1
            work()

    def leftovers(self) -> list[str]:
        """What was never given back."""
        kinds = ("memory", "streams", "events", "graphs", "executables")
        return [kind for kind in kinds if getattr(self, kind)]

    def _blocked(self) -> bool:
        """Blocking calls spoil a capture that is open in this thread."""
        open_ones = [stream for stream in self.streams.values() if stream.captured is not None]
        for stream in open_ones:
            stream.is_valid = False
        return bool(open_ones)

    def _allocate(self, kind: str, size: int) -> int:
        room = np.full(size + 512, 0xA5, np.uint8)
        address = -(-room.ctypes.data // 256) * 256
        start = address - room.ctypes.data
        self.memory[address] = (kind, room[start : start + size], room)
        return address

    def cudaGetDeviceCount(self) -> tuple[Any, ...]:
        return (OK, self.devices) if self.devices else (cudaError_t.cudaErrorNoDevice, None)

    def cudaDriverGetVersion(self) -> tuple[Any, ...]:
        return OK, 12060

    def cudaRuntimeGetVersion(self) -> tuple[Any, ...]:
        return OK, 12060

    def cudaSetDevice(self, device: int) -> tuple[Any, ...]:
        assert 0 <= device < self.devices
        return (OK,)

    def cudaGetDeviceProperties(self, device: int) -> tuple[Any, ...]:
        assert 0 <= device < self.devices
        return OK, self.properties

    def cudaMemGetInfo(self) -> tuple[Any, ...]:
        return OK, self.free_bytes, self.properties.totalGlobalMem

    def cudaGetErrorString(self, error: cudaError_t) -> tuple[Any, ...]:
        return OK, f"fake {error.name}".encode()

    def cudaGetLastError(self) -> tuple[Any, ...]:
        self.last_error = OK
        return (OK,)

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:
        if self._blocked():
            return cudaError_t.cudaErrorStreamCaptureUnsupported, None
        return OK, self._allocate("device", size)

    def cudaHostAlloc(self, size: int, flags: int) -> tuple[Any, ...]:
        assert flags in (0, 2)
        return OK, self._allocate("mapped" if flags == 2 else "host", size)

    def cudaHostGetDevicePointer(self, address: int, flags: int) -> tuple[Any, ...]:
        assert flags == 0
        assert self.memory[address][0] == "mapped", "memory that was not mapped has no address on the device"
        return OK, address

    def cudaFree(self, address: int) -> tuple[Any, ...]:
        assert self.memory.pop(address)[0] == "device"
        return (OK,)

    def cudaFreeHost(self, address: int) -> tuple[Any, ...]:
        assert self.memory.pop(address)[0] in ("host", "mapped")
        return (OK,)

    def cudaMemset(self, address: int, value: int, size: int) -> tuple[Any, ...]:
        self.view(address, size)[:] = value
        return (OK,)

    def cudaMemsetAsync(self, address: int, value: int, size: int, stream: int) -> tuple[Any, ...]:
        self.view(address, size)
        self.submit(stream, lambda: self.view(address, size).fill(value))
        return (OK,)

    def cudaMemcpyAsync(
        self, target: int, source: int, size: int, kind: cudaMemcpyKind, stream: int
    ) -> tuple[Any, ...]:
        names = {1: ("device", "host"), 2: ("host", "device"), 3: ("device", "device")}
        to, out_of = names[kind]
        self.view(target, size, to), self.view(source, size, out_of)
        self.submit(stream, lambda: np.copyto(self.view(target, size, to), self.view(source, size, out_of)))
        return (OK,)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        assert flags == 1, "a stream that waits for the default stream"
        handle = next(self._handles)
        self.streams[handle] = Stream()
        return OK, handle

    def cudaStreamDestroy(self, stream: int) -> tuple[Any, ...]:
        gone = self.streams.pop(stream)
        assert gone.captured is None, "a stream that is still capturing"
        assert gone.done == len(gone.queue), "a stream with work that nobody waited for"
        return (OK,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any, ...]:
        if self._blocked():
            return (cudaError_t.cudaErrorStreamCaptureUnsupported,)
        if stream != 0:
            self.run(stream)
        return (OK,)

    def cudaStreamWaitEvent(self, stream: int, event: int, flags: int) -> tuple[Any, ...]:
        assert flags == 0
        seen = self.events[event]
        source, after = seen.stream, seen.after
        self.submit(stream, lambda: self.run(source, after) if source else None)
        return (OK,)

    def cudaEventCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        assert flags == 2
        handle = next(self._handles)
        self.events[handle] = Event()
        return OK, handle

    def cudaEventDestroy(self, event: int) -> tuple[Any, ...]:
        del self.events[event]
        return (OK,)

    def cudaEventRecord(self, event: int, stream: int) -> tuple[Any, ...]:
        self.events[event].stream = stream
        self.events[event].after = len(self.streams[stream].queue)
        return (OK,)

    def cudaEventSynchronize(self, event: int) -> tuple[Any, ...]:
        if self._blocked():
            return (cudaError_t.cudaErrorStreamCaptureUnsupported,)
        seen = self.events[event]
        if seen.stream:
            self.run(seen.stream, seen.after)
        return (OK,)

    def cudaStreamBeginCapture(self, stream: int, mode: cudaStreamCaptureMode) -> tuple[Any, ...]:
        assert mode == cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal, "others would be disturbed"
        self.streams[stream].captured, self.streams[stream].is_valid = [], True
        return (OK,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[Any, ...]:
        target = self.streams[stream]
        captured, target.captured = target.captured, None
        assert captured is not None
        if not target.is_valid:
            return cudaError_t.cudaErrorStreamCaptureInvalidated, None
        handle = next(self._handles)
        self.graphs[handle] = captured
        return OK, handle

    def cudaGraphGetNodes(self, graph: int, count: int) -> tuple[Any, ...]:
        assert count == 0
        return OK, None, len(self.graphs[graph])

    def cudaGraphInstantiate(self, graph: int, flags: int) -> tuple[Any, ...]:
        assert flags == 0
        handle = next(self._handles)
        self.executables[handle] = list(self.graphs[graph])
        return OK, handle

    def cudaGraphDestroy(self, graph: int) -> tuple[Any, ...]:
        del self.graphs[graph]
        return (OK,)

    def cudaGraphExecDestroy(self, executable: int) -> tuple[Any, ...]:
        del self.executables[executable]
        return (OK,)

    def cudaGraphLaunch(self, executable: int, stream: int) -> tuple[Any, ...]:
        assert executable in self.executables, "a graph that does not exist"
        assert not self.is_capturing(stream)
        for work in self.executables[executable]:
            self.submit(stream, work)
        return (OK,)
