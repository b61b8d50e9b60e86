"""Frames find their trigger edges, also where frames are missing."""

from __future__ import annotations

import numpy as np
import pytest

from velora_edge.preprocessing.triggers import match_triggers

PERIOD_US = 33_333


def regular(count: int, start_us: int = 7_000_000, period_us: int = PERIOD_US) -> np.ndarray:
    return start_us + np.arange(count, dtype=np.int64) * period_us


def jittered(count: int, seed: int) -> np.ndarray:
    return regular(count) + np.random.default_rng(seed).integers(-1500, 1500, count)


LOST = {
    "none": [],
    "first": [0],
    "first three": [0, 1, 2],
    "one in the middle": [20],
    "a run in the middle": [20, 21, 22, 23],
    "the last two": [58, 59],
    "everywhere": [0, 1, 7, 20, 21, 40, 59],
    "every other": list(range(1, 60, 2)),
}


@pytest.mark.parametrize("lost", LOST.values(), ids=LOST)
def test_frames_lost_anywhere_leave_the_others_with_their_edge(lost: list[int]) -> None:
    edges = regular(60)
    kept = np.delete(np.arange(60), lost)
    match = match_triggers(edges[kept] - edges[0], edges)
    assert (match.by, match.edge.tolist()) == ("spacing", kept.tolist())
    assert match.skew_us.tolist() == [0] * len(kept)


@pytest.mark.parametrize("lost", LOST.values(), ids=LOST)
def test_uneven_spacing_tells_the_start_even_if_the_frames_clock_starts_with_the_first_frame(
    lost: list[int],
) -> None:
    edges = jittered(60, seed=1)
    kept = np.delete(np.arange(60), lost)
    match = match_triggers(edges[kept] - edges[kept[0]], edges)
    assert (match.by, match.edge.tolist()) == ("spacing", kept.tolist())


def test_a_clock_that_drifts_by_100_ppm_is_followed_for_an_hour() -> None:
    edges = regular(108_000)
    frames = ((edges - edges[0]) * (1 + 100e-6)).astype(np.int64)
    match = match_triggers(frames, edges)
    assert match.edge.tolist() == list(range(108_000))
    assert np.abs(match.skew_us).max() <= 1


def test_skew_is_the_frames_own_jitter() -> None:
    edges = regular(8)
    jitter = np.array([0, 200, -200, 0, 0, -200, 200, 0])
    match = match_triggers(edges - edges[0] + jitter, edges)
    assert match.edge.tolist() == list(range(8))
    assert np.abs(match.skew_us - jitter).max() <= 1


def test_a_nominal_rate_that_is_not_the_triggers_is_matched_in_order() -> None:
    edges = regular(60)
    frames = regular(58, start_us=0, period_us=40_000)
    match = match_triggers(frames, edges)
    assert (match.by, match.edge.tolist()) == ("order", list(range(58)))


def test_frames_beyond_the_last_edge_have_none() -> None:
    match = match_triggers(regular(5, 0, 40_000), regular(3))
    assert (match.by, match.edge.tolist(), match.matched) == ("order", [0, 1, 2, -1, -1], 3)


def test_a_frame_without_an_edge_leaves_the_others_with_theirs() -> None:
    edges = np.delete(regular(40), 7)
    match = match_triggers(regular(40, 0), edges)
    assert (match.by, match.matched) == ("spacing", 39)
    assert match.edge.tolist() == [*range(7), -1, *range(7, 39)]


@pytest.mark.parametrize(("frames", "edges", "expected"), [(0, 3, []), (2, 0, [-1, -1]), (1, 3, [0])])
def test_too_few_to_tell_a_spacing_are_matched_in_order(frames: int, edges: int, expected: list[int]) -> None:
    match = match_triggers(regular(frames), regular(edges))
    assert (match.by, match.edge.tolist()) == ("order", expected)
