"""Results as files, and beside one another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from velora_runtime.bench.acceptance import compare
from velora_runtime.bench.figures import Latency
from velora_runtime.bench.report import exit_code
from velora_runtime.bench.result import Reason, Verdict, json_schema, read_result, write_result

from tests.runtime.bench.results_by_hand import MACHINE, make_live, make_part, make_result, make_run
from velora_edge.errors import InputError

PUBLISHED = Path(__file__).parents[3] / "docs" / "bench.schema.json"
OLD = make_result(parts=[make_part("pack", 1.0, 1.02, 0.98), make_part("head", 5.0, 5.1, 4.9)])


def test_the_published_schema_is_that_of_the_code() -> None:
    """After a change: python -m velora_runtime.bench.result > docs/bench.schema.json."""
    assert json.loads(PUBLISHED.read_text()) == json_schema()


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    result = make_result(parts=[make_part("pack", 1.0)], live=make_live(make_run()))
    write_result(result, tmp_path / "sub" / "new.json")
    assert read_result(tmp_path / "sub" / "new.json") == result


def test_a_result_of_another_version_is_refused_with_both_versions(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({**OLD.model_dump(mode="json"), "v": 7}))
    with pytest.raises(InputError, match="with v 1, got 7; measure again"):
        read_result(tmp_path / "a.json")


def test_a_result_with_a_wrong_field_names_the_field(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({**OLD.model_dump(mode="json"), "seconds": "long"}))
    with pytest.raises(InputError, match="seconds"):
        read_result(tmp_path / "a.json")


def test_what_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("fast")
    with pytest.raises(InputError, match="cannot be read"):
        read_result(tmp_path / "a.json")


def test_a_part_that_is_slower_than_noise_and_allowance_fails() -> None:
    new = make_result(parts=[make_part("pack", 1.0, 1.01, 0.99), make_part("head", 6.0, 6.1, 5.9)])
    comparison = compare(new, OLD, 0.05)
    assert comparison.outcome == "FAIL"
    assert [(change.name, change.outcome) for change in comparison.changes] == [
        ("head", "FAIL"),
        ("pack", "PASS"),
    ]
    assert comparison.changes[0].change == 0.2


def test_the_same_figures_pass() -> None:
    assert compare(OLD, OLD, 0.05).outcome == "PASS"


def test_rounds_that_differ_by_more_than_is_asked_about_are_inconclusive() -> None:
    new = make_result(parts=[make_part("pack", 1.0, 1.4, 0.9), make_part("head", 5.0)])
    comparison = compare(new, OLD, 0.05)
    assert comparison.outcome == "INCONCLUSIVE"
    assert comparison.changes[0].noise == 0.5


def test_what_is_faster_passes_however_noisy() -> None:
    new = make_result(parts=[make_part("pack", 0.5, 0.9, 0.3), make_part("head", 5.0)])
    assert compare(new, OLD, 0.05).outcome == "PASS"


def test_fewer_decisions_a_second_fail() -> None:
    old, new = (
        make_result(live=make_live(*(make_run(decisions=n) for n in counts)))
        for counts in ((300, 301), (200, 201))
    )
    failed = [change.name for change in compare(new, old, 0.05).changes if change.outcome == "FAIL"]
    assert [name.rpartition(": ")[2] for name in failed] == ["decisions/s"]


def test_another_machine_is_inconclusive() -> None:
    new = OLD.model_copy(update={"machine": MACHINE.model_copy(update={"cores": 2})})
    comparison = compare(new, OLD, 0.05)
    assert comparison.outcome == "INCONCLUSIVE"
    assert comparison.reasons[0].text == "another machine: cores was 4, is 2"


def test_a_figure_that_was_not_measured_again_is_inconclusive() -> None:
    comparison = compare(make_result(parts=[make_part("head", 5.0)]), OLD, 0.05)
    assert (comparison.outcome, comparison.missing) == ("INCONCLUSIVE", ["pack"])


UNSTILL = Verdict(
    outcome="INCONCLUSIVE",
    checks=[],
    reasons=[Reason(text="other programs used 1.00 cores", remedy="end them")],
)
THREE = ("pack", "head", "clip")


def test_nothing_passes_on_a_machine_that_was_not_still() -> None:
    comparison = compare(OLD.model_copy(update={"verdict": UNSTILL}), OLD, 0.05)
    assert comparison.outcome == "INCONCLUSIVE"
    assert comparison.reasons[0].text == "this result: other programs used 1.00 cores"


def test_what_slows_all_alike_on_such_a_machine_is_inconclusive() -> None:
    old = make_result(parts=[make_part(name, 1.0) for name in THREE])
    new = make_result(parts=[make_part(name, 2.0) for name in THREE], verdict=UNSTILL)
    assert compare(new, old, 0.05).outcome == "INCONCLUSIVE"


def test_a_stage_that_stands_out_on_such_a_machine_fails() -> None:
    old = make_result(parts=[make_part(name, 1.0) for name in THREE])
    new = make_result(
        parts=[make_part("pack", 1.2), make_part("clip", 1.2), make_part("head", 9.0)], verdict=UNSTILL
    )
    comparison = compare(new, old, 0.05)
    assert comparison.outcome == "FAIL"
    assert comparison.changes[0].name == "head"


@pytest.mark.parametrize(
    ("verdict", "compared", "code"),
    [
        ("PASS", None, 0),
        ("FAIL", None, 1),
        ("INCONCLUSIVE", None, 3),
        ("INCONCLUSIVE", "FAIL", 1),
        ("PASS", "INCONCLUSIVE", 3),
    ],
)
def test_the_exit_code_is_that_of_the_worst(verdict: str, compared: str | None, code: int) -> None:
    comparison = (
        None if compared is None else compare(OLD, OLD, 0.05).model_copy(update={"outcome": compared})
    )
    result = make_result(verdict=Verdict(outcome=verdict, checks=[], reasons=[]))  # type: ignore[arg-type]
    assert exit_code(result.model_copy(update={"comparison": comparison})) == code


def test_percentiles_are_times_that_were_measured() -> None:
    latency = Latency.of([1.0, 2.0, 3.0, 10.0])
    assert latency == Latency(
        n=4, mean=4.0, p50=3.0, p90=10.0, p95=10.0, p99=10.0, p999=10.0, max=10.0, jitter=3.0
    )
    assert Latency.of([]) is None
