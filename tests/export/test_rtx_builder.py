"""Every graph of every precision is built by a real compiler: TensorRT for RTX, which needs no GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from networks import tiny_model
from rtx_graphs import FORMS, compile_graph, compile_layers, need_rtx, write_forms, write_graphs
from velora_export.tensorrt.tensorrt_layers import (
    CompiledLayer,
    LayerTensor,
    StatedTypes,
    check_layers,
    judge_layers,
    parse_inspector,
    read_stated_types,
)

from velora_cli.main import velora
from velora_edge.bundle import GRAPHS, open_bundle, read_manifest
from velora_edge.console import run
from velora_edge.errors import EngineError
from velora_edge.events.accumulate.active_patches import list_lengths
from velora_edge.gpu.kinds import plan_header
from velora_edge.manifest import CompiledLayers
from velora_edge.model.config import Backbone, ModelConfig
from velora_edge.model.velora import create_model

if TYPE_CHECKING:
    from pathlib import Path

need_rtx()
ALL = ("8.6", "8.9", "12.0")
FP8 = ("8.9", "12.0")
SHAPES = {
    "patch 14, LayerScale, registers": {"patch_size": 14, "init_values": 0.1, "reg_tokens": 4},
    "patch 16, no class token": {"patch_size": 16, "class_token": False, "global_pool": "avg"},
}
"""What towers differ in; the width is that of heads of 64, as every published one has."""


@pytest.fixture(scope="module", params=SHAPES)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One block a tower, two heads of 64, images of 7 by 7 patches."""
    args: dict[str, Any] = {"embed_dim": 128, "depth": 1, "num_heads": 2, **SHAPES[request.param]}
    side = 7 * args["patch_size"]
    backbone = Backbone(name="vit_tiny_patch16_224", args=args)
    model = tiny_model(backbone=backbone, image_size=(side, side))
    return write_graphs(model, tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize("form", FORMS)
def test_towers_of_any_shape_build_in_every_precision(tiny: Path, form: str) -> None:
    precision, floats = FORMS[form]
    for graph in GRAPHS:
        targets = FP8 if precision == "fp8" else ALL
        _, compiled = compile_graph(tiny / form / f"{graph}.onnx", precision, targets)
        assert compiled.fallbacks == ()
        if precision in ("int8", "fp8"):
            assert compiled.products[precision] >= 4
        assert (compiled.fused > 0) == ("fp32" not in (precision, floats) or precision in ("fp16", "bf16"))


@pytest.fixture(scope="module")
def active(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of a model that computes active patches alone."""
    backbone = Backbone(name="vit_tiny_patch16_224", args={"embed_dim": 128, "depth": 1, "num_heads": 2})
    model = tiny_model(backbone=backbone, image_size=(112, 112), active_patches=True)
    return write_graphs(model, tmp_path_factory.mktemp("active"))


@pytest.mark.parametrize("form", FORMS)
def test_lists_of_patches_of_every_length_build_in_every_precision(active: Path, form: str) -> None:
    precision, lengths = FORMS[form][0], list_lengths(49)
    assert lengths == (8, 16, 24, 32, 49)
    for graph in ("event", "diff"):
        path = active / form / f"{graph}.onnx"
        _, layers = compile_layers(path, precision, FP8 if precision == "fp8" else ALL, lengths)
        check_layers(graph, judge_layers(layers, read_stated_types(path)))


def test_sums_of_int8_products_are_not_written_in_fp16_before_they_are_scaled(tiny: Path) -> None:
    """Each output has a scale of its own, which the next kernel multiplies by: fp16 ends at 65504."""
    _, layers = compile_layers(tiny / "int8" / "rgb.onnx", "int8", ("8.9",))
    products = [layer for layer in layers if layer.is_product and layer.dtype == "int8"]
    assert len(products) == 4
    assert {tensor.dtype for layer in products for tensor in layer.outputs} == {"fp32"}


def test_fp8_is_refused_for_a_gpu_without(tiny: Path) -> None:
    words = r"cannot build rgb\.onnx: .*Cannot compile for target\(s\) sm86, .* HW-specific datatypes: fp8"
    with pytest.raises(EngineError, match=words):
        compile_graph(tiny / "fp8" / "rgb.onnx", "fp8", ("8.6",))


@pytest.mark.parametrize("target", ALL)
def test_the_demo_builds_for_every_generation(target: str) -> None:
    bundle = open_bundle("demo")
    for graph in GRAPHS:
        plan, compiled = compile_graph(bundle.graph(graph), bundle.manifest.precision, (target,))
        assert plan_header(plan, bundle.path)[0].name == "tensorrt-rtx"
        assert compiled.arithmetic == {"fp32": 1.0}


@pytest.mark.parametrize("form", [form for form in FORMS if form != "fp32"])
def test_the_demo_builds_in_every_precision(form: str, tmp_path: Path) -> None:
    write_forms(open_bundle("demo").path, tmp_path, (form,))
    precision, _ = FORMS[form]
    for graph in GRAPHS:
        compile_graph(tmp_path / form / f"{graph}.onnx", precision, FP8 if precision == "fp8" else ALL)


def test_an_uint8_image_that_is_transposed_first_is_refused(tiny: Path, tmp_path: Path) -> None:
    """What exporters wrote before the Cast came first."""
    model = ir.load(tiny / "fp32" / "rgb.onnx")
    transpose = next(node for node in model.graph if node.op_type == "Transpose")
    cast = next(node for node in model.graph if node.op_type == "Cast")
    (image,) = model.graph.inputs
    cast.outputs[0].replace_all_uses_with(image)
    cast.replace_input_with(0, transpose.outputs[0])
    for node, index in [use for use in transpose.outputs[0].uses() if use[0] is not cast]:
        node.replace_input_with(index, cast.outputs[0])
    model.graph.remove(cast)
    model.graph.insert_after(transpose, cast)
    transpose.outputs[0].dtype = ir.DataType.UINT8
    for name, tensor in model.graph.initializers.items():
        assert tensor.const_value is not None
        tensor.const_value = ir.tensor(np.array(tensor.const_value.numpy()), name=name)
    ir.save(model, tmp_path / "rgb.onnx")
    with pytest.raises(EngineError, match=r"cannot read rgb\.onnx: Transpose: .*UInt8"):
        compile_graph(tmp_path / "rgb.onnx", "fp32", ("8.9",))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ViT-S/16 with random weights, the three towers and the head."""
    torch.manual_seed(0)
    labels = tuple(f"class {k}" for k in range(10))
    model = create_model(ModelConfig(labels=labels, backbone=Backbone(name="vit_small_patch16_224"))).eval()
    return write_graphs(model, tmp_path_factory.mktemp("small"))


TOWER = {
    "fp32": ({"fp32": 73}, 0),
    "fp16": ({"fp16": 49}, 12),
    "bf16": ({"bf16": 48, "fp32": 1}, 12),
    "int8": ({"int8": 48, "fp16": 1}, 12),
    "int8 in fp32": ({"int8": 48, "fp32": 25}, 0),
    "fp8": ({"fp8": 48, "fp16": 1}, 12),
}
"""Products by type, and how many of twelve layers of attention are one kernel: none is in fp32."""
HEAD = {
    "fp32": ({"fp32": 27}, 0),
    "fp16": ({"fp16": 21, "fp32": 1}, 3),
    "bf16": ({"bf16": 23, "fp32": 1}, 3),
    "int8": ({"int8": 16, "fp16": 4, "fp32": 1}, 3),
    "int8 in fp32": ({"int8": 16, "fp32": 11}, 0),
    "fp8": ({"fp8": 16, "fp16": 4, "fp32": 1}, 3),
}
"""The same of the head's four; the classifier is fp32, and the last attention too wide to be one kernel."""
CLIP_FUSED = {"fp16": 39, "bf16": 39, "int8": 39, "fp8": 39, "fp32": 0, "int8 in fp32": 0}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("form", TOWER)
def test_vit_s_computes_in_the_types_that_were_asked_for(small: Path, form: str) -> None:
    precision, _ = FORMS[form]
    found = {
        graph: compile_graph(small / form / f"{graph}.onnx", precision, FP8 if form == "fp8" else ALL)[1]
        for graph in ("rgb", "event", "diff", "head", "clip")
    }
    for graph in ("rgb", "event", "diff"):
        assert (found[graph].products, found[graph].fused) == TOWER[form]
    assert (found["head"].products, found["head"].fused) == HEAD[form]
    assert (found["clip"].fused, found["clip"].attention) == (CLIP_FUSED[form], 40)
    assert {name: compiled.fallbacks for name, compiled in found.items()} == dict.fromkeys(found, ())
    if precision in ("int8", "fp8"):
        assert found["rgb"].arithmetic[precision] > 0.9


def test_the_command_builds_for_a_gpu_that_is_not_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    demo, copy = open_bundle("demo"), tmp_path / "demo.velora"
    copy.mkdir()
    for name in (*demo.manifest.files, "manifest.json"):
        (copy / name).write_bytes((demo.path / name).read_bytes())
    assert run(velora, ["build", str(copy), "--for", "rtx:sm89"]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [
        f"5 engines in {copy / 'engines'}",
        f"next: velora-live {copy} --backend tensorrt-rtx --events SOURCE --rgb SOURCE",
    ]
    engines = read_manifest(copy).engines
    assert [(entry.graph, entry.kind, entry.targets) for entry in engines] == [
        (graph, "tensorrt-rtx", ("8.9",)) for graph in GRAPHS
    ]
    assert all(entry.compiled is not None and entry.compiled.arithmetic == {"fp32": 1.0} for entry in engines)
    assert run(velora, ["build", str(copy), "--for", "rtx:sm89"]) == 0
    assert "already there" in capsys.readouterr().err
    assert run(velora, ["info", str(copy)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("engine")]
    assert len(lines) == 5
    assert "GPUs of compute capability 8.9; products 25 fp32; arithmetic 100.0% fp32" in lines[0]
    assert run(velora, ["info", str(copy / engines[0].file)]) == 0
    assert capsys.readouterr().out.startswith("format    TensorRT for RTX engine\nversion   1.")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("rtx:sm87", "sm87 (Jetson Orin)"),
        ("rtx:sm90", "sm90 (H100, H200)"),
        ("rtx:4090", "--for rtx: expected GPUs such as sm89, got '4090'"),
        ("rtx:ada", "expected GPUs such as sm89, got 'ada'"),
        ("orin", "expected this-gpu, rtx, rtx:SM,... or cpu, got 'orin'"),
    ],
)
def test_a_target_that_there_is_not_is_bad_usage(
    capsys: pytest.CaptureFixture[str], target: str, message: str
) -> None:
    assert run(velora, ["build", "demo", "--for", target]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message.replace("sm87", "compute capability 8.7").replace("sm90", "compute capability 9.0") in line


def test_a_layer_in_a_wider_type_than_the_graph_states_is_refused_by_name() -> None:
    stated = StatedTypes({"a/MatMul": "fp8", "b/MatMul": "fp16"}, (), 0)
    layers = [product("fp32", "a/MatMul"), product("fp16", "b/MatMul")]
    compiled = judge_layers(layers, stated)
    assert compiled == CompiledLayers(
        products={"fp32": 1, "fp16": 1}, arithmetic={"fp32": 0.5, "fp16": 0.5}, fallbacks=("a/MatMul",)
    )
    with pytest.raises(
        EngineError, match=r"the rgb engine is not what was asked for: a/MatMul compute in a wider"
    ):
        check_layers("rgb", compiled)


def test_a_tower_whose_attention_is_not_one_kernel_is_refused_and_the_heads_widest_is_told() -> None:
    slow = CompiledLayers(products={}, arithmetic={}, attention=2, unfused=("head/head.attention/Softmax",))
    check_layers("head", slow)
    tower = slow.model_copy(update={"unfused": ("model/towers.rgb.vit.blocks.0.attn/Softmax",)})
    with pytest.raises(
        EngineError, match=r"attention is not one kernel in model/towers\.rgb.*; --force keeps it"
    ):
        check_layers("rgb", tower)


def product(dtype: str, *onnx: str) -> CompiledLayer:
    left, right, out = (LayerTensor(shape, dtype) for shape in ((1, 4, 8), (8, 2), (1, 4, 2)))
    return CompiledLayer("x", "gemm", (left,), (right,), (out,), onnx)


def test_an_inspectors_list_is_read_as_the_builders_is() -> None:
    """The form of TensorRT 10's JSON; names alone, of an engine without details, are left out."""
    text = """{"Layers": ["a name", {"Name": "m", "LayerType": "gemm",
        "Inputs": [{"Name": "x", "Dimensions": [1, 4, 8], "Format/Datatype": "Half"}],
        "Outputs": [{"Name": "y", "Dimensions": [1, 4, 2], "Format/Datatype": "Row major FP16 format"}],
        "TacticName": "t", "Metadata": "[ONNX Layer: a/MatMul][ONNX Layer: a/Add]"}]}"""
    (layer,) = parse_inspector(text)
    assert layer.onnx == ("a/MatMul", "a/Add")
    assert (layer.is_product, layer.dtype, layer.multiplications) == (True, "fp16", 64)
    assert layer.outputs == (LayerTensor((1, 4, 2), "fp16"),)
