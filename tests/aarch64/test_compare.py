"""The comparison of two machines' predictions finds what differs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.aarch64.compare import differences, main

if TYPE_CHECKING:
    from pathlib import Path


def line(**changes: Any) -> dict[str, Any]:
    plain = {"v": 1, "seq": 0, "t_us": 40_000, "label": "red-left", "score": 0.9, "events": 120}
    return {**plain, "top": [["red-left", 0.9], ["red-up", 0.1]], "latency_ms": {"total": 3.0}, **changes}


def test_latencies_and_the_last_digits_of_scores_may_differ() -> None:
    other = line(score=0.915, top=[["red-left", 0.915], ["blue-up", 0.1]], latency_ms={"total": 900.0})
    assert differences([line()], [other]) == []


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ([], ["1 predictions here, 0 there"]),
        ([line(label="red-up")], ["prediction 0: label is red-left here, red-up there"]),
        ([line(events=119)], ["prediction 0: events is 120 here, 119 there"]),
        ([line(score=0.95)], ["prediction 0: the score is 0.9 here, 0.95 there"]),
        (
            [line(top=[["red-left", 0.9], ["red-up", 0.13]])],
            ["prediction 0: the score of red-up is 0.1 here, 0.13 there"],
        ),
    ],
)
def test_what_differs_is_named(there: list[dict[str, Any]], expected: list[str]) -> None:
    assert differences([line()], there) == expected


def test_two_empty_files_are_no_agreement() -> None:
    assert differences([], []) == ["0 predictions here, 0 there"]


def test_the_command_says_how_much_it_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = []
    for name, other in (("here", line()), ("there", line(score=0.89))):
        paths.append(tmp_path / name)
        paths[-1].write_text("\n".join(json.dumps(it) for it in ({"type": "state"}, other)))
    assert main(str(paths[0]), str(paths[1])) == 0
    said = capsys.readouterr().out
    assert said == "1 predictions, 120 events: same labels, same events, scores to 1.0e-02\n"
    paths[1].write_text(json.dumps(line(label="red-up", events=1)))
    assert main(str(paths[0]), str(paths[1])) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "2 differences in 1 predictions"
