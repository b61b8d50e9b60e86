"""Events are walked over before their window ends, and the windows are what they would be without that."""

from __future__ import annotations

import numpy as np
import pytest
from velora_runtime.ingest.packets import Decoded

from tests.fakes import tiny_manifest
from tests.fakes_cameras import Rig, batch, evt3, gone, make_rig
from velora_edge.bundle import EventInput, Palette
from velora_edge.datatypes import EventBatch, TriggerBatch
from velora_edge.preprocessing.packer import Packer, Pair
from velora_edge.preprocessing.windows import WindowRule

MS = 1000


class Tap:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.begun = self.words = self.events = self.edges = 0

    def begin(self, shift_us: int) -> None:
        self.begun += 1

    def take_words(self, words: np.ndarray, walker: object) -> None:
        self.words += len(words)

    def take_batch(self, events: EventBatch) -> None:
        self.events += len(events)

    def take_edges(self, edges: TriggerBatch) -> None:
        self.edges += len(edges)


def stream_of(seed: int, *, decoded: bool = False) -> Rig:
    """300 ms of events at random, in packets of random length, with edges; away for a while in its middle."""
    draw = np.random.default_rng(seed)
    script, start = [], 0
    while start < 300 * MS:
        end = start + int(draw.integers(1, 6 * MS))
        t_us = np.sort(draw.integers(start, end, draw.integers(0, 60)))
        events = [(int(t), *map(int, draw.integers(0, 8, 2)), int(draw.integers(2))) for t in t_us]
        thing = (
            Decoded(batch(*events) if events else EventBatch.empty(), TriggerBatch.empty(), end)
            if decoded
            else evt3(*events, end_us=end, edges=[start])
        )
        script.append((end + int(draw.integers(0, 2 * MS)), thing))
        start = end
        if seed % 2 and 120 * MS < start < 130 * MS:
            script.append((start + 3 * MS, gone()))
            start += 60 * MS
    return make_rig(script, encoding=None if decoded else "EVT3")


def ends_of(seed: int) -> list[int]:
    """Instants some 10 ms apart: steady ones, early ones, and gaps."""
    draw = np.random.default_rng(1000 + seed)
    steps = draw.choice([10 * MS, 9 * MS + 123, 3 * MS, 14 * MS, 40 * MS], 60, p=[0.6, 0.1, 0.1, 0.1, 0.1])
    return [int(t) for t in np.cumsum(steps) if t < 290 * MS]


def run(
    rig: Rig, ends_us: list[int], representation: str, *, ahead: bool
) -> tuple[list[object], Tap, Packer]:
    """What each window holds; steps are taken as time needs them."""
    event = EventInput(window_us=10 * MS, palette=Palette(), fit="stretch", representation=representation)
    packer = Packer(tiny_manifest(event=event), rig.stream, WindowRule(10 * MS, 0), rig.clock)
    found: list[object] = []
    tap = Tap()
    rig.stream.listen(tap)
    for end_us in ends_us:
        while rig.stream.judge_window(end_us - 10 * MS, end_us, rig.clock.t_us) is None:
            rig.step()
            if ahead:
                packer.pack_ahead()
        packed = Pair.empty((8, 8))
        packer.pack_into(packed, end_us, None, 0)
        frame = packed.frames.event
        found.append(None if frame is None else (frame.t0_us, packed.events, packed.event_image.tolist()))
    packer.step_back()
    return found, tap, packer


@pytest.mark.parametrize("decoded", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_windows_are_the_same_with_and_without_walking_ahead(seed: int, decoded: bool) -> None:
    plain, fast = stream_of(seed, decoded=decoded), stream_of(seed, decoded=decoded)
    expected, heard, packer = run(plain, ends_of(seed), "polarity", ahead=False)
    found, heard_ahead, packer_ahead = run(fast, ends_of(seed), "polarity", ahead=True)
    assert found == expected
    assert packer_ahead.skipped == packer.skipped
    # What was taken ahead of the last window has been heard already, and is unread again.
    assert fast.stream.unread == plain.stream.unread
    for name in ("begun", "words", "events"):
        assert getattr(heard_ahead, name) >= getattr(heard, name)
    plain.stream.skip_until(1 << 60)
    fast.stream.skip_until(1 << 60)
    assert vars(heard_ahead) == vars(heard)
    assert fast.stream.take_triggers().t_us.tolist() == plain.stream.take_triggers().t_us.tolist()


@pytest.mark.parametrize("representation", ["counts", "time_surface", "voxel_grid"])
def test_so_they_are_in_every_representation(representation: str) -> None:
    expected, _, _ = run(stream_of(2), ends_of(2), representation, ahead=False)
    found, _, _ = run(stream_of(2), ends_of(2), representation, ahead=True)
    assert found == expected


def packets(upto_ms: int) -> list[tuple[int, bytes]]:
    """A packet with one event for each millisecond."""
    return [((ms + 1) * MS, evt3((ms * MS, 1, 1, 1), end_us=(ms + 1) * MS)) for ms in range(upto_ms)]


def test_what_has_come_is_in_the_frame_before_the_window_ends() -> None:
    rig = make_rig(packets(30))
    packer = Packer(tiny_manifest(), rig.stream, WindowRule(10 * MS, 0), rig.clock)
    rig.step(10)
    packer.pack_into(Pair.empty((8, 8)), 10 * MS, None, 0)
    rig.step(9)
    packer.pack_ahead()
    assert rig.queue.events == 0
    rig.step()
    packed = Pair.empty((8, 8))
    packer.pack_into(packed, 20 * MS, None, 0)
    assert (packed.events, rig.stream.unread) == (10, 0)


def test_it_goes_no_further_than_the_shortest_window_of_late() -> None:
    rig = make_rig(packets(40))
    packer = Packer(tiny_manifest(), rig.stream, WindowRule(10 * MS, 0), rig.clock)
    rig.run_script()
    for end_ms in (8, 18):
        packer.pack_into(Pair.empty((8, 8)), end_ms * MS, None, 0)
    packer.pack_ahead()
    assert rig.stream.unread == 40 - 18 - 8
    packer.step_back()
    assert rig.stream.unread == 40 - 18


def test_a_window_whose_end_is_known_is_walked_while_it_is_awaited() -> None:
    rig = make_rig(packets(30))
    packer = Packer(tiny_manifest(), rig.stream, WindowRule(10 * MS, 0), rig.clock)
    waiting: list[int] = []

    def wait(seconds: float, seen_us: int | None) -> None:
        waiting.append(rig.queue.events)
        rig.step()

    rig.queue.wait = wait  # type: ignore[method-assign]
    packed = Pair.empty((8, 8))
    packer.pack_into(packed, 10 * MS, None, 0)
    assert packed.events == 10
    assert waiting == [0] * 10
