"""The GPU check's backends on devices that are not there, and torch on the CPU, beside expected logits."""

from __future__ import annotations

import importlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
from fakes_onnxruntime import FakeRuntime
from fakes_tensorrt import FakeTensorRT
from networks import SHALLOW, tiny_config
from velora_runtime.engines import ort_cuda
from velora_runtime.engines import ort_cuda as ort_device

from velora_edge import ort
from velora_edge.bundle import EngineFile, open_bundle
from velora_edge.errors import EngineError
from velora_edge.gpu.kinds import RTX
from velora_edge.gpu.signing import public_key, sign

if TYPE_CHECKING:
    from types import ModuleType

FOLDER = Path(__file__).parents[2] / "benchmarks"
TINY = tiny_config(backbone=SHALLOW)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model in fp32 and fp16, without engines."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        folder = tmp_path_factory.mktemp("graphs")
        prepare = importlib.import_module("gpu_prepare").prepare
        prepare(folder, "tiny", ["fp32", "fp16"], config=TINY, engines=False, say=lambda line: None)
    return folder / "tiny"


@pytest.fixture
def measured(prepared: Path) -> Any:
    return importlib.import_module("gpu_part").Part(prepared, "tiny", "fp32", 0.0, 1e9)


@pytest.fixture
def plans() -> ModuleType:
    return importlib.import_module("gpu_engines")


def rows(part: Any, backend: str, graphs: tuple[bool, ...] = (True, False)) -> list[dict[str, Any]]:
    return [message["row"] for message in part.run({backend: graphs}, []) if "row" in message]


def near(found: list[dict[str, Any]], limit: float = 1e-4) -> None:
    """Every row has figures, and logits that are fp32's."""
    for row in found:
        assert row["relative"] < limit
        assert row["same_label"] is True
        assert 0 < row["p50_ms"] <= row["p99_ms"]
        assert row["share"] > 0


def keys(found: list[dict[str, Any]]) -> list[tuple[str, bool]]:
    return [(row["graph"], row["cuda_graph"]) for row in found]


ALL = [("step", True), ("step", False), ("clip", True), ("clip", False)]


def test_tensorrt_is_built_and_runs_steps_and_clips_with_cuda_graphs_and_without(
    measured: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = FakeTensorRT.install(monkeypatch, tmp_path)
    found = rows(measured, "tensorrt")
    near(found)
    assert keys(found) == ALL
    assert all(row["host_ms"] > 0 for row in found)
    assert fake.gpu.leftovers() == []


def test_rtx_on_a_gpu_that_production_refuses_is_built_for_what_is_there(
    measured: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, plans: ModuleType
) -> None:
    fake = FakeTensorRT.install(monkeypatch, tmp_path, "1.7.1", RTX)
    fake.gpu.properties.major, fake.gpu.properties.minor = 9, 0
    monkeypatch.setattr(
        plans._CurrentBuilder,
        "_set_targets",
        lambda self, config: setattr(config, "num_compute_capabilities", 0),
    )
    found = rows(measured, "tensorrt-rtx")
    near(found)
    assert keys(found) == ALL
    assert found[0]["reason"] == (
        "production says: TensorRT for RTX does not serve compute capability 9.0 (H100, H200): use TensorRT "
        "there (velora build MODEL, --backend tensorrt); built for CURRENT"
    )


def test_where_rtx_refuses_to_build_its_own_words_are_told_once(
    measured: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, plans: ModuleType
) -> None:
    fake = FakeTensorRT.install(monkeypatch, tmp_path, "1.7.1", RTX)
    fake.gpu.properties.major, fake.gpu.properties.minor = 9, 0
    fake.fail_build = "SM90 is not supported"
    monkeypatch.setattr(
        plans._CurrentBuilder,
        "_set_targets",
        lambda self, config: setattr(config, "num_compute_capabilities", 0),
    )
    (row,) = rows(measured, "tensorrt-rtx")
    assert (row["graph"], row["cuda_graph"], row["p50_ms"]) == ("", None, None)
    assert row["reason"] == (
        "production says: TensorRT for RTX does not serve compute capability 9.0 (H100, H200): use TensorRT "
        "there (velora build MODEL, --backend tensorrt); "
        "built for CURRENT: TensorRT for RTX cannot build rgb.onnx: SM90 is not supported"
    )


def test_where_rtx_refuses_to_build_here_the_engines_of_the_nearest_gpu_below_are_tried(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, plans: ModuleType
) -> None:
    fake = FakeTensorRT.install(monkeypatch, tmp_path, "1.7.1", RTX)
    fake.gpu.properties.major, fake.gpu.properties.minor = 9, 0
    part = with_engines(prepared, tmp_path / "tiny")
    fake.fail_build = "SM90 is not supported"
    monkeypatch.setattr(plans._CurrentBuilder, "_set_targets", lambda self, config: None)
    found = rows(part, "tensorrt-rtx")
    near(found)
    assert keys(found) == ALL
    assert found[0]["reason"].endswith("SM90 is not supported; so the engines for 8.9 are tried")


def test_rtx_runs_the_prepared_engines_where_production_would(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = FakeTensorRT.install(monkeypatch, tmp_path, "1.7.1", RTX)
    fake.gpu.properties.major, fake.gpu.properties.minor = 8, 9
    part = with_engines(prepared, tmp_path / "tiny")
    fake.builds.clear()
    found = rows(part, "tensorrt-rtx", (True,))
    near(found)
    assert [(row["graph"], row["reason"]) for row in found] == [("step", ""), ("clip", "")]
    assert fake.builds == []


def with_engines(prepared: Path, folder: Path) -> Any:
    """The part on a copy of the prepared model with engines of the TensorRT for RTX that is installed."""
    shutil.copytree(prepared, folder)
    said = importlib.import_module("gpu_prepare").build_engines(
        open_bundle(folder / "fp32.velora"), lambda line: None
    )
    assert said == ""
    return importlib.import_module("gpu_part").Part(folder, "tiny", "fp32", 0.0, 1e9)


def test_onnx_runtime_runs_steps_and_clips_with_cuda_graphs_and_without(
    measured: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeRuntime()
    for module in (ort, ort_cuda, ort_device):
        monkeypatch.setattr(module, "load_runtime", lambda *_: fake)
    for name in ("InferenceSession", "get_available_providers"):
        monkeypatch.setattr(onnxruntime, name, getattr(fake, name))
    monkeypatch.setattr(ort_cuda, "has_gpu", lambda: True)
    found = rows(measured, "onnxruntime-cuda")
    near(found)
    assert keys(found) == ALL


def test_torch_computes_the_same_step_and_clip(measured: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    way = importlib.import_module("gpu_torch").TorchWay(TINY, measured.pairs, "fp32", device="cpu")
    expected = np.load(measured.bundle.path.parent / "expected.npz")
    way.warm_clip()
    np.testing.assert_allclose(way.first_clip(), expected["step"][0], atol=1e-4)
    np.testing.assert_allclose(way.clip(), expected["clip"][0], atol=1e-4)


def test_torch_in_bf16_computes_in_bf16(measured: Any) -> None:
    way = importlib.import_module("gpu_torch").TorchWay(TINY, measured.pairs, "bf16", device="cpu")
    expected = np.load(measured.bundle.path.parent / "expected.npz")["step"][0]
    away = np.abs(way.first_clip() - expected).max() / np.abs(expected).max()
    assert 1e-5 < away < 0.1


def test_a_precision_that_torch_does_not_have_is_refused(measured: Any) -> None:
    with pytest.raises(EngineError, match="torch has no int8 of the model's layers"):
        importlib.import_module("gpu_torch").TorchWay(TINY, measured.pairs, "int8", device="cpu")


def test_a_way_that_fails_while_it_is_timed_leaves_the_others(measured: Any) -> None:
    calls = {"good": 0, "bad": 0}

    class Way:
        has_graphs, note = True, ""

        def __init__(self, name: str) -> None:
            self._name = name

        def step(self) -> None:
            calls[self._name] += 1
            if self._name == "bad" and calls["bad"] == 2:
                raise EngineError("out of memory")

        def host_ms(self, run: object, runs: int) -> None:
            return None

    row = importlib.import_module("gpu_plan").Row
    ways = {(name, True): Way(name) for name in ("bad", "good")}
    given = {(name, True, "step"): row("tiny", "fp32", name, "step", True) for name in ("bad", "good")}
    found = [message["row"] for message in measured._turns(ways, given, "step", 5, 60)]
    assert [(r["backend"], r["runs"], r["reason"]) for r in found] == [
        ("bad", 0, "out of memory"),
        ("good", 5, ""),
    ]
    assert calls == {"good": 5, "bad": 2}


def test_multiplications_of_a_tower_are_those_of_its_layers(prepared: Path) -> None:
    """Patches 16 x (3 x 8 x 8) x 48; a block on 17 tokens of 48: qkv, proj, MLP, two of attention."""
    count = importlib.import_module("gpu_prepare").count_products
    patches, block = 16 * 192 * 48, 17 * 48 * (3 * 48 + 48 + 2 * 192)
    attention = 2 * 17 * 17 * 48
    assert count(prepared / "fp32.velora" / "rgb.onnx") == patches + block + attention


def test_a_clip_is_every_image_once_and_the_head_once() -> None:
    products = importlib.import_module("gpu_prepare").clip_products
    assert products({"rgb": 1, "event": 10, "diff": 100, "head": 1000}, 4) == 4 + 40 + 300 + 1000


def test_a_prepared_folder_is_ready_for_the_precisions_that_it_holds(prepared: Path) -> None:
    is_ready = importlib.import_module("gpu_prepare").is_ready
    assert is_ready(prepared, ["fp32", "fp16"])
    assert not is_ready(prepared, ["fp32", "int8"])
    assert open_bundle(prepared / "fp16.velora").manifest.precision == "fp16"


def test_engines_of_the_folder_are_trusted_in_this_process(
    prepared: Path, plans: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "other"))
    bundle = open_bundle(prepared / "fp32.velora")
    entry = EngineFile(graph="rgb", file="a", sha256="", model="", precision="fp32", tensorrt="1")
    manifest = bundle.manifest.model_copy(update={"engines": (sign(entry),)})
    other = public_key()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "mine"))
    monkeypatch.setenv("VELORA_TRUST_ENGINES", public_key())
    plans.trust(type(bundle)(bundle.path, manifest))
    assert os.environ["VELORA_TRUST_ENGINES"] == ",".join(sorted((public_key(), other)))
