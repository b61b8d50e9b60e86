"""Predictions of two machines for one recording: whether labels, events and scores are the same.

    python tests/aarch64/compare.py HERE.jsonl THERE.jsonl

Needs nothing but Python. Exit code 1 where they differ.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

TOLERANCE = 0.02
"""Of a score: two processors round in another order."""
SAME = ("seq", "t_us", "label", "events", "skew_us", "dropped", "missing")
"""What is the same to the last digit; latencies are not."""


def read(path: Path) -> list[dict[str, Any]]:
    """The predictions of a file of `--out`, without lines of another type."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if "type" not in line]


def differences(here: list[dict[str, Any]], there: list[dict[str, Any]]) -> list[str]:
    """What differs, a line each; empty where nothing does."""
    if len(here) != len(there) or not here:
        return [f"{len(here)} predictions here, {len(there)} there"]
    found = []
    for one, other in zip(here, there, strict=True):
        where = f"prediction {one.get('seq')}"
        found += [
            f"{where}: {key} is {one.get(key)} here, {other.get(key)} there"
            for key in SAME
            if one.get(key) != other.get(key)
        ]
        scores, others = dict(one["top"]), dict(other["top"])
        found += [
            f"{where}: the score of {label} is {scores[label]} here, {others.get(label)} there"
            for label in scores
            if label in others and abs(scores[label] - others[label]) > TOLERANCE
        ]
        if abs(one["score"] - other["score"]) > TOLERANCE:
            found.append(f"{where}: the score is {one['score']} here, {other['score']} there")
    return found


def largest_distance(here: list[dict[str, Any]], there: list[dict[str, Any]]) -> float:
    """The largest distance of two scores of the best label."""
    return max(abs(one["score"] - other["score"]) for one, other in zip(here, there, strict=True))


def main(here: str, there: str) -> int:
    """Compare two files; the exit code."""
    mine, theirs = read(Path(here)), read(Path(there))
    found = differences(mine, theirs)
    for line in found[:20]:
        print(line)
    if found:
        print(f"{len(found)} differences in {len(mine)} predictions")
        return 1
    events = sum(line["events"] for line in mine)
    farthest = largest_distance(mine, theirs)
    print(f"{len(mine)} predictions, {events} events: same labels, same events, scores to {farthest:.1e}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
