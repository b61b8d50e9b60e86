"""An exported bundle: its graphs give the model's logits, and its files say what they are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from networks import SHALLOW, T, tiny_config, tiny_model
from velora_export.bundle_export import export_bundle, require_stride
from velora_export.evaluation.parity import normalise
from velora_export.evaluation.sessions import random_clips, stream_clip

from velora_edge.bundle import GRAPHS, EventInput, Palette, open_bundle
from velora_edge.errors import EngineError, InputError
from velora_edge.model.checkpoint import Base, Checkpoint, Inputs
from velora_edge.model.head import Streams

if TYPE_CHECKING:
    from conftest import Exported
    from numpy.typing import NDArray

TOLERANCE = 1e-4
CLIPS = random_clips(tiny_config(), count=2, seed=3)


def _torch(exported: Exported, modality: str, images: NDArray[np.uint8]) -> torch.Tensor:
    with torch.no_grad():
        return exported.model.encode(modality, normalise(images, exported.model.config))


def _flags(rgb: int = 1, event: int = 1, count: int = 1) -> dict[str, NDArray[np.float32]]:
    return {
        "rgb_present": np.full((count, T), rgb, np.float32),
        "event_present": np.full((count, T), event, np.float32),
    }


def _close(given: NDArray[np.float32], wanted: torch.Tensor | NDArray[np.float32]) -> None:
    np.testing.assert_allclose(given, np.asarray(wanted), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("modality", ["rgb", "event"])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_tower_s_graph_gives_its_tokens_for_any_batch(
    exported: Exported, modality: str, batch: int
) -> None:
    images = CLIPS.rgb[0, :batch]
    tokens = exported.sessions.run(modality, {"image": images})
    assert tokens.shape == (batch, 17, 48)
    _close(tokens, _torch(exported, modality, images))


def test_the_diff_graph_gives_the_tokens_of_normalised_differences(exported: Exported) -> None:
    pair = {
        "rgb": CLIPS.rgb[:, 1],
        "rgb_before": CLIPS.rgb[:, 0],
        "event": CLIPS.event[:, 1],
        "event_before": CLIPS.event[:, 0],
    }
    config = exported.model.config
    images = {name: normalise(image, config) for name, image in pair.items()}
    diff = (images["rgb"] - images["rgb_before"]).abs() + (images["event"] - images["event_before"]).abs()
    with torch.no_grad():
        _close(exported.sessions.run("diff", pair), exported.model.encode("diff", diff))


@pytest.mark.parametrize(("rgb", "event"), [(1, 1), (1, 0), (0, 1), (0, 0)])
def test_the_clip_graph_gives_the_model_s_logits(exported: Exported, rgb: int, event: int) -> None:
    flags = _flags(rgb, event, count=2)
    logits = exported.sessions.run("clip", {"rgb": CLIPS.rgb, "event": CLIPS.event, **flags})
    config = exported.model.config
    with torch.no_grad():
        wanted = exported.model(
            normalise(CLIPS.rgb, config),
            normalise(CLIPS.event, config),
            *(torch.from_numpy(flag) for flag in flags.values()),
        )
    assert logits.shape == (2, 3)
    _close(logits, wanted)


def test_the_clip_graph_takes_cameras_that_come_and_go(exported: Exported) -> None:
    flags = {
        "rgb_present": np.array([[1, 1, 0, 1]], np.float32),
        "event_present": np.array([[0, 1, 1, 1]], np.float32),
    }
    logits = exported.sessions.run("clip", {"rgb": CLIPS.rgb[:1], "event": CLIPS.event[:1], **flags})
    config = exported.model.config
    with torch.no_grad():
        wanted = exported.model(
            normalise(CLIPS.rgb[:1], config),
            normalise(CLIPS.event[:1], config),
            *(torch.from_numpy(flag) for flag in flags.values()),
        )
    _close(logits, wanted)


@pytest.mark.parametrize(("rgb", "event"), [(1, 1), (1, 0), (0, 1)])
def test_streaming_equals_the_clip_graph(exported: Exported, rgb: int, event: int) -> None:
    flags = _flags(rgb, event)
    for pictures, events in zip(CLIPS.rgb, CLIPS.event, strict=True):
        whole = exported.sessions.run("clip", {"rgb": pictures[None], "event": events[None], **flags})
        _close(stream_clip(exported.sessions, pictures, events, flags), whole)


def _head_inputs(seed: int = 0, count: int = 2) -> dict[str, NDArray[np.float32]]:
    draw = np.random.default_rng(seed)
    slots = {"rgb": T, "event": T, "diff": T - 1}
    rings = {m: draw.normal(size=(count, n, 17, 48)).astype(np.float32) for m, n in slots.items()}
    return {**rings, **{f"{m}_present": np.ones((count, n), np.float32) for m, n in slots.items()}}


def test_the_head_graph_gives_the_model_s_logits(exported: Exported) -> None:
    inputs = _head_inputs()
    inputs["diff_present"][0, 1] = inputs["event_present"][1] = 0
    tensors = {name: torch.from_numpy(value) for name, value in inputs.items()}
    with torch.no_grad():
        wanted = exported.model.decide(
            Streams(tensors["rgb"], tensors["event"], tensors["diff"]),
            Streams(*(tensors[f"{m}_present"] > 0 for m in ("rgb", "event", "diff"))),
        )
    _close(exported.sessions.run("head", inputs), wanted)


def test_permuted_slots_give_the_same_logits(exported: Exported) -> None:
    inputs = _head_inputs(count=1)
    inputs["rgb_present"][0, 1] = 0
    order = {"rgb": [2, 3, 1, 0], "event": [1, 0, 3, 2], "diff": [2, 0, 1]}
    turned = {name: value[:, order[name.split("_")[0]]] for name, value in inputs.items()}
    _close(exported.sessions.run("head", turned), exported.sessions.run("head", inputs))


@pytest.mark.parametrize("absent", [("rgb",), ("event",), ("diff",), ("rgb", "event", "diff")])
def test_an_absent_ring_may_hold_nan(exported: Exported, absent: tuple[str, ...]) -> None:
    inputs = _head_inputs()
    for modality in absent:
        inputs[f"{modality}_present"][:] = 0
    wanted = exported.sessions.run("head", inputs)
    assert np.isfinite(wanted).all()
    for modality in absent:
        inputs[modality][:] = np.nan
    np.testing.assert_array_equal(exported.sessions.run("head", inputs), wanted)


def test_the_manifest_holds_what_the_runtime_must_know(exported: Exported) -> None:
    manifest = exported.bundle.manifest
    assert (manifest.name, manifest.labels) == ("tiny", ("wave", "point", "rest"))
    assert (manifest.clip_length, manifest.stride, manifest.image_size) == (T, 3, (32, 32))
    assert (manifest.tokens, manifest.token_size) == (17, 48)
    assert manifest.event == EventInput(window_us=20_000, palette=Palette(background=(0, 0, 0)))
    assert (manifest.weights.trained, manifest.weights.run["seed"]) == (True, 0)
    assert sorted(manifest.files) == sorted([*(f"{graph}.onnx" for graph in GRAPHS), "weights.bin"])
    report = manifest.report
    assert report is not None
    assert report.tolerance == TOLERANCE
    assert 0 < max(report.merged, report.onnx, report.streaming) < TOLERANCE
    assert (report.top1_agreement, report.accuracy, report.calibration) == (1.0, None, None)
    sizes = [(exported.bundle.path / name).stat().st_size for name in manifest.files]
    assert report.graph_bytes == sum(sizes)
    assert report.latency is not None
    assert 0 < report.latency.p50_ms <= report.latency.p99_ms


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_graph_carries_the_manifest_s_facts(exported: Exported, graph: str) -> None:
    model = onnx.load(exported.bundle.graph(graph), load_external_data=False)
    facts = {prop.key: json.loads(prop.value) for prop in model.metadata_props}
    manifest = exported.bundle.manifest.model_dump(mode="json")
    assert facts["velora.labels"] == ["wave", "point", "rest"]
    assert facts == {key: manifest[key.removeprefix("velora.")] for key in facts}
    assert {"velora.clip_length", "velora.mean", "velora.std", "velora.event", "velora.stride"} <= set(facts)


def _shape(value: onnx.ValueInfoProto) -> tuple[Any, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(d.dim_param or d.dim_value for d in dims)


INTERFACE: dict[str, tuple[dict[str, tuple[str, tuple[Any, ...]]], tuple[Any, ...]]] = {
    "rgb": ({"image": ("UINT8", ("batch", 32, 32, 3))}, ("tokens", ("batch", 17, 48))),
    "event": ({"image": ("UINT8", ("batch", 32, 32, 3))}, ("tokens", ("batch", 17, 48))),
    "diff": (
        dict.fromkeys(("rgb", "rgb_before", "event", "event_before"), ("UINT8", ("batch", 32, 32, 3))),
        ("tokens", ("batch", 17, 48)),
    ),
    "head": (
        {
            "rgb": ("FLOAT", ("batch", 4, 17, 48)),
            "event": ("FLOAT", ("batch", 4, 17, 48)),
            "diff": ("FLOAT", ("batch", 3, 17, 48)),
            "rgb_present": ("FLOAT", ("batch", 4)),
            "event_present": ("FLOAT", ("batch", 4)),
            "diff_present": ("FLOAT", ("batch", 3)),
        },
        ("logits", ("batch", 3)),
    ),
    "clip": (
        {
            "rgb": ("UINT8", ("batch", 4, 32, 32, 3)),
            "event": ("UINT8", ("batch", 4, 32, 32, 3)),
            "rgb_present": ("FLOAT", ("batch", 4)),
            "event_present": ("FLOAT", ("batch", 4)),
        },
        ("logits", ("batch", 3)),
    ),
}


@pytest.mark.parametrize("graph", GRAPHS)
def test_inputs_and_outputs_are_as_documented(exported: Exported, graph: str) -> None:
    model = onnx.load(exported.bundle.graph(graph), load_external_data=False).graph
    kinds = onnx.TensorProto.DataType
    inputs = {i.name: (kinds.Name(i.type.tensor_type.elem_type), _shape(i)) for i in model.input}
    (output,) = model.output
    assert (inputs, (output.name, _shape(output))) == INTERFACE[graph]
    assert output.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


@pytest.mark.parametrize("graph", GRAPHS)
def test_graphs_hold_only_what_tensorrt_10_3_reads(exported: Exported, graph: str) -> None:
    path = exported.bundle.graph(graph)
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(path, load_external_data=False)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 18)]
    assert exported.bundle.manifest.opset == 18
    assert len(model.functions) == 0
    operators = [node.op_type for node in model.graph.node]
    assert "Attention" not in operators
    # a tower of one block: its two and the last; the head: shared, two fed blocks of three, two of its own
    norms = {"rgb": 3, "event": 3, "diff": 3, "head": 2 + 2 * 3 + 2, "clip": 9 + 10}
    assert operators.count("LayerNormalization") == norms[graph]
    weights = {tensor.name for tensor in model.graph.initializer}
    moved = [node for node in model.graph.node if node.op_type == "Transpose" and node.input[0] in weights]
    assert moved == []


def test_a_bundle_can_be_copied_and_opened_elsewhere(exported: Exported, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(exported.bundle.path, tmp_path / "copy.velora")
    assert open_bundle(tmp_path / "copy.velora").manifest == exported.bundle.manifest


def test_an_export_that_is_not_the_model_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoilt(module: torch.nn.Module) -> None:
        for parameter in module.parameters():
            parameter.data += 0.01 * torch.randn_like(parameter)

    monkeypatch.setattr("velora_export.bundle_export.simplify", spoilt)
    linear = tiny_model(tuning="linear", backbone=SHALLOW).train()  # the quickest to export
    with pytest.raises(EngineError, match="the export is not the model: merged logits are"):
        export_bundle(linear, tmp_path / "bad.velora", name="bad", trained=True)
    assert list(tmp_path.iterdir()) == []
    assert linear.training  # the caller's model is left in its mode


def test_labels_must_fit_the_classes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the model has 3 classes, got 2 labels"):
        export_bundle(tiny_model(), tmp_path / "x.velora", name="x", trained=True, labels=["a", "b"])
    assert list(tmp_path.iterdir()) == []


def described(sampling: str, stride: int, span_s: float | None, rate_hz: float | None) -> Checkpoint:
    inputs = Inputs(stride=stride, span_s=span_s, rate_hz=rate_hz)
    base, run = Base(stored=True, sha256=""), {"data": {"sampling": sampling}}
    return Checkpoint(model=tiny_config(), inputs=inputs, base=base, run=run)


@pytest.mark.parametrize(
    ("sampling", "stride", "span_s", "rate_hz"),
    [
        ("stride", 1, None, None),
        ("stride", 1, 9.0, 10.0),  # the time is the stride's own: whoever changed it knows
        ("spread", 10, 3.2, 10.0),
        ("spread", 5, None, None),  # somebody chose it, at import or in the configuration
    ],
)
def test_a_stride_that_covers_the_time_of_training_or_was_chosen_is_taken(
    sampling: str, stride: int, span_s: float | None, rate_hz: float | None
) -> None:
    require_stride(described(sampling, stride, span_s, rate_hz), Path("best"))


@pytest.mark.parametrize(
    ("span_s", "rate_hz", "told"),
    [
        (None, None, "best: was trained on clips spread over whole recordings, which a live stream does not "
         "have; give --stride N, or --stride auto with --span S and --rate HZ"),
        (3.2, 10.0, r"recordings (3.20 s; 0.30 s by its stride of 1), which a live stream does not have; "
         "give --stride auto, which takes pairs 11 apart, or --stride N"),
    ],
)  # fmt: skip
def test_clips_that_were_spread_need_a_stride(span_s: float | None, rate_hz: float | None, told: str) -> None:
    with pytest.raises(InputError, match=re.escape(told)):
        require_stride(described("spread", 1, span_s, rate_hz), Path("best"))
