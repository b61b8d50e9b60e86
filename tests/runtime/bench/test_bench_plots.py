"""Plots and pages of a result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from velora_runtime.bench.figures import Limit, Probe, Roofline, Share, Stage
from velora_runtime.bench.plots import write_page
from velora_runtime.bench.report import board_name, boards_page, lines, write_board
from velora_runtime.bench.result import Model

from tests.runtime.bench.results_by_hand import MACHINE, make_live, make_part, make_result, make_run
from velora_edge.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from pathlib import Path


def make_model(name: str = "demo", **changes: Any) -> Model:
    facts: dict[str, Any] = {
        "name": name,
        "path": name,
        "precision": "fp32",
        "architecture": "vit",
        "trained": True,
        "megabytes": 7.0,
        "clip_length": 8,
        "stride": 1,
        "image_size": (64, 64),
        "sha256": "0" * 64,
    }
    return Model(**{**facts, **changes})


def make_whole() -> Any:
    stage = Stage(name="head", side="engine", wall_ms=2.0, cpu_ms=1.0, busy=0.1)
    probes = [Probe(rate=30.0, fits=True, why=None), Probe(rate=60.0, fits=False, why="1 rgb dropped")]
    limit = Limit(
        of="fps",
        highest=30.0,
        lowest_failing=60.0,
        stage="pack",
        because="busy",
        other_rate=5e6,
        probes=probes,
    )
    share = Share(
        part="rgb",
        model="demo",
        backend="x on the CPU",
        precision="fp32",
        gflop=0.1,
        megabytes=2.0,
        gflops=50.0,
        gigabytes_s=1.0,
        arithmetic=0.2,
        memory=0.1,
        bound="arithmetic",
    )
    steps = [
        make_part("streaming step", 5.0).model_copy(
            update={"model": name, "backend": "x", "precision": "fp32"}
        )
        for name in ("demo", "big")
    ]
    sweep = [
        {"at": 10.0, "p50_ms": 5.0, "p99_ms": 9.0, "cores": 0.4},
        {"at": 30.0, "p50_ms": 6.0, "p99_ms": 9.0},
    ]
    return make_result(
        reproduce="velora bench '<b>'",
        models=[make_model(), make_model("big", megabytes=80.0, clip_length=16, stride=2)],
        parts=[make_part("pack", 1.0), *steps],
        live=make_live(make_run()).model_copy(update={"stages": [stage]}),
        limits=[limit],
        roofline=Roofline(gflops={"fp32": 250.0}, gigabytes_s=10.0, shares=[share], why_none=[]),
        sweeps={"fps": sweep, "event_rate_hz": sweep},
    )


def test_a_page_shows_a_plot_of_everything_that_was_measured(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="draws: the extra plot")
    page = write_page(make_whole(), tmp_path / "page").read_text()
    drawn = sorted(path.stem for path in (tmp_path / "page").glob("*.png"))
    assert drawn == [
        *("cost_against_clip_length", "cost_against_event_rate_hz", "cost_against_fps"),
        *(
            "cost_against_megabytes",
            "cost_against_stride",
            "latency",
            "parts",
            "roofline",
            "saturation",
            "stages",
        ),
    ]
    assert all(f'<img src="{name}.png"' in page for name in drawn)
    assert all((tmp_path / "page" / f"{name}.png").read_bytes().startswith(b"\x89PNG") for name in drawn)


def test_a_page_has_no_plot_of_what_was_not_measured_and_its_text_is_no_markup(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="draws: the extra plot")
    page = write_page(make_result(reproduce="velora bench '<b>'"), tmp_path).read_text()
    assert list(tmp_path.glob("*.png")) == []
    assert "<b>" not in page
    assert "&lt;b&gt;" in page


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"--plot needs matplotlib: pip install .*\[plot\]"):
        write_page(make_whole(), tmp_path)


def test_the_text_names_limits_shares_and_the_stage_that_gives_way() -> None:
    text = "\n".join(lines(make_whole()))
    assert "highest frames/s: 30; at 60 pack gives way (busy)" in text
    assert "rgb, demo, x on the CPU, fp32" in text
    heads = "fps                 p50_ms    p99_ms     cores    missed   dropped"
    assert f"{heads}\n10                       5         9       0.4" in text
    assert "20 % of the arithmetic, 10 % of the memory rate" in text
    assert text.endswith("verdict: PASS (no limit was asked about: this is about the machine alone)")


def test_a_boards_result_is_a_file_named_after_it_and_a_row_of_the_page(tmp_path: Path) -> None:
    machine = MACHINE.model_copy(update={"board": "Jetson AGX Orin", "power_mode": "MAXN", "jetpack": "6"})
    result = make_whole().model_copy(update={"machine": machine})
    assert board_name(result) == "jetson-agx-orin-maxn-demo-fp32"
    assert write_board(result, tmp_path) == tmp_path / "jetson-agx-orin-maxn-demo-fp32.json"
    row = (
        "| Jetson AGX Orin | 6, MAXN | demo, fp32 | fake on the CPU | 30, 5 | 10.0 / 20.0 | 0 of 300 "
        "| - | 30 | PASS |"
    )
    assert row in boards_page(tmp_path)


def test_a_quick_result_is_not_submitted(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="without --quick"):
        write_board(make_whole().model_copy(update={"quick": True}), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_page_of_no_boards_says_so(tmp_path: Path) -> None:
    assert "No board has been measured yet." in boards_page(tmp_path)
