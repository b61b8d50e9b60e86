"""The choice of an engine, and ONNX Runtime on the CPU."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from velora_runtime.engines import ort, registry
from velora_runtime.engines.base import EngineOptions
from velora_runtime.engines.ort import OnnxRuntimeEngine
from velora_runtime.engines.ring import Presence, Slot

from tests.fakes import RecordingEngine, relisted, write_tiny_bundle
from tests.toy_bundle import H, T, W, write_toy_bundle
from velora_edge.errors import BundleError, EngineError
from velora_edge.extensions import Extension, Registry

if TYPE_CHECKING:
    from pathlib import Path

    from velora_edge.bundle import Bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("models") / "tiny.velora", clip_length=3, stride=2)


def image(value: int) -> np.ndarray:
    return np.full((8, 8, 3), value, np.uint8)


def tanh(value: int) -> float:
    return float(np.tanh(np.float32(value * 2 / 255)))


def test_tokens_are_written_into_their_slot_and_nowhere_else(bundle: Bundle) -> None:
    engine = OnnxRuntimeEngine(bundle, EngineOptions(threads=1))
    engine.encode("rgb", (image(51),), Slot(1, 2, 0))
    engine.encode("rgb", (image(255),), Slot(0, 0, 0))
    expected = np.zeros((2, 3, 4, 48), np.float32)
    expected[1, 2], expected[0, 0] = tanh(51), tanh(255)
    np.testing.assert_allclose(engine.memory.rgb, expected, atol=1e-6)
    assert not engine.memory.event.any()
    assert not engine.memory.diff.any()


def test_differences_are_written_into_their_slot(bundle: Bundle) -> None:
    engine = OnnxRuntimeEngine(bundle, EngineOptions(threads=1))
    same = image(9)
    engine.encode("diff", (image(10), image(61), same, same), Slot(1, 0, 1))
    expected = np.zeros((2, 2, 4, 48), np.float32)
    expected[1, 1] = np.sqrt(51 * 2 / 255)
    np.testing.assert_allclose(engine.memory.diff, expected, atol=1e-6)


def test_the_head_sees_one_ring_and_only_what_is_present(bundle: Bundle) -> None:
    engine = OnnxRuntimeEngine(bundle, EngineOptions(threads=1))
    presence = Presence.none(3)
    presence.rgb[1] = 1
    engine.encode("rgb", (image(100),), Slot(0, 1, 0))
    alone = engine.decide(0, presence).copy()
    engine.encode("rgb", (image(200),), Slot(0, 2, 0))  # not present
    engine.encode("rgb", (image(200),), Slot(1, 1, 0))  # another ring
    assert engine.decide(0, presence).tolist() == alone.tolist()
    assert engine.decide(1, presence).tolist() != alone.tolist()


def test_logits_are_the_engines_own_array(bundle: Bundle) -> None:
    engine = OnnxRuntimeEngine(bundle, EngineOptions(threads=1))
    first = engine.decide(0, Presence.none(3))
    assert first.shape == (3,)
    assert np.shares_memory(first, engine.decide(0, Presence.none(3)))


def test_warm_up_leaves_the_rings_empty(bundle: Bundle) -> None:
    engine = OnnxRuntimeEngine(bundle, EngineOptions(threads=1))
    engine.encode("rgb", (image(7),), Slot(0, 0, 0))
    engine.warm_up()
    assert not any(t.any() for t in (engine.memory.rgb, engine.memory.event, engine.memory.diff))


def test_an_image_of_the_wrong_size_is_an_engine_error(bundle: Bundle) -> None:
    engine = OnnxRuntimeEngine(bundle, EngineOptions(threads=1))
    with pytest.raises(EngineError, match=r"onnxruntime failed in rgb\.onnx: .*"):
        engine.encode("rgb", (np.zeros((9, 8, 3), np.uint8),), Slot(0, 0, 0))


def test_a_graph_with_other_inputs_is_a_bundle_error(bundle: Bundle, tmp_path: Path) -> None:
    whole = write_tiny_bundle(tmp_path / "other.velora")
    other = relisted(whole, "rgb.onnx", whole.read("diff.onnx"))
    with pytest.raises(
        BundleError,
        match=r"rgb\.onnx: expected a graph with the inputs image, got rgb, rgb_before,",
    ):
        OnnxRuntimeEngine(other, EngineOptions())


def test_a_graph_that_cannot_be_parsed_is_a_bundle_error(tmp_path: Path) -> None:
    other = relisted(write_tiny_bundle(tmp_path / "other.velora"), "head.onnx", b"")
    with pytest.raises(
        BundleError, match=r"head\.onnx: onnxruntime cannot load the graph: .*; export the mod"
    ):
        OnnxRuntimeEngine(other, EngineOptions())


def test_cuda_is_refused_and_never_replaced_by_the_cpu(bundle: Bundle) -> None:
    with pytest.raises(
        EngineError,
        match=r"no engine for device cuda: onnxruntime with CUDA: .*; onnxruntime: this backend computes",
    ):
        registry.open_engine(bundle, "onnxruntime", EngineOptions(device="cuda"))


def test_an_unknown_backend_is_refused_with_those_that_there_are(bundle: Bundle) -> None:
    with pytest.raises(EngineError, match=r"no backend is called 'tvm'; there are .*onnxruntime"):
        registry.open_engine(bundle, "tvm", EngineOptions())


def test_without_onnxruntime_the_error_names_the_extra(bundle: Bundle, monkeypatch: Any) -> None:
    monkeypatch.setattr(ort.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        EngineError, match=r"onnxruntime is not installed \(pip install -e '\.\[cpu\]' in a checkout\)"
    ):
        registry.open_engine(bundle, "auto", EngineOptions())


def test_auto_takes_the_first_that_runs_and_tells_why_it_passed_over_the_others(
    bundle: Bundle, monkeypatch: Any
) -> None:
    class Better:
        def why_not(self, bundle: Bundle, options: EngineOptions) -> str | None:
            return "there is no such device here"

    class Worse:
        def why_not(self, bundle: Bundle, options: EngineOptions) -> str | None:
            return None

        def open_engine(self, bundle: Bundle, options: EngineOptions) -> RecordingEngine:
            return RecordingEngine(3)

    for name, backend in {"better": Better(), "worse": Worse()}.items():
        monkeypatch.setitem(sys.modules, name, backend)
    known = [Extension(name, name, f"the {name}") for name in ("better", "worse")]
    monkeypatch.setattr(registry, "BACKENDS", Registry("velora.engines", known))
    monkeypatch.setattr(registry, "AUTO", ("better", "worse"))
    choice = registry.open_engine(bundle, "auto", EngineOptions())
    assert isinstance(choice.engine, RecordingEngine)
    assert choice.passed_over == ("the better: there is no such device here",)
    with pytest.raises(EngineError, match="better: there is no such device here"):
        registry.open_engine(bundle, "better", EngineOptions())


@pytest.mark.parametrize(("half", "kind"), [(False, np.float32), (True, np.float16)])
def test_the_rings_hold_what_the_graphs_give(tmp_path: Path, half: bool, kind: type) -> None:
    toy = write_toy_bundle(tmp_path / "toy.velora", half=half)
    engine = OnnxRuntimeEngine(toy, EngineOptions(threads=1))
    assert {tokens.dtype.type for tokens in (engine.memory.rgb, engine.memory.event, engine.memory.diff)} == {
        kind
    }
    engine.encode("rgb", (np.full((H, W, 3), 200, np.uint8),), Slot(0, 1, 0))
    assert engine.memory.rgb[0, 1].any()
    assert not engine.memory.rgb[0, 0].any()
    presence = Presence.none(T)
    presence.rgb[1] = 1
    assert np.isfinite(engine.decide(0, presence)).all()
