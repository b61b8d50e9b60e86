"""OpenVINO on the CPU: the same numbers as ONNX Runtime, in the bundle's precision, without a copy."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from velora_runtime.engines import registry
from velora_runtime.engines.base import EngineOptions
from velora_runtime.engines.openvino_graphs import load_core, share, why_not_precise
from velora_runtime.engines.ort import OnnxRuntimeEngine
from velora_runtime.engines.ring import Presence, Slot

from tests.fakes import relisted, tiny_manifest, write_tiny_bundle
from tests.toy_bundle import H, T, W, write_toy_bundle
from velora_edge.bundle import find_model, open_bundle
from velora_edge.errors import BundleError, EngineError

if TYPE_CHECKING:
    from pathlib import Path

    from velora_edge.bundle import Bundle

pytest.importorskip("openvino", reason="needs the extra openvino")
from velora_runtime.engines.openvino import OpenVinoEngine, why_not


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/velora/openvino"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("models") / "tiny.velora", clip_length=3, stride=2)


def image(value: int) -> np.ndarray:
    return np.full((8, 8, 3), value, np.uint8)


def capabilities() -> list[str]:

    return list(load_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def fill(engine: Any, bundle: Bundle, seed: int = 0) -> np.ndarray:
    """The logits of a clip of noise, every slot of phase 0 written."""
    draw = np.random.default_rng(seed)
    manifest = bundle.manifest
    length, shape = manifest.clip_length, (*manifest.image_size, 3)
    images = draw.integers(0, 256, (length, 2, *shape), np.uint8)
    for i, (rgb, event) in enumerate(images):
        engine.encode("rgb", (rgb,), Slot(0, i, 0))
        engine.encode("event", (event,), Slot(0, i, 0))
        if i:
            engine.encode("diff", (rgb, images[i - 1, 0], event, images[i - 1, 1]), Slot(0, i, i - 1))
    ones = [np.ones(size, np.float32) for size in (length, length, length - 1)]
    logits: np.ndarray = engine.decide(0, Presence(*ones)).copy()
    return logits


def test_tokens_and_logits_of_the_demo_agree_with_onnxruntime() -> None:
    demo = open_bundle(find_model("demo"))
    ours, theirs = OpenVinoEngine(demo, EngineOptions()), OnnxRuntimeEngine(demo, EngineOptions(threads=1))
    logits, expected = fill(ours, demo), fill(theirs, demo)
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    for name in ("rgb", "event", "diff"):
        np.testing.assert_allclose(getattr(ours.memory, name), getattr(theirs.memory, name), atol=1e-4)


def test_tokens_are_written_into_their_slot_and_nowhere_else(bundle: Bundle) -> None:
    engine = OpenVinoEngine(bundle, EngineOptions(threads=1))
    engine.encode("rgb", (image(51),), Slot(1, 2, 0))
    engine.encode("event", (image(51),), Slot(0, 1, 0))
    assert np.flatnonzero(engine.memory.rgb.any((2, 3))).tolist() == [5]
    assert np.flatnonzero(engine.memory.event.any((2, 3))).tolist() == [1]
    assert not engine.memory.diff.any()


def test_openvinos_tensors_lie_in_the_rings_memory() -> None:
    ring = np.zeros((2, 3, 4), np.float32)
    tensor = share(ring[1, 2])
    assert (tensor.data.ctypes.data, tensor.shape) == (ring[1, 2].ctypes.data, [1, 4])
    with pytest.raises(ValueError, match="expected a contiguous array, got strides"):
        share(ring[:, :, 0])


def test_the_head_reads_the_rings_where_they_are(bundle: Bundle) -> None:
    engine = OpenVinoEngine(bundle, EngineOptions(threads=1))
    presence = Presence.none(3)
    presence.rgb[1] = 1
    before = engine.decide(0, presence).copy()
    engine.memory.rgb[0, 1] = 0.5
    changed = engine.decide(0, presence).copy()
    engine.memory.rgb[1, 1] = 7  # another ring
    engine.memory.rgb[0, 2] = 7  # not present
    assert changed.tolist() != before.tolist()
    assert engine.decide(0, presence).tolist() == changed.tolist()
    assert np.shares_memory(engine.decide(0, presence), engine.decide(1, presence))


def test_warm_up_leaves_the_rings_empty(bundle: Bundle) -> None:
    engine = OpenVinoEngine(bundle, EngineOptions(threads=1))
    engine.encode("rgb", (image(7),), Slot(0, 0, 0))
    engine.warm_up()
    assert not any(t.any() for t in (engine.memory.rgb, engine.memory.event, engine.memory.diff))


def test_close_lets_go_of_graphs_and_requests(bundle: Bundle) -> None:
    engine = OpenVinoEngine(bundle, EngineOptions(threads=1))
    engine.close()
    held = (engine.graphs, engine._runners, engine._heads, engine._slots)
    assert [len(one) for one in held] == [0, 0, 0, 0]


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_those_that_were_asked_for(bundle: Bundle, threads: int) -> None:
    engine = OpenVinoEngine(bundle, EngineOptions(threads=threads))
    found = {g.model.get_property("INFERENCE_NUM_THREADS") for g in engine.graphs.values()}
    assert found == {threads}


def test_fp32_computes_in_fp32_whatever_the_processor_has(bundle: Bundle) -> None:
    engine = OpenVinoEngine(bundle, EngineOptions())
    hints = {g.model.get_property("INFERENCE_PRECISION_HINT").get_type_name() for g in engine.graphs.values()}
    assert hints == {"f32"}


def test_fp16_tokens_are_kept_in_fp16_where_the_processor_computes_it(tmp_path: Path) -> None:
    toy = write_toy_bundle(tmp_path / "toy.velora", half=True)
    reason = why_not(toy, EngineOptions())
    if "FP16" not in capabilities():
        assert reason is not None
        assert reason.startswith("the CPU has no fp16; export the model in one of fp32")
        return
    assert reason is None
    engine = OpenVinoEngine(toy, EngineOptions())
    engine.encode("rgb", (np.full((H, W, 3), 200, np.uint8),), Slot(0, 1, 0))
    assert engine.memory.rgb.dtype == np.float16
    assert [bool(slot.any()) for slot in engine.memory.rgb[0]] == [i == 1 for i in range(T)]


@pytest.mark.parametrize(
    ("precision", "capabilities", "reason"),
    [
        ("fp32", ["FP32"], None),
        ("int8", ["FP32", "INT8"], None),
        ("bf16", ["FP32", "INT8"], "it has no bf16; export the model in one of fp32, int8"),
        ("fp16", ["FP32", "BF16"], "it has no fp16; export the model in one of fp32, bf16"),
        ("int8", ["FP16", "INT8"], "it has no fp32; export the model in one of fp16, int8"),
    ],
)
def test_a_device_without_the_precision_is_refused(
    precision: str, capabilities: list[str], reason: str | None
) -> None:
    manifest = tiny_manifest(3, 1, precision=precision)
    assert why_not_precise(manifest, "it", capabilities) == reason


def test_an_image_of_the_wrong_size_is_an_engine_error(bundle: Bundle) -> None:
    engine = OpenVinoEngine(bundle, EngineOptions(threads=1))
    with pytest.raises(EngineError, match=r"openvino failed in rgb\.onnx: .+"):
        engine.encode("rgb", (np.zeros((9, 8, 3), np.uint8),), Slot(0, 0, 0))


def test_a_graph_with_other_inputs_is_a_bundle_error(tmp_path: Path) -> None:
    whole = write_tiny_bundle(tmp_path / "other.velora")
    other = relisted(whole, "rgb.onnx", whole.read("diff.onnx"))
    with pytest.raises(BundleError, match=r"rgb\.onnx: expected a graph with the inputs image, got "):
        OpenVinoEngine(other, EngineOptions())


def test_a_graph_that_cannot_be_parsed_is_a_bundle_error(tmp_path: Path) -> None:
    other = relisted(write_tiny_bundle(tmp_path / "other.velora"), "rgb.onnx", b"")
    with pytest.raises(BundleError, match=r"rgb\.onnx: openvino cannot load the graph: "):
        OpenVinoEngine(other, EngineOptions())


@pytest.mark.parametrize("device", ["gpu", "npu"])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(
    bundle: Bundle, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:

    if device.upper() in load_core().available_devices:
        pytest.skip("needs a machine without the device")
    with pytest.raises(EngineError, match=f"openvino finds no {device.upper()} here, only CPU"):
        registry.open_engine(bundle, "openvino", EngineOptions(device=device))  # type: ignore[arg-type]


def test_cuda_is_refused(bundle: Bundle) -> None:
    with pytest.raises(EngineError, match=r"no engine for device cuda: openvino: this backend computes on "):
        registry.open_engine(bundle, "openvino", EngineOptions(device="cuda"))


@pytest.mark.parametrize("backend", ["tensorrt", "onnxruntime"])
def test_no_other_backend_takes_intels_devices(bundle: Bundle, backend: str) -> None:
    with pytest.raises(EngineError, match=r"no engine for device npu: .*this backend computes on"):
        registry.open_engine(bundle, backend, EngineOptions(device="npu"))


def loaded_from_cache(engine: OpenVinoEngine) -> dict[str, bool]:
    return {name: g.model.get_property("LOADED_FROM_CACHE") for name, g in engine.graphs.items()}


def test_compiled_graphs_are_kept_and_used_again(cache: Path) -> None:
    demo = open_bundle(find_model("demo"))
    first = OpenVinoEngine(demo, EngineOptions())
    assert set(loaded_from_cache(first).values()) == {False}
    assert len(list(cache.glob("*/*.blob"))) == len(list(cache.glob("*/*.sha256"))) == 4
    again = OpenVinoEngine(demo, EngineOptions())
    assert set(loaded_from_cache(again).values()) == {True}
    assert fill(again, demo).tolist() == fill(first, demo).tolist()


def test_a_cached_graph_whose_weights_were_spoilt_is_not_used(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    demo = open_bundle(find_model("demo"))
    expected = fill(OpenVinoEngine(demo, EngineOptions()), demo)
    for blob in cache.glob("*/*.blob"):
        content = bytearray(blob.read_bytes())
        middle = len(content) // 2
        content[middle : middle + 64] = bytes(value ^ 0x55 for value in content[middle : middle + 64])
        blob.write_bytes(content)
    with caplog.at_level(logging.WARNING, "velora.openvino"):
        again = OpenVinoEngine(demo, EngineOptions())
    assert set(loaded_from_cache(again).values()) == {False}
    assert fill(again, demo).tolist() == expected.tolist()
    assert "is spoilt and is made again" in caplog.text


def test_where_nothing_can_be_kept_a_warning_says_so(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    engine = OpenVinoEngine(bundle, EngineOptions(threads=1))
    engine.encode("rgb", (image(51),), Slot(0, 0, 0))
    assert engine.memory.rgb[0, 0].any()
    assert "compiled graphs are not kept in" in caplog.text


def test_the_demos_labels_are_those_of_onnxruntime(tmp_path: Path, capsys: Any) -> None:
    from velora_cli.main import velora
    from velora_edge.console import run

    assets, labels = find_model("demo").parent, []
    for backend in ("onnxruntime", "openvino"):
        out = tmp_path / f"{backend}.jsonl"
        recording = ["--events", str(assets / "demo.raw"), "--rgb", str(assets / "demo.mp4")]
        run_as = ["--backend", backend, "--device", "cpu", "--pace", "max", "--quiet", "--duration", "3"]
        assert run(velora, ["live", "demo", *recording, *run_as, "--out", str(out)], name="velora") == 0
        labels.append([json.loads(line)["label"] for line in out.read_text().splitlines()])
        assert f"demo on {backend} on the CPU" in capsys.readouterr().err
    assert len(labels[0]) > 20
    assert labels[1] == labels[0]
