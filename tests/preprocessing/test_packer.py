"""Instants become pairs at model size."""

from __future__ import annotations

import numpy as np
import pytest

from tests.fakes import FakeClock, FakeRGB, MemoryEvents, tiny_manifest
from velora_edge.bundle import EventInput, Palette, RGBInput
from velora_edge.preprocessing.packer import Packer, Pair
from velora_edge.preprocessing.sync import AlignedFrame
from velora_edge.preprocessing.windows import WindowRule

WHITE, RED, BLUE = [255, 255, 255], [255, 0, 0], [0, 0, 255]
MANIFEST = tiny_manifest(
    image_size=(2, 2), event=EventInput(window_us=1000, palette=Palette(), fit="stretch"), rgb=RGBInput()
)


def make_packer(
    events: list[tuple[int, int, int, int]], sensor: tuple[int, int] = (2, 2), start_us: int | None = None
) -> Packer:
    stream = MemoryEvents(events, sensor).stream()
    return Packer(MANIFEST, stream, WindowRule(1000, start_us), FakeClock())


def pack(packer: Packer, t_us: int, placed: AlignedFrame | None = None) -> Pair:
    packed = Pair.empty((2, 2))
    packer.pack_into(packed, t_us, placed, ready_us=5)
    return packed


def placed_frame(t_us: int, hw: tuple[int, int] = (4, 4), skew_us: int = 0) -> AlignedFrame:
    frame = next(iter(FakeRGB([t_us + skew_us], hw)))
    frame.image[:] = 9
    return AlignedFrame(frame, t_us)


def test_a_window_is_half_open() -> None:
    packer = make_packer([(999, 0, 0, 1), (1000, 1, 0, 1), (1999, 0, 1, 0), (2000, 1, 1, 1), (5000, 0, 0, 1)])
    packer.pack_into(Pair.empty((2, 2)), 1000, None, 0)
    packed = pack(packer, 2000)
    assert packed.event_image.tolist() == [[WHITE, RED], [BLUE, WHITE]]
    event = packed.frames.event
    assert event is not None
    assert (event.t0_us, event.t1_us, event.events, packed.events) == (1000, 2000, 2, 2)
    assert event.image is packed.event_image


def test_events_before_a_window_are_skipped_and_counted() -> None:
    packer = make_packer([(100, 0, 0, 1), (200, 0, 0, 1), (4500, 1, 1, 0), (9000, 0, 0, 1)])
    packed = pack(packer, 5000)
    assert packed.event_image.tolist() == [[WHITE, WHITE], [WHITE, BLUE]]
    assert (packer.skipped, packed.events) == (2, 1)


def test_warming_up_takes_no_events() -> None:
    packer = make_packer([(999, 0, 0, 1), (1000, 1, 0, 1), (5000, 0, 0, 1)])
    packer.warm_up()
    packed = pack(packer, 2000)
    assert (packed.events, packer.skipped) == (1, 1)


def test_a_quiet_camera_gives_an_empty_frame() -> None:
    packer = make_packer([(100, 0, 0, 1), (9000, 0, 0, 1)])
    pack(packer, 1000)
    quiet = pack(packer, 2000)
    assert quiet.frames.event is not None
    assert (quiet.event_image.tolist(), quiet.events) == ([[WHITE, WHITE], [WHITE, WHITE]], 0)


def test_before_its_first_event_and_after_its_last_the_camera_is_absent() -> None:
    packer = make_packer([(3500, 0, 0, 1), (4500, 0, 0, 1)])
    present = [
        pack(packer, t, placed_frame(t)).frames.event is not None for t in (3000, 3500, 4000, 5000, 6000)
    ]
    assert present == [False, False, True, True, False]


def test_both_cameras_make_a_pair_with_its_skew() -> None:
    packer = make_packer([(500, 0, 0, 1), (9000, 0, 0, 1)])
    packed = pack(packer, 1000, placed_frame(1000, skew_us=-30))
    pair = packed.frames
    assert (pair.seq, pair.t_us, pair.skew_us, packed.ready_us) == (0, 1000, -30, 5)
    assert pair.rgb is not None
    assert (pair.rgb.t_us, pair.rgb.image.shape) == (970, (4, 4, 3))
    assert packed.rgb_image.tolist() == [[[9] * 3] * 2] * 2


def test_without_events_a_pair_is_the_picture_alone() -> None:
    packer = Packer(MANIFEST, None, WindowRule(1000), FakeClock())
    pair = pack(packer, 1000, placed_frame(1000)).frames
    assert (pair.event, pair.skew_us, packer.is_exhausted) == (None, None, True)


def test_pictures_may_change_their_size() -> None:
    packer = Packer(MANIFEST, None, WindowRule(1000), FakeClock())
    for t_us, hw in ((1000, (4, 4)), (2000, (8, 6)), (3000, (4, 4))):
        assert np.unique(pack(packer, t_us, placed_frame(t_us, hw)).rgb_image).tolist() == [9]


def test_pairs_are_numbered_without_gaps_and_only_go_forward() -> None:
    packer = make_packer([(0, 0, 0, 1), (9000, 0, 0, 1)])
    assert packer.accepts(1000)
    assert [pack(packer, t).frames.seq for t in (1000, 2000)] == [0, 1]
    assert [packer.accepts(t) for t in (1999, 2000, 2001)] == [False, False, True]


def test_a_pair_that_is_withdrawn_counts_as_skipped() -> None:
    packer = make_packer([(0, 0, 0, 1), (1500, 0, 0, 1), (1600, 0, 0, 1)], start_us=0)
    pack(packer, 1000)
    packer.withdraw(pack(packer, 2000))
    assert (packer.pairs, packer.skipped, packer.is_exhausted) == (1, 2, True)


@pytest.mark.parametrize("start_us", [0, 400])
def test_the_rest_of_a_recording_counts_as_skipped(start_us: int) -> None:
    packer = make_packer([(400, 0, 0, 1), (1500, 0, 0, 1), (99_000, 0, 0, 1)], start_us=start_us)
    pack(packer, 1000)
    packer.skip_rest()
    assert packer.skipped == 2
