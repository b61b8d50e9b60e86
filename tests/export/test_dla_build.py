"""`velora build --dla`: one tower on a Deep Learning Accelerator, on a board that lives in host memory."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from fakes_tensorrt import FakeTensorRT
from tensorrt_streams import GRAPHS, SOME_ABSENT, same_stream
from toy_bundle import write_toy_bundle
from velora_export.tensorrt.tensorrt_builder import BuildOptions, BuildProgress, why_no_dla
from velora_export.tensorrt.tensorrt_engines import BuiltEngine, BundleBuilder, this_gpu
from velora_export.tensorrt.tensorrt_parity import noise_clips
from velora_runtime.engines.base import EngineOptions
from velora_runtime.engines.registry import open_engine

from velora_cli.build import parse_dla
from velora_cli.main import velora
from velora_edge.bundle import open_bundle, read_manifest
from velora_edge.console import run
from velora_edge.errors import EngineError, InputError
from velora_edge.gpu.kinds import RTX, TENSORRT
from velora_edge.gpu.signing import find_signer, public_key
from velora_edge.manifest import CompiledLayers

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from velora_edge.bundle import Bundle


def tensor(*shape: int) -> dict[str, Any]:
    return {"Name": "t", "Dimensions": list(shape), "Format/Datatype": "Half"}


def layer(name: str, kind: str) -> dict[str, Any]:
    return {"Name": name, "LayerType": kind, "Inputs": [tensor(1, 4, 8)], "Outputs": [tensor(1, 4, 2)]}


CAST, ON_DLA = layer("cast", "Reformat"), layer("{ForeignNode[patch...norm]}", "DLA")
GEMM = layer("blocks.0.mlp.fc1 + MatMul", "gemm")


def listed(*layers: dict[str, Any]) -> str:
    return json.dumps({"Layers": list(layers)})


@pytest.fixture
def orin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeTensorRT:
    """An AGX Orin: two accelerators, and a tower of which the GPU casts the pixels alone."""
    fake = FakeTensorRT.install(monkeypatch, tmp_path, version="11.4.1.12")
    fake.dla_cores, fake.layers = 2, listed(CAST, ON_DLA)
    return fake


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_toy_bundle(tmp_path / "toy.velora", half=True)


def build(
    bundle: Bundle, dla: tuple[str, int] | None, graphs: Sequence[str] = ("rgb",), *, force: bool = False
) -> list[BuiltEngine]:
    clips = noise_clips(bundle.manifest, count=1)
    with BundleBuilder(bundle, BuildOptions(dla=dla), clips, this_gpu()) as builder:
        return list(builder.build(graphs, BuildProgress(), force=force))


def test_one_tower_is_built_for_the_accelerator_and_the_others_for_the_gpu(
    orin: FakeTensorRT, bundle: Bundle
) -> None:
    rgb, event = build(bundle, ("rgb", 1), ("rgb", "event"))
    assert [one.get("dla") for one in orin.builds] == [1, None]
    assert [one["flags"] for one in orin.builds] == [{"TF32", "GPU_FALLBACK"}, {"TF32"}]
    assert (rgb.entry.dla_core, event.entry.dla_core) == (1, None)
    assert rgb.entry.file.endswith("-dla1.engine")
    assert "dla" not in event.entry.file
    assert rgb.entry.compiled == CompiledLayers(products={}, arithmetic={}, attention=0, dla=1)
    assert "all products on the DLA, in 1 part" in rgb.describe()


def test_a_tower_on_the_accelerator_streams_as_on_the_cpu(orin: FakeTensorRT, bundle: Bundle) -> None:
    build(bundle, ("event", 0), GRAPHS)
    built = open_bundle(bundle.path)
    engine = open_engine(built, "tensorrt", EngineOptions()).engine
    same_stream(built, engine, pairs=8, absent=SOME_ABSENT, atol=2e-2)
    engine.close()
    assert orin.gpu.leftovers() == []


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((CAST, GEMM), "the rgb engine runs on the GPU alone: its inspector shows no layer on a DLA"),
        ((), "the rgb engine runs on the GPU alone"),
        (
            (CAST, ON_DLA, GEMM),
            r"falls back to the GPU in blocks\.0\.mlp\.fc1 \+ MatMul; build without --dla",
        ),
        ((ON_DLA, layer("_gemm_mha_v2", "kgen")), "falls back to the GPU in _gemm_mha_v2"),
    ],
    ids=["gpu-alone", "nothing-listed", "product", "attention"],
)
def test_an_engine_that_falls_back_to_the_gpu_is_refused_and_kept_by_force(
    orin: FakeTensorRT, bundle: Bundle, layers: tuple[dict[str, Any], ...], message: str
) -> None:
    orin.layers = listed(*layers)
    with pytest.raises(EngineError, match=message):
        build(bundle, ("rgb", 0))
    assert read_manifest(bundle.path).engines == ()
    (kept,) = build(bundle, ("rgb", 0), force=True)
    assert kept.entry.dla_core == 0


def test_the_engine_that_was_asked_for_last_is_the_one_that_runs(orin: FakeTensorRT, bundle: Bundle) -> None:
    build(bundle, None)
    build(bundle, ("rgb", 0))
    assert [one.dla_core for one in read_manifest(bundle.path).engines] == [None, 0]
    (found,) = build(bundle, None)
    assert not found.is_new
    assert [one.dla_core for one in read_manifest(bundle.path).engines] == [0, None]
    assert len(orin.builds) == 2


def test_the_accelerator_is_signed_and_an_engine_for_the_gpu_is_signed_as_it_always_was(
    orin: FakeTensorRT, bundle: Bundle
) -> None:
    (on_dla,) = build(bundle, ("rgb", 0))
    assert find_signer(on_dla.entry) == public_key()
    assert find_signer(on_dla.entry.model_copy(update={"dla_core": 1})) is None
    assert find_signer(on_dla.entry.model_copy(update={"dla_core": None})) is None


def test_an_engine_for_an_accelerator_that_is_not_there_is_one_error(
    orin: FakeTensorRT, bundle: Bundle
) -> None:
    build(bundle, ("rgb", 0), GRAPHS)
    orin.dla_cores = 0
    with pytest.raises(EngineError, match=r"was built for DLA 0, and this board has 0 for TensorRT 11\.4\.1"):
        open_engine(open_bundle(bundle.path), "tensorrt", EngineOptions())


@pytest.mark.parametrize(
    ("kind", "version", "precision", "cores", "core", "reason"),
    [
        (TENSORRT, "11.4.1.12", "fp16", 2, 1, None),
        (TENSORRT, "11.4.1.12", "int8", 2, 0, None),
        (
            TENSORRT,
            "10.3.0",
            "fp16",
            2,
            0,
            "needs TensorRT 11.4.1 or later, on AGX Orin .*, this is TensorRT 10.3.0",
        ),
        (TENSORRT, "11.4.0.106", "fp16", 2, 0, "this is TensorRT 11.4.0.106"),
        (RTX, "1.7.1", "fp16", 0, 0, "this is TensorRT for RTX 1.7.1"),
        (TENSORRT, "11.4.1", "fp16", 0, 0, "there is no DLA 0: this board has 0; AGX Orin has two"),
        (TENSORRT, "11.4.1", "fp16", 2, 2, "there is no DLA 2: this board has 2"),
        (TENSORRT, "11.4.1", "fp32", 2, 0, "computes in fp16 or int8, and the graphs are fp32"),
    ],
)
def test_what_an_accelerator_cannot_do_is_told_before_the_build(
    kind: Any, version: str, precision: str, cores: int, core: int, reason: str | None
) -> None:
    import re

    told = why_no_dla(kind, version, precision, cores, core)
    assert (told is None) is (reason is None)
    assert reason is None or re.search(reason, str(told))


def test_a_board_without_accelerators_builds_nothing(orin: FakeTensorRT, bundle: Bundle) -> None:
    orin.dla_cores = 0
    with pytest.raises(EngineError, match="there is no DLA 0"):
        build(bundle, ("rgb", 0))
    assert orin.builds == []


def test_the_tower_and_the_accelerator_are_parsed() -> None:
    assert (parse_dla("rgb"), parse_dla("event:1")) == (("rgb", 0), ("event", 1))


@pytest.mark.parametrize("text", ["", "head", "rgb:x", "rgb:-1"])
def test_another_word_for_the_accelerator_is_bad_usage(text: str) -> None:
    with pytest.raises(InputError, match="--dla: expected rgb, event, diff, or one with a number"):
        parse_dla(text)


def test_an_engine_for_the_accelerator_is_of_one_version_and_one_board(
    bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(velora, ["build", str(bundle.path), "--dla", "rgb", "--version-compatible"]) == 2
    assert "an engine for a DLA is of one TensorRT and one board" in capsys.readouterr().err
