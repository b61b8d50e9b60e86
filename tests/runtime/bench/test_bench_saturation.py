"""The search for the highest rate, and the stage that it names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from velora_runtime.bench.live import LiveSettings
from velora_runtime.bench.meters import Load
from velora_runtime.bench.saturation import Attempt, judge_run, search

from tests.runtime.bench.measured_by_hand import make_measured

if TYPE_CHECKING:
    from collections.abc import Callable

SETTINGS = LiveSettings(fps=30.0)


def limited(highest: float, tried: list[float] | None = None) -> Callable[[float], Attempt]:
    """A pipeline that keeps up to a rate and no further."""

    def attempt(rate: float) -> Attempt:
        if tried is not None:
            tried.append(rate)
        return Attempt() if rate <= highest else Attempt("9 rgb dropped", "inference", "busy")

    return attempt


@pytest.mark.parametrize("highest", [7.0, 30.0, 101.0, 1234.0])
def test_the_highest_rate_is_found_to_six_percent(highest: float) -> None:
    limit = search("fps", 30.0, 5e6, limited(highest), lambda line: None)
    assert limit.highest is not None
    assert limit.lowest_failing is not None
    assert highest / 1.06 <= limit.highest <= highest < limit.lowest_failing
    assert (limit.stage, limit.because) == ("inference", "busy")


def test_a_rate_that_nothing_reaches_is_told_without_a_stage() -> None:
    limit = search("fps", 30.0, 5e6, limited(1e9), lambda line: None)
    assert (limit.highest, limit.lowest_failing, limit.stage) == (1920.0, None, None)


def test_a_pipeline_that_keeps_up_with_nothing_has_no_highest_rate() -> None:
    limit = search("fps", 32.0, 5e6, limited(0.5), lambda line: None)
    assert (limit.highest, limit.lowest_failing, limit.stage) == (None, 1.0, "inference")


def test_a_hiccup_is_tried_again_and_is_no_limit() -> None:
    said = iter([Attempt(), Attempt("1 rgb dropped", "pack", "busy"), Attempt()])
    limit = search("fps", 1000.0, 0.0, lambda rate: next(said), lambda line: None)
    assert [(probe.rate, probe.fits) for probe in limit.probes] == [(1000.0, True), (2000.0, True)]


def test_the_busiest_load_of_others_is_kept() -> None:
    loads = iter([Load({}, 0.1, 0.0), Load({}, 0.7, 0.2)])
    limit = search("fps", 1000.0, 0.0, lambda rate: Attempt(load=next(loads)), lambda line: None)
    assert (limit.others_cores, limit.taken_cores) == (0.7, 0.2)


def test_a_run_that_lost_nothing_fits() -> None:
    assert judge_run(make_measured(), SETTINGS).why is None


@pytest.mark.parametrize(
    ("facts", "stage"),
    [
        ({"pairs_dropped": 5, "rgb_dropped": 5}, "inference (most of it the head, 75 %)"),
        ({"rgb_dropped": 5}, "pack"),
        ({"rgb_dropped": 5, "overrun": 5}, "pictures: resize"),
        ({"events_dropped": 5}, "pack"),
    ],
)
def test_the_stage_is_the_one_that_takes_from_the_queue_that_was_full(
    facts: dict[str, int], stage: str
) -> None:
    said = judge_run(make_measured(dropped={"rgb": 5}, **facts), SETTINGS)  # type: ignore[arg-type]
    assert said.why == "5 rgb dropped"
    assert said.stage == stage


def test_cameras_that_are_held_up_name_the_busier_receiver() -> None:
    threads = {"camera tcp://a:1": 3.9, "camera http://a:2/": 1.0, "pack": 0.1}
    said = judge_run(make_measured(held_ms=300.0, threads=threads), SETTINGS)
    assert (said.why, said.stage) == ("the cameras were held up by 300 ms", "events: receive and scan")
    assert said.because is not None
    assert "events: receive and scan 98 %" in said.because


def test_cameras_that_are_late_by_themselves_are_the_limit() -> None:
    said = judge_run(make_measured(late_ms=300.0), SETTINGS)
    assert (said.why, said.stage) == ("the cameras were 300 ms late", "the generated cameras")


def test_latency_that_grows_does_not_fit_and_names_the_busiest_stage() -> None:
    growing = [10.0 + k for k in range(120)]
    said = judge_run(make_measured(latencies_ms=growing, engine_ms=33.0), SETTINGS)
    assert said.why == "latency grew from 24 to 114 ms"
    assert said.stage == "inference (most of it the head, 75 %)"


def test_too_few_decisions_do_not_fit() -> None:
    few: dict[str, Any] = {"latencies_ms": [10.0] * 90}
    assert judge_run(make_measured(**few), SETTINGS).why == "90 decisions of 120"
