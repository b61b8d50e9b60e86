"""CUDA by cuda-python, whichever of its names it goes by."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from fakes_cuda import FakeGPU

from velora_edge.errors import EngineError
from velora_edge.gpu import cuda as module
from velora_edge.gpu.cuda import Cuda, cuda_versions, why_no_cuda

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeGPU:
    fake = FakeGPU()
    monkeypatch.setattr(module, "GPU_FILES", (str(tmp_path),))
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", fake.module)
    return fake


def test_a_machine_without_a_driver_loads_no_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "GPU_FILES", (str(tmp_path / "absent"),))
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    monkeypatch.setitem(sys.modules, "cuda.cudart", None)
    assert why_no_cuda() == "there is no NVIDIA GPU"


def test_a_gpu_without_cuda_python_names_the_extra(gpu: FakeGPU, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    monkeypatch.setitem(sys.modules, "cuda.cudart", None)
    install = "pip install -e '.[tensorrt]' in a checkout"
    assert why_no_cuda() == f"inference on an NVIDIA GPU needs cuda-python: {install}"


def test_older_cuda_python_is_found_by_its_name(gpu: FakeGPU, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    monkeypatch.setitem(sys.modules, "cuda.cudart", gpu.module)
    assert Cuda().describe().name == "NVIDIA Fake GPU"


def test_older_cuda_python_that_raises_without_a_driver_is_a_reason(
    gpu: FakeGPU, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RuntimeError("Failed to dlopen libcuda.so.1")

    monkeypatch.setattr(gpu.module, "cudaGetDeviceCount", fail)
    assert why_no_cuda() == "CUDA finds no GPU: Failed to dlopen libcuda.so.1"


def test_a_device_of_another_number_is_refused(gpu: FakeGPU) -> None:
    with pytest.raises(EngineError, match="there is no CUDA device 1, only 1; velora doctor tells more"):
        Cuda(1)


def test_the_device_describes_itself(gpu: FakeGPU) -> None:
    device = Cuda().describe()
    assert (device.name, device.compute_capability, device.memory_bytes, device.is_integrated) == (
        "NVIDIA Fake GPU",
        "8.7",
        8 << 30,
        True,
    )
    assert cuda_versions() == ("12.6", "12.6")


def test_what_is_copied_in_comes_out_once_waited_for(gpu: FakeGPU) -> None:
    cuda = Cuda()
    stream, address = cuda.create_stream(), cuda.allocate(4)
    sent, received = cuda.allocate_host(4), cuda.allocate_host(4)
    sent[:] = [1, 2, 3, 4]
    cuda.copy_in(address, sent, stream)
    cuda.copy_out(received, address, stream)
    assert received.tolist() == [0, 0, 0, 0]
    cuda.synchronize(stream)
    assert received.tolist() == [1, 2, 3, 4]
    cuda.close()
    assert gpu.leftovers() == []


def test_an_input_lies_in_one_memory_where_the_gpu_shares_the_cpus(gpu: FakeGPU) -> None:
    cuda = Cuda()
    buffer = cuda.allocate_input(4)
    buffer.host[:] = [1, 2, 3, 4]
    assert buffer.is_shared
    assert gpu.view(buffer.address, 4).tolist() == [1, 2, 3, 4]
    cuda.close()
    assert gpu.leftovers() == []


@pytest.mark.parametrize("properties", [{"integrated": 0}, {"major": 6, "minor": 2}], ids=["card", "tx2"])
def test_an_input_has_a_copy_on_a_card_and_where_the_gpu_does_not_see_the_cpus_caches(
    gpu: FakeGPU, properties: dict[str, int]
) -> None:
    for name, value in properties.items():
        setattr(gpu.properties, name, value)
    cuda = Cuda()
    buffer = cuda.allocate_input(2)
    buffer.host[:] = 7
    assert not buffer.is_shared
    assert gpu.view(buffer.address, 2).tolist() == [0, 0]
    assert gpu.view(buffer.host.ctypes.data, 2, "host").tolist() == [7, 7]


def test_fresh_memory_is_zero(gpu: FakeGPU) -> None:
    cuda = Cuda()
    assert gpu.view(cuda.allocate(8), 8).tolist() == [0] * 8
    assert cuda.allocate_host(8).tolist() == [0] * 8


def test_a_failed_call_names_the_function_and_the_reason(gpu: FakeGPU) -> None:
    cuda = Cuda()
    gpu.fail.add("cudaMalloc")
    with pytest.raises(
        EngineError, match=r"cudaMalloc: fake cudaErrorInvalidValue \(cudaErrorInvalidValue\)"
    ):
        cuda.allocate(4)


def test_a_recorded_graph_runs_as_often_as_it_is_launched(gpu: FakeGPU) -> None:
    cuda = Cuda()
    stream, address = cuda.create_stream(), cuda.allocate(2)
    seen = cuda.allocate_host(2)
    graph = cuda.capture(stream, lambda: cuda.copy_out(seen, address, stream))
    for value in (3, 5):
        cuda.fill(address, value, 2, stream)
        cuda.launch(graph, stream)
        cuda.synchronize(stream)
        assert seen.tolist() == [value, value]
    cuda.close()
    assert gpu.leftovers() == []


def test_a_capture_that_fails_leaves_the_stream_usable_and_no_error_behind(gpu: FakeGPU) -> None:
    cuda = Cuda()
    stream = cuda.create_stream()

    def waits() -> None:
        cuda.synchronize(stream)

    with pytest.raises(EngineError, match="cudaStreamSynchronize: fake cudaErrorStreamCaptureUnsupported"):
        cuda.capture(stream, waits)
    assert gpu.last_error == 0
    address = cuda.allocate(1)
    cuda.fill(address, 9, 1, stream)
    cuda.synchronize(stream)
    assert gpu.view(address, 1).tolist() == [9]
    cuda.close()
    assert gpu.leftovers() == []


def test_an_empty_capture_is_an_error(gpu: FakeGPU) -> None:
    cuda = Cuda()
    with pytest.raises(EngineError, match="the CUDA graph is empty"):
        cuda.capture(cuda.create_stream(), lambda: None)
    cuda.close()
    assert gpu.leftovers() == []


def test_an_error_of_the_callers_own_ends_the_capture_too(gpu: FakeGPU) -> None:
    cuda = Cuda()
    stream = cuda.create_stream()
    with pytest.raises(ZeroDivisionError):
        cuda.capture(stream, lambda: np.uint8(1 // 0))  # type: ignore[arg-type, return-value]
    assert not gpu.is_capturing(stream)
    cuda.close()
    assert gpu.leftovers() == []
