"""The rings' bookkeeping, by whole buffers."""

from __future__ import annotations

import numpy as np
import pytest
from velora_runtime.engines.ring import ClipRing, Entry, Slot, TokenMemory


def entered(ring: ClipRing, pairs: str) -> list[Entry]:
    """Enter pairs: b both cameras, r RGB alone, e events alone."""
    return [ring.enter(rgb=kind in "br", event=kind in "be") for kind in pairs]


def test_newest_pair_takes_the_oldest_slot() -> None:
    entries = entered(ClipRing(3), "bbbbb")
    assert [e.slot.pair for e in entries] == [0, 1, 2, 0, 1]


def test_differences_have_one_slot_less_and_the_same_turn() -> None:
    entries = entered(ClipRing(3), "bbbbb")
    held: list[tuple[int, int] | None] = [None, None]
    history = []
    for i, entry in enumerate(entries):
        if entry.rgb_moved:
            held[entry.slot.diff] = (i - 1, i)
        history.append(list(held))
    assert history == [
        [None, None],
        [(0, 1), None],
        [(0, 1), (1, 2)],
        [(2, 3), (1, 2)],
        [(2, 3), (3, 4)],
    ]


def test_stride_two_fills_two_rings_in_turn() -> None:
    entries = entered(ClipRing(2, stride=2), "bbbbbb")
    assert [e.slot for e in entries] == [
        Slot(0, 0, 0),
        Slot(1, 0, 0),
        Slot(0, 1, 0),
        Slot(1, 1, 0),
        Slot(0, 0, 0),
        Slot(1, 0, 0),
    ]


@pytest.mark.parametrize(("stride", "full"), [(1, [False, False, True, True]), (2, [False] * 4 + [True] * 2)])
def test_ring_is_full_after_a_whole_clip_at_its_stride(stride: int, full: list[bool]) -> None:
    assert [e.is_full for e in entered(ClipRing(3, stride), "b" * len(full))] == full


def test_presence_tells_which_camera_was_there_in_each_slot() -> None:
    ring = ClipRing(3)
    entered(ring, "bre")
    present = ring.presence[0]
    assert (present.rgb.tolist(), present.event.tolist()) == ([1, 1, 0], [1, 0, 1])
    assert present.diff.tolist() == [1, 0]  # 0-1 by RGB alone; 1-2 share no camera


def test_presence_is_renewed_when_a_slot_is_taken_again() -> None:
    ring = ClipRing(2)
    entered(ring, "ebb")
    present = ring.presence[0]
    assert (present.rgb.tolist(), present.event.tolist(), present.diff.tolist()) == ([1, 1], [1, 1], [1])
    entered(ring, "e")
    assert (present.rgb.tolist(), present.event.tolist(), present.diff.tolist()) == ([1, 0], [1, 1], [1])


def test_a_difference_counts_where_one_camera_was_there_in_both_pairs() -> None:
    moved = [(e.rgb_moved, e.event_moved) for e in entered(ClipRing(4), "brbeeb")]
    assert moved == [
        (False, False),
        (True, False),
        (True, False),
        (False, True),
        (False, True),
        (False, True),
    ]


def test_phases_do_not_mix() -> None:
    ring = ClipRing(2, stride=2)
    entered(ring, "rere")
    assert [p.rgb.tolist() for p in ring.presence] == [[1, 1], [0, 0]]
    assert [p.event.tolist() for p in ring.presence] == [[0, 0], [1, 1]]
    assert [p.diff.tolist() for p in ring.presence] == [[1], [1]]


@pytest.mark.parametrize(("clip_length", "stride"), [(1, 1), (2, 0)])
def test_a_clip_needs_two_pairs_and_a_stride(clip_length: int, stride: int) -> None:
    with pytest.raises(ValueError, match="expected clip_length >= 2 and stride >= 1"):
        ClipRing(clip_length, stride)


def test_memory_has_a_slot_for_every_phase_and_pair() -> None:
    memory = TokenMemory(stride=2, clip_length=3, tokens=4, token_size=5)
    assert (memory.rgb.shape, memory.event.shape, memory.diff.shape) == ((2, 3, 4, 5),) * 2 + ((2, 2, 4, 5),)
    memory.rgb[1, 2] = 1
    memory.clear()
    assert not np.any(memory.rgb)
