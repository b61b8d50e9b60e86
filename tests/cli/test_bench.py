"""`velora bench` as a user calls it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from toy_bundle import write_toy_bundle
from velora_runtime.bench.result import read_result

from velora_cli.main import velora
from velora_edge.console import run

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("onnxruntime", reason="an engine to measure: the extra cpu")


def bench(monkeypatch: pytest.MonkeyPatch, *given: str) -> int:
    monkeypatch.setattr(sys, "argv", ["velora", "bench", *given])
    return run(velora, ["bench", *given], name="velora")


def test_parts_alone_give_a_file_that_says_how_it_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = tmp_path / "toy.velora", tmp_path / "out.json"
    write_toy_bundle(model)
    given = (str(model), "--quick", "--only", "parts", "--backend", "onnxruntime", "--seconds", "1")
    assert bench(monkeypatch, *given, "--json", str(out)) in (0, 3)  # 3 where others use this machine
    result = read_result(out)
    assert result.reproduce == f"velora bench {' '.join(given)} --json {out}"
    assert json.loads(out.read_text())["v"] == 1
    assert [(one.name, one.precision, one.trained) for one in result.models] == [("toy", "fp32", False)]
    text = capsys.readouterr().out
    assert "streaming step, toy, onnxruntime on the CPU, fp32" in text
    assert "verdict: " in text


def test_the_file_is_written_though_nobody_reads_the_lines(tmp_path: Path) -> None:
    write_toy_bundle(tmp_path / "toy.velora")
    given = ["toy.velora", "--quick", "--only", "parts", "--backend", "onnxruntime", "--seconds", "1"]
    command = [sys.executable, "-m", "velora_cli.main", "bench", *given, "--json", "out.json"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.close()
    assert child.returncode in (0, 3)  # 3 where others use this machine
    assert read_result(tmp_path / "out.json").models[0].name == "toy"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--event-rate", "fast"), "expected events a second, such as 500k or 10M, got 'fast'"),
        (("--max-regression", "some"), "expected a share such as 5% or 0.05, got 'some'"),
        (("--size", "big"), "expected WIDTHxHEIGHT in pixels, such as 640x480, got 'big'"),
        (
            ("--only", "parts,luck"),
            "--only: expected some of parts, live, power, roofline, saturation, sweep",
        ),
        (("--rgb", "none", "--event-rate", "0"), "no camera is left"),
        (("--compare", "no-such.json"), "no-such.json: cannot be read"),
        (("no-such.velora",), "no such model"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_measured(
    given: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(monkeypatch, *given) == 2
    assert said in capsys.readouterr().err


def test_help_has_examples_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(velora, ["bench", "--help"], name="velora") == 0
    text = capsys.readouterr().out
    assert "velora bench demo --quick --json bench.json --plot bench/" in text
    assert "3 INCONCLUSIVE" in text


@pytest.mark.slow
def test_the_demo_is_measured_quickly_with_verdict_json_and_plots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="draws: the extra plot")
    out, page = tmp_path / "out.json", tmp_path / "page"
    given = ("demo", "--quick", "--json", str(out), "--plot", str(page), "--max-p99-ms", "5000")
    code = bench(monkeypatch, *given)
    result = read_result(out)
    assert code == {"PASS": 0, "INCONCLUSIVE": 3}[result.verdict.outcome]
    assert result.live is not None
    assert [run.due > 0 and run.exposure_ms is not None for run in result.live.runs] == [True, True]
    assert [check.name for check in result.verdict.checks] == ["--max-p99-ms"]
    assert (page / "index.html").is_file()
    assert (page / "latency.png").is_file()
    assert result.seconds < 60 or result.verdict.reasons  # others use this machine
    assert "verdict: " in capsys.readouterr().out
