"""The GPU check: plan and deadline by a fake clock, rows of failures, a run up to the first CUDA call."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from networks import SHALLOW, tiny_config

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import ModuleType

FOLDER = Path(__file__).parents[2] / "benchmarks"
MODELS, PRECISIONS = ("demo", "vit-s", "vit-b"), ("fp32", "fp16", "bf16", "int8", "fp8")


@pytest.fixture
def plan() -> ModuleType:
    return importlib.import_module("gpu_plan")


@pytest.fixture
def check() -> ModuleType:
    return importlib.import_module("gpu_check")


@pytest.fixture
def report() -> ModuleType:
    return importlib.import_module("gpu_report")


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def launcher(plan: ModuleType, clock: Clock, seconds: float, ends: dict[str, list[Any]]) -> Any:
    """Every part takes so many seconds and gives one row; `ends` holds how parts end, attempt by attempt."""
    launched: list[tuple[str, tuple[str, ...]]] = []

    def launch(part: Any, skipped: Sequence[str], limit_s: float) -> Iterator[Any]:
        launched.append((part.name, tuple(skipped)))
        clock.now += min(seconds, limit_s)
        yield {"row": plan.Row(part.model, part.precision, "torch", "step", p50_ms=1.0).as_dict()}
        yield from ends.get(part.name, []) and [ends[part.name].pop(0)]

    launch.launched = launched  # type: ignore[attr-defined]
    return launch


def test_the_most_valuable_parts_come_first_and_every_combination_is_there(plan: ModuleType) -> None:
    parts = plan.plan(MODELS, PRECISIONS)
    names = [part.name for part in parts]
    assert names[:7] == [
        "card",
        "demo fp16",
        "vit-s fp16",
        "vit-s int8",
        "demo int8",
        "vit-b fp16",
        "vit-b int8",
    ]
    compared = {(part.model, part.precision) for part in parts if part.kind == "backends"}
    assert compared == {(model, precision) for model in MODELS for precision in PRECISIONS}
    assert len(names) == len(set(names))


def test_parts_after_the_deadline_are_rows_that_say_so(plan: ModuleType) -> None:
    clock = Clock()
    launch = launcher(plan, clock, 40.0, {})
    parts = plan.plan(("demo",), ("fp16", "int8", "fp32", "bf16"))
    found = list(plan.run_parts(parts, launch, plan.Deadline(plan.TESTS_S + 90, clock)))
    assert launch.launched == [("card", ()), ("demo fp16", ()), ("demo int8", ())]
    assert [message["row"]["reason"] for message in found[-2:]] == [plan.NOT_REACHED] * 2
    assert [message["done"] for message in found if "done" in message] == ["card", "demo fp16", "demo int8"]
    assert clock.now == 90.0  # the last was given the 10 s that were left


def test_a_part_that_dies_is_run_again_without_the_backend_that_it_died_in(plan: ModuleType) -> None:
    clock = Clock()
    ends = {
        "demo fp16": [plan.Outcome("the process ended with -11: no words", "tensorrt-rtx"), plan.Outcome()]
    }
    launch = launcher(plan, clock, 1.0, ends)
    found = list(plan.run_parts([plan.Part("demo", "fp16")], launch, plan.Deadline(360, clock)))
    assert launch.launched == [("demo fp16", ()), ("demo fp16", ("tensorrt-rtx",))]
    failed = [message["row"] for message in found if message.get("row", {}).get("reason")]
    assert [(row["backend"], row["reason"]) for row in failed] == [
        ("tensorrt-rtx", "the process ended with -11: no words")
    ]


def test_a_part_that_dies_nobody_knows_where_is_not_run_again(plan: ModuleType) -> None:
    launch = launcher(plan, Clock(), 1.0, {"demo fp16": [plan.Outcome("killed")]})
    found = list(plan.run_parts([plan.Part("demo", "fp16")], launch, plan.Deadline(360, Clock())))
    assert launch.launched == [("demo fp16", ())]
    assert [m["row"]["backend"] for m in found if m.get("row", {}).get("reason")] == ["backends"]


def test_parts_that_an_earlier_run_has_done_are_passed_over(plan: ModuleType) -> None:
    launch = launcher(plan, Clock(), 1.0, {})
    parts = plan.plan(("demo",), ("fp16", "int8"))
    list(plan.run_parts(parts, launch, plan.Deadline(360, Clock()), ["card", "demo fp16"]))
    assert launch.launched == [("demo int8", ())]


def test_results_go_on_where_a_run_that_was_stopped_left_off(check: ModuleType, tmp_path: Path) -> None:
    first = check.Results(tmp_path / "gpu.jsonl", resume=False)
    for message in ({"facts": {"gpu": "a card"}}, {"row": {"model": "demo"}}, {"done": "demo fp16"}):
        first.add(message)
    again = check.Results(tmp_path / "gpu.jsonl", resume=True)
    assert (again.facts, again.rows, again.done) == ({"gpu": "a card"}, [{"model": "demo"}], ["demo fp16"])
    anew = check.Results(tmp_path / "gpu.jsonl", resume=False)
    assert (anew.facts, anew.rows, anew.done) == ({}, [], [])


def test_of_two_rows_about_the_same_the_later_one_counts(plan: ModuleType, report: ModuleType) -> None:
    rows = [plan.Row("demo", "fp16", "torch", "step", True, p50_ms=ms).as_dict() for ms in (1.0, 2.0)]
    other = plan.Row("demo", "fp16", "torch", "clip", True).as_dict()
    assert report.merge_rows([rows[0], other, rows[1]]) == [rows[1], other]


def test_a_row_shows_its_figures_and_a_failure_its_reason(plan: ModuleType, report: ModuleType) -> None:
    measured = plan.Row(
        "vit-s", "int8", "tensorrt-rtx", "step", True, 1.234, 2.0, 300, 0.05, 0.25, 0.01, True
    )
    measured.layers = "products 48 int8"
    failed = plan.Row("vit-s", "int8", "torch", reason="torch has no int8 | of the layers")
    lines = report.table([measured.as_dict(), failed.as_dict()]).splitlines()
    assert lines[2:] == [
        "| vit-s | int8 | tensorrt-rtx | step | yes | 1.23 | 2.00 | 300 | 0.05 | 25.0% | 1.0e-02 | yes "
        "| products 48 int8 |",
        "| vit-s | int8 | torch |  |  |  |  |  |  |  |  |  | torch has no int8 / of the layers |",
    ]
    assert {line.count("|") for line in lines} == {14}


def test_the_page_names_card_driver_and_versions_and_json_lies_beside_it(
    report: ModuleType, tmp_path: Path
) -> None:
    facts = {
        "gpu": "NVIDIA H100",
        "compute_capability": "9.0",
        "memory_gb": 85.0,
        "driver": "580.1",
        "cuda_driver": "13.0",
        "cpu": "a CPU",
        "bf16_rate": 7.0e14,
        "date": "2026-11-28",
        "libraries": {"torch": "2.15.0"},
    }
    report.write(tmp_path / "made" / "gpu.md", facts, [], "1 passed", "make gpu-check")
    page = (tmp_path / "made" / "gpu.md").read_text().split("\n\n")
    assert page[1] == (
        "`make gpu-check` wrote this page. NVIDIA H100, compute capability 9.0, 85.0 GB, driver 580.1 "
        "(CUDA 13.0), a CPU; 700 TFLOP/s in a product of bf16 matrices; torch 2.15.0; 2026-11-28."
    )
    assert page[-1] == "`pytest -m gpu`: 1 passed\n"
    said = json.loads((tmp_path / "made" / "gpu.json").read_text())
    assert said == {"facts": facts, "rows": [], "tests": "1 passed"}


def test_a_process_that_is_late_or_dies_says_so(
    check: ModuleType, plan: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gpu_part.py").write_text(
        "import os, sys, time\n"
        "print('a library speaks')\n"
        'print(\'{"at": "torch"}\', flush=True)\n'
        "print('out of memory', file=sys.stderr, flush=True)\n"
        "time.sleep(60) if '--fake' in sys.argv else os._exit(3)\n"
    )
    monkeypatch.setattr(check, "HERE", tmp_path)
    run = check.Processes(tmp_path, tmp_path / "log")
    late = check.Processes(tmp_path, tmp_path / "log", fake=True)
    assert list(run(plan.CARD, [], 60)) == [
        plan.Outcome("the process ended with 3: out of memory", "torch"),
    ]
    assert list(late(plan.CARD, [], 1.0)) == [
        plan.Outcome("stopped after 1 s, the most that it was given", "torch"),
    ]


def test_without_a_gpu_one_line_is_said_and_nothing_is_written(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("velora_edge.gpu.cuda.GPU_FILES", ())
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--out", str(tmp_path / "results" / "gpu.md")])
    assert check.main() == 1
    assert capsys.readouterr() == ("", "gpu-check needs an NVIDIA GPU: there is no NVIDIA GPU\n")
    assert list(tmp_path.iterdir()) == []


def test_a_fake_run_must_not_write_where_a_card_s_figures_lie(
    check: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        check.parse_arguments(["--fake"])
    assert "--fake needs --out" in capsys.readouterr().err


@pytest.mark.slow
def test_a_prepared_run_goes_up_to_the_first_cuda_call_and_tells_each_refusal(tmp_path: Path) -> None:
    """The real command, the real cuda-python, which says that there is no GPU; nothing is measured."""
    pytest.importorskip("cuda.bindings.runtime", reason="needs cuda-python: pip install -e '.[rtx]'")
    reason = importlib.import_module("velora_edge.gpu.cuda").why_no_cuda()
    if reason is None:
        pytest.skip("needs a machine without a GPU")
    prepare = importlib.import_module("gpu_prepare").prepare
    config = tiny_config(backbone=SHALLOW)
    prepare(tmp_path / "graphs", "vit-s", ["fp16"], config=config, engines=False, say=lambda line: None)
    given = ("--graphs", tmp_path / "graphs", "--models", "vit-s", "--precisions", "fp16")
    out = tmp_path / "results" / "gpu.md"
    command = [sys.executable, FOLDER / "gpu_check.py", *given, "--fake", "--out", out, "--minutes", "4"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(out.with_suffix(".json").read_text())
    reasons = {(row["precision"], row["backend"]): row["reason"] for row in said["rows"]}
    assert list(reasons) == [
        ("", "card"),
        *(
            ("fp16", name)
            for name in ("tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "torch", "torch.compile")
        ),
    ]
    for backend in ("tensorrt", "tensorrt-rtx"):
        assert reasons["fp16", backend].startswith("CUDA finds no GPU: ")
    assert "CUDA" in reasons["fp16", "onnxruntime-cuda"]
    assert "NVIDIA" in reasons["fp16", "torch"] or "CUDA" in reasons["fp16", "torch"]
    assert {row["p50_ms"] for row in said["rows"]} == {None}
