"""One model's graphs in every precision, made from its fp32 bundle."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from filelock import FileLock
from networks import tiny_config
from velora_export.evaluation.parity import measure_parity
from velora_export.evaluation.sessions import Sessions, random_clips
from velora_export.precision.calibration import calibrate, observe
from velora_export.precision.precisions import FORMATS, convert
from velora_export.report import find_objections
from velora_runtime.engines.base import EngineOptions
from velora_runtime.engines.openvino_graphs import (
    BlobCache,
    Compiled,
    load_core,
    share,
    why_not_precise,
)

from velora_edge.bundle import GRAPHS, Bundle, Precision
from velora_edge.manifest import Calibration

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Exported

CLIPS = random_clips(tiny_config(), count=2, seed=3)
HALVES: list[Precision] = ["fp16", "bf16"]
EIGHT_BITS = ["int8", "int8-fp16", "int8-bf16", "fp8-fp16", "fp8-fp32"]
OTHERS = [*HALVES, *EIGHT_BITS]
"""Those with a dash: what is between the layers of eight bits."""
FLOAT = onnx.TensorProto.FLOAT
KINDS = {"fp16": onnx.TensorProto.FLOAT16, "bf16": onnx.TensorProto.BFLOAT16, "int8": FLOAT}
KINDS |= {"int8-fp16": KINDS["fp16"], "fp8-fp16": KINDS["fp16"], "fp8-fp32": FLOAT}


@pytest.fixture(scope="session")
def converted(exported: Exported) -> dict[str, Path]:
    folders = {p: exported.bundle.path.with_name(f"tiny-{p}") for p in OTHERS}
    staged = exported.bundle.path
    with FileLock(f"{staged}.precisions.lock"):
        for precision, folder in folders.items():
            if not folder.exists():
                folder.mkdir()
                kind, _, floats = precision.partition("-")
                ranges = calibrate(staged, CLIPS, "percentile").thresholds if kind in FORMATS else None
                given: Any = {"precision": kind, "floats": floats or None}
                convert(staged, folder, metadata={}, thresholds=ranges, **given)
    return folders


@pytest.mark.parametrize("precision", OTHERS)
@pytest.mark.parametrize("graph", GRAPHS)
def test_graphs_are_what_onnx_allows(converted: dict[str, Path], precision: str, graph: str) -> None:
    path = converted[precision] / f"{graph}.onnx"
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(path, load_external_data=False)
    expected = 19 if precision in EIGHT_BITS and precision != "int8" else 18
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", expected)]


@pytest.mark.parametrize("precision", OTHERS)
def test_inputs_and_outputs_have_the_types_that_the_runtime_expects(
    converted: dict[str, Path], precision: str
) -> None:
    tokens = KINDS["fp16"] if precision.endswith("fp16") else FLOAT
    images = onnx.TensorProto.UINT8
    expected = {
        **dict.fromkeys(("rgb", "event", "diff"), ({images}, tokens)),
        "head": ({tokens, FLOAT}, FLOAT),
        "clip": ({images, FLOAT}, FLOAT),
    }
    found = {}
    for graph in GRAPHS:
        model = onnx.load(converted[precision] / f"{graph}.onnx", load_external_data=False).graph
        inputs = {value.type.tensor_type.elem_type for value in model.input}
        found[graph] = (inputs, model.output[0].type.tensor_type.elem_type)
    assert found == expected


@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("graph", GRAPHS)
def test_all_layers_but_the_classifier_are_narrow(
    converted: dict[str, Path], precision: str, graph: str
) -> None:
    model = onnx.load(converted[precision] / f"{graph}.onnx", load_external_data=False).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in [*model.value_info, *model.output]}
    layers = Counter(
        (node.op_type, kinds[node.output[0]])
        for node in model.node
        if node.op_type in ("MatMul", "LayerNormalization")
    )
    assert {kind for _, kind in layers} == {KINDS[precision]}
    classifiers = [kinds[node.output[0]] for node in model.node if node.op_type == "Gemm"]
    assert classifiers == ([FLOAT] if graph in ("head", "clip") else [])


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("precision", EIGHT_BITS)
def test_eight_bits_have_a_pair_around_every_linear_layer_and_nothing_else(
    converted: dict[str, Path], graph: str, precision: str
) -> None:
    model = onnx.load(converted[precision] / f"{graph}.onnx", load_external_data=False).graph
    made = {output: node.op_type for node in model.node for output in node.output}
    fed = Counter(
        (node.op_type, tuple(made.get(name, "") == "DequantizeLinear" for name in node.input[:2]))
        for node in model.node
        if "DequantizeLinear" in {made.get(name) for name in node.input}
    )
    # A block has four; a tower one block; the head three blocks, E for each modality, and its attention's.
    layers = {"rgb": 4, "event": 4, "diff": 4, "head": 3 * 4 + 4, "clip": 3 * 4 + 3 * 4 + 4}
    assert fed == {("MatMul", (True, True)): layers[graph]}


@pytest.mark.parametrize("precision", OTHERS)
def test_graphs_of_a_precision_share_their_weights(converted: dict[str, Path], precision: str) -> None:
    folder = converted[precision]
    places = {}
    for graph in GRAPHS:
        tensors = onnx.load(folder / f"{graph}.onnx", load_external_data=False).graph.initializer
        found = [{entry.key: entry.value for entry in tensor.external_data} for tensor in tensors]
        places[graph] = {(place["offset"], place["length"]) for place in found if place}
        assert {place["location"] for place in found if place} == {"weights.bin"}
    assert all(places[graph] <= places["clip"] for graph in GRAPHS)
    assert (folder / "weights.bin").stat().st_size < 500_000


@pytest.mark.parametrize("precision", HALVES)
def test_half_precisions_stay_near_the_model(
    exported: Exported, converted: dict[str, Path], precision: Precision
) -> None:
    sessions = Sessions(converted[precision], threads=2)
    parity = measure_parity(exported.model, exported.model, sessions, CLIPS)
    assert find_objections(parity, precision, None, trained=True) == ()
    assert parity.onnx > 1e-5  # it did round


@pytest.mark.parametrize("precision", EIGHT_BITS)
def test_eight_bits_tell_the_same_labels(
    exported: Exported, converted: dict[str, Path], precision: str
) -> None:
    sessions = Sessions(converted[precision], threads=2)
    parity = measure_parity(exported.model, exported.model, sessions, CLIPS)
    assert parity.top1_agreement == 1.0
    assert 1e-5 < parity.onnx < 0.1 * parity.largest
    assert parity.streaming < 0.01 * parity.largest


def test_layers_are_observed_as_the_head_and_the_towers_call_them(exported: Exported) -> None:
    seen: list[None] = []
    histograms = observe(exported.bundle.path, CLIPS, lambda: seen.append(None), threads=2)
    assert len(seen) == 2
    images = {key: int(h.counts.sum()) // (17 * 48) for key, h in histograms.items()}
    qkv = {(key.in_head, key.module): count for key, count in images.items() if key.module.endswith("qkv")}
    # two clips of four pairs by the towers; one a clip by the head, its shared block on three modalities, its
    # attention on two
    assert qkv == {
        (False, "towers.rgb.vit.blocks.0.attn.qkv"): 8,
        (False, "towers.event.vit.blocks.0.attn.qkv"): 8,
        (False, "towers.diff.vit.blocks.0.attn.qkv"): 6,
        (True, "towers.rgb.vit.blocks.0.attn.qkv"): 2,
        (True, "towers.event.vit.blocks.0.attn.qkv"): 2,
        (True, "head.shared.attn.qkv"): 6,
        (True, "head.attention.qkv"): 4,
    }


def test_auto_takes_the_method_whose_logits_are_nearer(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "staged"
    shutil.copytree(exported.bundle.path, folder)
    monkeypatch.setattr(
        "velora_export.precision.quantization.entropy", lambda counts, limit: limit / 50
    )  # cuts off nearly all
    assert calibrate(folder, CLIPS, "auto").method == "percentile"
    monkeypatch.setattr("velora_export.precision.quantization.entropy", lambda counts, limit: limit)
    monkeypatch.setattr("velora_export.precision.quantization.percentile", lambda counts, limit: limit / 50)
    assert calibrate(folder, CLIPS, "auto").method == "entropy"


def test_tokens_of_fp16_are_taken_and_given_as_such(converted: dict[str, Path]) -> None:
    session = Sessions(converted["fp16"], threads=2).session("rgb")
    (tokens,) = session.run(None, {"image": CLIPS.rgb[0, :1]})
    assert (tokens.dtype, tokens.shape) == (np.float16, (1, 17, 48))


def as_bundle(exported: Exported, folder: Path, precision: Precision, floats: Any = "fp32") -> Bundle:
    """The graphs in a folder, with a manifest that lists their digests."""
    manifest = exported.bundle.manifest
    files = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in manifest.files
        if (folder / name).exists()
    }
    calibration = Calibration(method="max", source="none", clips=1, layers=16, floats=floats)
    assert manifest.report is not None
    report = manifest.report.model_copy(update={"calibration": calibration})
    changes = {"precision": precision, "report": report, "files": files}
    return Bundle(folder, manifest.model_copy(update=changes))


@pytest.mark.parametrize(
    ("precision", "floats", "kind"),
    [("int8", "fp32", "i8"), ("int8", "bf16", "i8"), ("bf16", "bf16", "bf16")],
)
def test_openvino_computes_the_layers_in_the_bundles_precision(
    exported: Exported,
    converted: dict[str, Path],
    precision: Precision,
    floats: Any,
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("openvino", reason="needs the extra openvino")
    core = load_core()
    folder = converted[f"{precision}-{floats}" if (precision, floats) == ("int8", "bf16") else precision]
    bundle = as_bundle(exported, folder, precision, floats)
    capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if lacking := why_not_precise(bundle.manifest, "it", capabilities):
        pytest.skip(f"needs a processor with {precision} and {floats}: {lacking}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    graph = Compiled(core, bundle, "rgb", "CPU", EngineOptions(), BlobCache.for_bundle(bundle))
    infos = [op.get_rt_info() for op in graph.model.get_runtime_model().get_ops()]
    layers = [
        i["runtimePrecision"].astype(str) for i in infos if i["layerType"].astype(str) == "FullyConnected"
    ]
    assert len(layers) > 3
    assert {"i8" if layer == "u8" else layer for layer in layers} == {kind}


@pytest.mark.parametrize("floats", ["fp32", "bf16"])
def test_openvinos_int8_tokens_are_as_near_as_onnxruntimes(
    exported: Exported,
    converted: dict[str, Path],
    floats: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same rounded factors: sums differ in the last bits, which may round an activation up, not down."""
    pytest.importorskip("openvino", reason="needs the extra openvino")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = converted["int8" if floats == "fp32" else f"int8-{floats}"]
    bundle = as_bundle(exported, folder, "int8", floats)
    manifest = bundle.manifest
    core = load_core()
    if lacking := why_not_precise(manifest, "it", core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")):
        pytest.skip(f"needs a processor with {floats}: {lacking}")
    image = np.random.default_rng(3).integers(0, 256, (*manifest.image_size, 3), np.uint8)
    tokens = np.zeros((manifest.tokens, manifest.token_size), np.float32)
    cache = BlobCache.for_bundle(bundle)
    request = Compiled(core, bundle, "rgb", "CPU", EngineOptions(), cache).request()
    request.feed("image", image)
    request.run(share(tokens))
    fp32 = exported.sessions.session("rgb").run(None, {"image": image[None]})[0][0]
    int8 = Sessions(folder, threads=2).session("rgb").run(None, {"image": image[None]})[0][0]
    away = float(np.sqrt(np.mean((int8 - fp32) ** 2)))
    assert away > 0
    assert float(np.sqrt(np.mean((tokens - int8) ** 2))) < away
