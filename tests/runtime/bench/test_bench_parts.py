"""Parts by themselves, what the device could do, and a build with a slowed stage."""

from __future__ import annotations

import importlib.util
import time
from typing import TYPE_CHECKING, Any

import pytest
from toy_bundle import H, K, N, P, W, write_toy_bundle
from velora_runtime.bench.acceptance import compare
from velora_runtime.bench.benchmark import Benchmark, BenchOptions
from velora_runtime.bench.figures import Part
from velora_runtime.bench.live import LiveSettings
from velora_runtime.bench.parts import Entry, Host, time_in_turn
from velora_runtime.bench.roofline import (
    FLOAT,
    INT8,
    INT32,
    UINT8,
    copy_rate,
    count_work,
    matrix_product,
    measure_roofline,
)
from velora_runtime.bench.roofline import N as SIDE
from velora_runtime.engines.ort import OnnxRuntimeEngine

from velora_edge.bundle import open_bundle

if TYPE_CHECKING:
    from pathlib import Path

onnxruntime = pytest.importorskip("onnxruntime", reason="an engine to measure: the extra cpu")
onnx = pytest.importorskip("onnx", reason="checks the graphs that are written by hand: the extra test")

TOWER_FLOP = 2 * (H * W * 3) * (N * P)
HEAD_FLOP = 2 * (3 * N * P) * K


def note(line: str) -> None:
    pass


def measure_parts(model: str, *what: str) -> Any:
    options = BenchOptions(
        models=(model,),
        live=LiveSettings(backend="onnxruntime", device="cpu", picture_px=(64, 48)),
        what=frozenset(what or ("parts",)),
        quick=True,
        part_seconds=0.3,
        decoded=20_000,
    )
    return Benchmark(options, note).run()


def test_each_part_runs_in_turn_and_has_the_time_of_its_own_work() -> None:
    ran: list[str] = []

    def work(name: str, seconds: float) -> Host:
        return Host(name, lambda: (ran.append(name), time.sleep(seconds)), Entry("runs", 5))

    slow, fast = time_in_turn([work("slow", 0.02), work("fast", 0.002)], 0.0, least=4)
    assert ran == ["slow"] * 3 + ["fast"] * 3 + ["slow", "fast"] * 4
    assert (slow.n, fast.n) == (4, 4)
    assert min(slow.rounds_ms) >= 20
    assert 2 <= min(fast.rounds_ms) < 20
    assert slow.per_s == pytest.approx(5e3 / slow.p50_ms, rel=1e-3)


def test_a_share_of_the_time_is_told_where_one_run_does_several() -> None:
    (part,) = time_in_turn([Host("pack", lambda: time.sleep(0.01), Entry("windows"), 1 / 10)], 0.0, least=2)
    assert 1.0 <= part.p50_ms < 8.0


def test_a_bundles_parts_are_those_of_the_host_and_of_its_engine(tmp_path: Path) -> None:
    write_toy_bundle(tmp_path / "toy.velora")
    result = measure_parts(str(tmp_path / "toy.velora"))
    host = ["decode EVT2", "decode EVT3", "read arrays (HDF5)", "pack a window's events", "resize a picture"]
    engine = ["rgb tower", "event tower", "diff tower", "head", "streaming step", "clip"]
    assert [part.name for part in result.parts] == host + engine
    step = result.parts[-2]
    assert (step.model, step.backend, step.precision) == ("toy", "onnxruntime on the CPU", "fp32")
    assert (result.live, result.power, result.limits) == (None, None, [])


def test_comparing_fails_on_a_build_with_a_slowed_stage_and_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_toy_bundle(tmp_path / "toy.velora")
    old = measure_parts(str(tmp_path / "toy.velora"))
    as_it_was = OnnxRuntimeEngine.encode

    def slowed(self: OnnxRuntimeEngine, modality: str, *given: Any) -> None:
        time.sleep(0.03 if modality == "event" else 0)
        as_it_was(self, modality, *given)

    monkeypatch.setattr(OnnxRuntimeEngine, "encode", slowed)
    comparison = compare(measure_parts(str(tmp_path / "toy.velora")), old, 0.05)
    assert comparison.outcome == "FAIL"
    worst = [change.name.partition(",")[0] for change in comparison.changes[:2]]
    assert sorted(worst) == ["event tower", "streaming step"]


def test_arithmetic_is_counted_by_the_shapes_that_were_seen(tmp_path: Path) -> None:
    bundle = write_toy_bundle(tmp_path / "toy.velora")
    assert count_work(bundle, "rgb")[0] == TOWER_FLOP
    assert count_work(bundle, "head")[0] == HEAD_FLOP


def test_what_must_be_moved_is_weights_inputs_and_outputs(tmp_path: Path) -> None:
    bundle = write_toy_bundle(tmp_path / "toy.velora")
    weights, image, tokens = 4 * H * W * 3 * N * P, H * W * 3, 4 * N * P
    assert count_work(bundle, "rgb")[1] == pytest.approx(
        weights + image + tokens, abs=64
    )  # and small constants


def test_the_demo_models_arithmetic_is_that_of_its_layers() -> None:
    tokens, width, depth, ratio, patch = 65, 128, 4, 3, 8
    layer = 2 * tokens * width * width * (3 + 1 + 2 * ratio) + 2 * 2 * tokens * tokens * width
    embed = 2 * 64 * width * 3 * patch * patch
    assert count_work(open_bundle("demo"), "rgb")[0] == depth * layer + embed


@pytest.mark.parametrize(
    ("operator", "kinds"), [("MatMul", (FLOAT, FLOAT, FLOAT)), ("MatMulInteger", (UINT8, INT8, INT32))]
)
def test_the_product_written_by_hand_is_a_valid_model(operator: str, kinds: tuple[int, int, int]) -> None:
    model = onnx.load_from_string(matrix_product(operator, *kinds))
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node] == [operator]
    assert [d.dim_value for d in model.graph.output[0].type.tensor_type.shape.dim] == [SIDE, SIDE]


def test_shares_are_of_the_measured_rates(tmp_path: Path) -> None:
    bundle = write_toy_bundle(tmp_path / "toy.velora")
    facts: dict[str, Any] = {"n": 9, "p99_ms": 1.0, "rounds_ms": [1.0], "per_s": 1.0, "unit": "images"}
    parts = [
        Part(name="rgb tower", model="toy", backend="x on the CPU", precision="fp32", p50_ms=1.0, **facts),
        Part(name="rgb tower", model="toy", backend="x on CUDA", precision="fp32", p50_ms=1.0, **facts),
    ]
    roofline = measure_roofline([bundle], parts, threads=1)
    (share,) = roofline.shares
    assert share.gflops == pytest.approx(TOWER_FLOP / 1e6, abs=0.01)
    assert share.arithmetic == pytest.approx(TOWER_FLOP / 1e6 / roofline.gflops["fp32"], abs=1e-3)
    *others, last = roofline.why_none
    assert last == "engines on a GPU have no share here: only the processor's rates are measured"
    has_openvino = importlib.util.find_spec("openvino") is not None
    assert [text.partition(" was")[0] for text in others] == (
        [] if has_openvino else ["arithmetic by OpenVINO"]
    )


def test_a_copy_is_faster_than_nothing_and_slower_than_any_memory() -> None:
    assert 1e8 < copy_rate() < 2e12


def test_a_backend_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    write_toy_bundle(tmp_path / "toy.velora")
    options = BenchOptions(
        models=(str(tmp_path / "toy.velora"),), live=LiveSettings(backend="abacus"), what=frozenset({"parts"})
    )
    with pytest.raises(Exception, match="no backend is called 'abacus'"):
        Benchmark(options, note).run()
