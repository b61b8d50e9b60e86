"""Verdicts: limits kept and broken, and machines that cannot be trusted."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from velora_runtime.bench.acceptance import Limits, judge
from velora_runtime.bench.figures import Power
from velora_runtime.bench.machine import describe, look
from velora_runtime.bench.result import Stretch

from tests.runtime.bench.results_by_hand import (
    DURING,
    MACHINE,
    ORIN_6,
    ORIN_7,
    STILL,
    THOR,
    locked,
    make_live,
    make_run,
    write,
)

if TYPE_CHECKING:
    from pathlib import Path

    from velora_runtime.bench.result import Verdict

LIMITS = Limits(max_p99_ms=25.0, max_miss_ratio=0.01, min_fps=29.0)


def judge_here(*runs: Any, limits: Limits = LIMITS, power: Power | None = None) -> Verdict:
    return judge(limits, make_live(*runs), power, MACHINE, STILL, DURING, STILL)


@pytest.fixture(autouse=True)
def _nvpmodel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program nvpmodel on the path, as a Jetson has it."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/nvpmodel").write_text("#!/bin/sh\necho 'NV Power Mode: MAXN'\necho 0\n")
    (tmp_path / "bin/nvpmodel").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")


def test_limits_that_every_run_keeps_are_passed() -> None:
    verdict = judge_here(make_run(20.0), make_run(24.0))
    assert verdict.outcome == "PASS"
    assert [(check.name, check.values) for check in verdict.checks] == [
        ("--max-p99-ms", [20.0, 24.0]),
        ("--max-miss-ratio", [0.0, 0.0]),
        ("--min-fps", [30.0, 30.0]),
    ]
    assert verdict.reasons == []


def test_a_limit_that_no_run_keeps_fails() -> None:
    assert judge_here(make_run(30.0), make_run(26.0)).outcome == "FAIL"


def test_too_few_decisions_a_second_fail() -> None:
    verdict = judge_here(make_run(decisions=250))
    assert verdict.outcome == "FAIL"
    assert verdict.checks[-1].values == [25.0]


def test_runs_that_disagree_are_inconclusive_and_longer_runs_mend_it() -> None:
    verdict = judge_here(make_run(20.0), make_run(30.0))
    assert verdict.outcome == "INCONCLUSIVE"
    assert verdict.reasons[0].text == "the runs disagree about --max-p99-ms"
    assert "--runs" in verdict.reasons[0].remedy


def test_energy_without_a_sensor_is_inconclusive_with_the_sensors_reason() -> None:
    power = Power(rails=[], mj_per_decision=None, total_mj_per_decision=None, why_none="no sensor of power")
    verdict = judge_here(make_run(), limits=Limits(max_mj=5.0), power=power)
    assert verdict.outcome == "INCONCLUSIVE"
    assert verdict.reasons[0].text == "--max-mj: no sensor of power"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"taken_cores": 0.2}, "run 1: the virtual machine's host took 0.20 cores away"),
        ({"others_cores": 1.5}, "run 1: other programs used 1.50 cores"),
        ({"cameras_late_ms": 400.0}, "run 1: the generated cameras were 400 ms late"),
    ],
)
def test_a_machine_that_was_not_its_own_is_inconclusive(changes: dict[str, float], text: str) -> None:
    verdict = judge_here(make_run(**changes))
    assert verdict.outcome == "INCONCLUSIVE"
    assert [reason.text for reason in verdict.reasons] == [text]


def test_parts_that_others_disturbed_are_inconclusive() -> None:
    busy = {"parts": Stretch(seconds=5.0, others_cores=1.0, taken_cores=0.0)}
    verdict = judge(LIMITS, make_live(make_run()), None, MACHINE, STILL, DURING, STILL, busy)
    assert [reason.text for reason in verdict.reasons] == ["parts: other programs used 1.00 cores"]


def test_cores_that_went_away_are_inconclusive() -> None:
    fewer = STILL.model_copy(update={"cores": 2})
    verdict = judge(LIMITS, make_live(make_run()), None, MACHINE, STILL, DURING, fewer)
    assert verdict.reasons[0].text == "there were 4 cores before and 2 after"


BOARDS = pytest.mark.parametrize(
    ("tree", "kind", "jetpack"), [(ORIN_6, "orin", "6"), (ORIN_7, "orin", "7"), (THOR, "thor", "7")]
)


@BOARDS
def test_unlocked_clocks_of_a_jetson_are_inconclusive_and_jetson_clocks_mends_it(
    tree: dict[str, str], kind: str, jetpack: str, tmp_path: Path
) -> None:
    root = write(tmp_path / "root", tree)
    machine, seen = describe(root), look(root)
    verdict = judge(LIMITS, make_live(make_run()), None, machine, seen, DURING, seen)
    assert (machine.jetpack, machine.power_mode) == (jetpack, "MAXN")
    assert verdict.outcome == "INCONCLUSIVE"
    assert verdict.reasons[0].text == "the clocks are not locked"
    assert "jetson_clocks" in verdict.reasons[0].remedy


@BOARDS
def test_locked_clocks_of_a_jetson_pass(
    tree: dict[str, str], kind: str, jetpack: str, tmp_path: Path
) -> None:
    root = write(tmp_path / "root", locked(tree, kind))
    seen = look(root)
    verdict = judge(LIMITS, make_live(make_run()), None, describe(root), seen, DURING, seen)
    assert (verdict.outcome, verdict.reasons) == ("PASS", [])


def test_a_memory_clock_that_may_move_unlocks_a_thor(tmp_path: Path) -> None:
    free = {**locked(THOR, "thor"), "sys/class/devfreq/bwmgr/min_freq": "665600000\n"}
    assert look(write(tmp_path / "root", free)).clocks_locked is False


def test_an_over_current_event_during_the_runs_is_throttling(tmp_path: Path) -> None:
    tree = locked(ORIN_6, "orin")
    before = look(write(tmp_path / "root", tree))
    after = look(write(tmp_path / "root", {**tree, "sys/class/hwmon/hwmon2/oc3_event_cnt": "5\n"}))
    verdict = judge(LIMITS, make_live(make_run()), None, MACHINE, before, DURING, after)
    assert verdict.outcome == "INCONCLUSIVE"
    assert verdict.reasons[0].text == "the device throttled: over-current oc3, 2 before, 5 during the runs"


def test_a_cooling_device_that_slowed_the_gpu_between_is_throttling(tmp_path: Path) -> None:
    seen = look(write(tmp_path / "root", locked(ORIN_6, "orin")))
    during = DURING.model_copy(update={"throttled": {"cooling devfreq-17000000.gpu": 2}})
    verdict = judge(LIMITS, make_live(make_run()), None, MACHINE, seen, during, seen)
    assert verdict.reasons[0].text.startswith(
        "the device throttled: cooling devfreq-17000000.gpu, 0 before, 2"
    )


def test_a_fan_that_turns_is_no_throttling(tmp_path: Path) -> None:
    assert look(write(tmp_path / "root", ORIN_6)).throttled == {
        "over-current oc1": 0,
        "over-current oc3": 2,
        "cooling devfreq-17000000.gpu": 0,
    }


def test_a_zone_that_is_off_has_no_temperature(tmp_path: Path) -> None:
    assert look(write(tmp_path / "root", ORIN_6)).temperatures_c == {"cpu-thermal": 48.5}


def test_a_gpu_whose_clock_moved_under_load_is_inconclusive() -> None:
    live = make_live(make_run()).model_copy(update={"engine": "TensorRT on NVIDIA"})
    machine = MACHINE.model_copy(update={"gpu": "NVIDIA"})
    during = DURING.model_copy(update={"clocks_mhz": {"nvml sm": (1200, 1980)}})
    verdict = judge(LIMITS, live, None, machine, STILL, during, STILL)
    assert verdict.reasons[0].remedy == "sudo nvidia-smi --lock-gpu-clocks=1980,1980"


@pytest.mark.parametrize(("governor", "is_locked"), [("performance", True), ("powersave", False)])
def test_a_pc_is_locked_by_its_governor(governor: str, is_locked: bool, tmp_path: Path) -> None:
    policy = "sys/devices/system/cpu/cpufreq/policy0/scaling_governor"
    assert look(write(tmp_path / "root", {policy: f"{governor}\n"})).clocks_locked is is_locked
