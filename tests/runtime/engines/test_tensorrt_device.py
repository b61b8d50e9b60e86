"""The TensorRT builder and backend on a real GPU: `pytest -m tensorrt`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tensorrt_streams import SOME_ABSENT, build, copy_bundle, same_stream, stream
from velora_runtime.engines.base import EngineOptions
from velora_runtime.engines.registry import open_engine

from velora_edge.bundle import open_bundle
from velora_edge.gpu.kinds import is_same_version, read_plan_header
from velora_edge.gpu.matching import find_machine, why_no_tensorrt

if TYPE_CHECKING:
    from pathlib import Path

    from velora_runtime.engines.tensorrt import TensorRTEngine

    from velora_edge.bundle import Bundle

pytestmark = [pytest.mark.tensorrt, pytest.mark.gpu, pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The demo model with engines that were built here."""
    reason = why_no_tensorrt()
    if reason is not None:
        pytest.skip(f"needs TensorRT and a GPU: {reason}")
    return build(copy_bundle(open_bundle("demo"), tmp_path_factory.mktemp("model") / "demo.velora"))


def open_tensorrt(bundle: Bundle, *, cuda_graph: bool) -> TensorRTEngine:
    engine: TensorRTEngine = open_engine(bundle, "tensorrt", EngineOptions(cuda_graph=cuda_graph)).engine  # type: ignore[assignment]
    return engine


def test_every_engine_is_close_to_onnx_runtime(bundle: Bundle) -> None:
    assert {entry.graph: entry.parity["relative"] < 1e-3 for entry in bundle.manifest.engines} == {
        "rgb": True,
        "event": True,
        "diff": True,
        "head": True,
    }


def test_the_header_tells_the_version_that_is_installed(bundle: Bundle) -> None:
    machine = find_machine()
    for entry in bundle.manifest.engines:
        assert is_same_version(read_plan_header(bundle.path / entry.file)[1], machine.tensorrt)


@pytest.mark.parametrize("cuda_graph", [True, False])
def test_streaming_equals_the_cpu_backend(bundle: Bundle, cuda_graph: bool) -> None:
    engine = open_tensorrt(bundle, cuda_graph=cuda_graph)
    same_stream(bundle, engine, pairs=20, absent=SOME_ABSENT)
    assert engine.has_graphs is cuda_graph
    engine.close()


def test_a_second_run_gives_the_same(bundle: Bundle) -> None:
    engine = open_tensorrt(bundle, cuda_graph=True)
    engine.warm_up()
    first = stream(engine, bundle, 12, frozenset())
    engine.warm_up()
    np.testing.assert_allclose(stream(engine, bundle, 12, frozenset()), first, atol=1e-6)
    engine.close()


def test_opening_and_closing_again_and_again_keeps_no_memory(bundle: Bundle) -> None:
    from velora_edge.gpu.cuda import Cuda

    cuda, free = Cuda(), []
    for _ in range(6):
        engine = open_tensorrt(bundle, cuda_graph=True)
        engine.warm_up()
        engine.close()
        free.append(cuda.free_bytes())
    cuda.close()
    assert free[1] - free[-1] < 16 << 20


def test_a_replayed_step_is_not_slower_than_a_queued_one(bundle: Bundle, record_property: object) -> None:
    medians = {}
    for cuda_graph in (True, False):
        engine = open_tensorrt(bundle, cuda_graph=cuda_graph)
        engine.warm_up()
        start = time.perf_counter()
        stream(engine, bundle, 200, frozenset())
        medians[cuda_graph] = time.perf_counter() - start
        engine.close()
    record_property("seconds_for_200_pairs", medians)  # type: ignore[operator]
    assert medians[True] < 1.2 * medians[False]


def test_a_damaged_engine_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    entry = bundle.manifest.engines[0]
    file = bundle.path / entry.file
    plan = file.read_bytes()
    file.write_bytes(plan[:-1] + bytes([plan[-1] ^ 1]))
    try:
        with pytest.raises(Exception, match="the engine was changed or damaged"):
            open_tensorrt(bundle, cuda_graph=True)
    finally:
        file.write_bytes(plan)
