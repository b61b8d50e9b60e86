"""Models that compute active patches alone, streamed on every backend of a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from velora_runtime.engines.base import EngineOptions
from velora_runtime.engines.ort import OnnxRuntimeEngine, PatchLists
from velora_runtime.engines.ring import Slot
from velora_runtime.inference.recogniser import PairRecogniser

from tests.fakes import FakeClock
from tests.runtime.streaming import make_pair, stream_and_clips
from velora_edge.bundle import Bundle, open_bundle
from velora_edge.errors import BundleError

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("torch", reason="the models are made by torch")
SIZE, PATCHES = 32, 16
BACKENDS = ["onnxruntime", "openvino"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    from velora_export.bundle_export import export_bundle

    from tests.networks import SHALLOW, tiny_model

    model = tiny_model(active_patches=True, clip_length=3, backbone=SHALLOW)
    return export_bundle(
        model, tmp_path_factory.mktemp("models") / "active.velora", name="active", trained=True, stride=2
    )


def _movement(pairs: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of noise, and event images with events in a band that moves, in none, and in all patches."""
    draw = np.random.default_rng(3)
    rgb = draw.integers(0, 256, (pairs, SIZE, SIZE, 3), np.uint8)
    event = np.full((pairs, SIZE, SIZE, 3), 255, np.uint8)
    for k in range(pairs):
        band = slice(4 * (k % 8), 4 * (k % 8) + 4)
        event[k, band] = draw.integers(0, 255, event[k, band].shape)
    event[3:6] = 255
    event[-2] = draw.integers(0, 255, event[-2].shape)
    return rgb, event


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kinds", ["bbbbbbbbbbbb", "bbbrrbbbeebb"], ids=["both", "cameras come and go"])
def test_a_stream_gives_the_clip_graphs_logits(
    bundle: Bundle, backend: str, kinds: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino", reason="openvino is not installed")
    module = {"onnxruntime": "ort", "openvino": "openvino"}[backend]
    monkeypatch.setattr(f"velora_runtime.engines.{module}.CPU_STEP", 4)  # for images of 16 patches
    streamed, whole = stream_and_clips(bundle, *_movement(len(kinds)), kinds, backend=backend)
    assert len(streamed) == len(kinds) - 4
    np.testing.assert_allclose(streamed, whole, atol=1e-4)


def test_openvinos_graph_for_all_patches_gives_the_same(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed")
    from velora_runtime.engines import openvino

    monkeypatch.setattr(openvino, "CPU_STEP", 4)
    called_int8 = Bundle(bundle.path, bundle.manifest.model_copy(update={"precision": "int8"}))
    engine = openvino.OpenVinoEngine(called_int8, EngineOptions(threads=1))
    assert {engine._key("event", length) for length in (3, 7, 11, 16)} == {"event", "event/16"}
    streamed, whole = stream_and_clips(called_int8, *_movement(12), "bbbrrbbbeebb", backend="openvino")
    np.testing.assert_allclose(streamed, whole, atol=1e-4)


def test_a_stream_through_tensorrt_gives_the_clip_graphs_logits(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.fakes_tensorrt import FakeTensorRT
    from tests.tensorrt_streams import build, copy_bundle

    fake = FakeTensorRT.install(monkeypatch, tmp_path)
    built = build(copy_bundle(bundle, tmp_path / "active.velora"))
    assert all(entry.parity["runs"] for entry in built.manifest.engines)
    streamed, whole = stream_and_clips(built, *_movement(12), "bbbrrbbbeebb", backend="tensorrt")
    np.testing.assert_allclose(streamed, whole, atol=1e-4)
    assert fake.gpu.leftovers() == []


def test_a_stream_through_tensorrt_for_rtx_gives_the_clip_graphs_logits(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from velora_export.tensorrt.tensorrt_builder import BuildOptions, BuildProgress
    from velora_export.tensorrt.tensorrt_engines import BundleBuilder, rtx_gpus
    from velora_export.tensorrt.tensorrt_parity import noise_clips

    from tests.fakes_tensorrt import FakeTensorRT
    from tests.tensorrt_streams import GRAPHS, copy_bundle
    from velora_edge.gpu.kinds import RTX, parse_targets

    fake = FakeTensorRT.install(monkeypatch, tmp_path, "1.7.1", RTX)
    fake.gpu.properties.minor = 9
    copied = copy_bundle(bundle, tmp_path / "active.velora")
    clips = noise_clips(bundle.manifest, count=1)
    with BundleBuilder(copied, BuildOptions(), clips, rtx_gpus(parse_targets("sm89"))) as builder:
        list(builder.build(GRAPHS, BuildProgress(), force=False))
    built = open_bundle(copied.path)
    streamed, whole = stream_and_clips(built, *_movement(9), "bbbrbbbbb", backend="tensorrt-rtx")
    np.testing.assert_allclose(streamed, whole, atol=1e-4)
    assert fake.gpu.leftovers() == []


def test_a_stream_through_onnxruntime_on_a_gpu_gives_the_clip_graphs_logits(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    from velora_runtime.engines import ort, ort_cuda

    from tests.fakes_onnxruntime import FakeRuntime
    from velora_edge import ort as ort_device

    fake = FakeRuntime()
    for module in (ort, ort_cuda, ort_device):
        monkeypatch.setattr(module, "load_runtime", lambda *_: fake, raising=False)
    monkeypatch.setattr(ort_cuda, "why_no_provider", lambda *_: None)
    streamed, whole = stream_and_clips(bundle, *_movement(9), "bbbrbbbbb", backend="onnxruntime-cuda")
    np.testing.assert_allclose(streamed, whole, atol=1e-4)


def test_still_patches_get_a_constant_token_whatever_the_image_holds_there(bundle: Bundle) -> None:
    engine = OnnxRuntimeEngine(bundle, EngineOptions(threads=1))
    _, event = _movement(2)
    other = event[0].copy()
    other[SIZE // 2 :] = 7
    listed = np.array([0, 3])
    for place, image in enumerate((event[0], other)):
        engine.encode("event", (image,), Slot(0, place, 0), listed)
    first, second, _ = engine.memory.event[0]
    assert first.any()
    assert second.tolist() == first.tolist()


def test_without_a_list_all_patches_are_computed(bundle: Bundle) -> None:
    engine = OnnxRuntimeEngine(bundle, EngineOptions(threads=1))
    _, event = _movement(2)
    engine.encode("event", (event[0],), Slot(0, 0, 0))
    engine.encode("event", (event[0],), Slot(0, 1, 0), np.arange(PATCHES))
    assert engine.memory.event[0, 0].tolist() == engine.memory.event[0, 1].tolist()


def test_lists_are_filled_up_to_the_next_length(bundle: Bundle) -> None:
    lists = PatchLists(bundle.manifest)
    assert lists.lengths == (8, 16)
    assert lists.fit("diff", np.array([2, 5])).tolist() == [2, 5, -1, -1, -1, -1, -1, -1]  # type: ignore[union-attr]
    assert lists.fit("event", None).tolist() == list(range(PATCHES))  # type: ignore[union-attr]
    assert lists.fit("rgb", None) is None
    assert PatchLists(bundle.manifest, 4).lengths == (3, 7, 11, 16)  # with the class token 4, 8 and 12 rows


def test_a_bundle_that_says_nothing_of_its_list_is_refused(bundle: Bundle) -> None:
    silent = Bundle(bundle.path, bundle.manifest.model_copy(update={"active_patches": None}))
    with pytest.raises(BundleError, match=r"expected a graph with the inputs image, got image, patches"):
        OnnxRuntimeEngine(silent, EngineOptions())


def test_pairs_are_decided_alike_with_decisions_between_them(bundle: Bundle) -> None:
    rgb, event = _movement(9)
    decided: list[list[list[float]]] = []
    for is_asked in (False, True):
        engine = OnnxRuntimeEngine(bundle, EngineOptions(threads=1))
        recogniser = PairRecogniser(bundle.manifest, engine, FakeClock())
        decided.append([])
        for number in range(len(rgb)):
            logits = recogniser.see(make_pair(number, rgb[number], event[number]))
            decided[-1] += [] if logits is None else [logits.tolist()]
            if is_asked:
                between = make_pair(number + 1, None, event[(number + 4) % len(event)])
                between.coming_us = number + 2
                recogniser.see_between(between)
        engine.close()
    assert len(decided[0]) == 5
    assert decided[0] == decided[1]
