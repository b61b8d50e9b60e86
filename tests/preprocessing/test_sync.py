"""Frames come onto the event clock."""

from __future__ import annotations

import numpy as np
import pytest

from tests.fakes import FakeRGB, MemoryEvents
from velora_edge.datatypes import RGBFrame
from velora_edge.errors import InputError, RecordingError
from velora_edge.preprocessing.sync import Sync, SyncOptions, choose_sync

FIRST_US = 7_000_000


def recording(edges_us: list[int], number: int = 3, polarity: int = 1) -> MemoryEvents:
    return MemoryEvents([(FIRST_US, 1, 1, 1)], triggers=[(t, number, polarity) for t in edges_us])


def placed(sync: Sync, rgb: FakeRGB) -> list[tuple[int, int] | None]:
    """PairRequest and skew of each frame."""
    places = [sync.place(frame) for frame in rgb]
    return [None if place is None else (place.t_us, place.skew_us) for place in places]


def video(times_us: list[int]) -> FakeRGB:
    return FakeRGB(times_us, on_event_clock=False)


def test_times_on_the_event_clock_stay_as_they_are() -> None:
    rgb = FakeRGB([5, 17])
    sync = choose_sync(SyncOptions("timestamps"), rgb, recording([]), FIRST_US)
    assert placed(sync, rgb) == [(5, 0), (17, 0)]


def test_a_videos_zero_is_the_first_event_of_a_clock_that_has_been_running() -> None:
    rgb = video([0, 33_333])
    sync = choose_sync(SyncOptions("timestamps"), rgb, recording([]), FIRST_US)
    assert placed(sync, rgb) == [(7_000_000, 0), (7_033_333, 0)]
    assert sync.line == "by timestamps: the video's 0 is 7000000 us on the event clock"


def test_a_videos_zero_is_the_clocks_zero_where_both_started_together() -> None:
    rgb = video([0, 33_333])
    sync = choose_sync(SyncOptions("timestamps"), rgb, recording([]), t_first_us=999_999)
    assert placed(sync, rgb) == [(0, 0), (33_333, 0)]


@pytest.mark.parametrize(("mode", "first_us"), [("offset=250", 250), ("offset=-40", -40), ("offset=+7", 7)])
def test_an_offset_is_added(mode: str, first_us: int) -> None:
    rgb = FakeRGB([0])
    assert placed(choose_sync(SyncOptions(mode), rgb, recording([]), FIRST_US), rgb) == [(first_us, 0)]


def test_the_placed_frame_carries_its_time_on_the_event_clock() -> None:
    rgb = FakeRGB([5])
    place = choose_sync(SyncOptions("offset=100"), rgb, None, None).place(next(iter(rgb)))
    assert place is not None
    assert (place.frame.t_us, place.frame.seq) == (105, 0)


def test_frames_get_their_triggers_time_and_keep_their_skew() -> None:
    rgb = video([0, 10_000, 20_200, 30_000, 39_800, 50_000, 60_000])
    edges = [FIRST_US + 10_000 * k for k in range(7)]
    sync = choose_sync(SyncOptions("trigger"), rgb, recording(edges), FIRST_US)
    times, skews = zip(*[place for place in placed(sync, rgb) if place is not None], strict=True)
    assert list(times) == edges
    assert [round(skew, -2) for skew in skews] == [0, 0, 200, 0, -200, 0, 0]


def test_a_frame_without_a_trigger_has_no_place() -> None:
    rgb = video([0, 40_000, 80_000])
    sync = choose_sync(SyncOptions("trigger"), rgb, recording([FIRST_US, FIRST_US + 30_000]), FIRST_US)
    assert placed(sync, rgb) == [(FIRST_US, 0), (FIRST_US + 30_000, 0), None]
    assert sync.line == (
        "by rising triggers on input 3: 2 of 3 frames on 2 edges, "
        "the frames' nominal rate is not the triggers': matched in order, first to first"
    )


@pytest.mark.parametrize("mode", ["auto", "trigger"])
@pytest.mark.parametrize("jitter_us", [0, 9_000])
@pytest.mark.parametrize("missed", [0.03, 0.10])
def test_missed_and_doubled_edges_cost_no_frame_its_own_window(
    mode: str, jitter_us: int, missed: float
) -> None:
    rng = np.random.default_rng(3)
    exposed_us = FIRST_US + 33_333 * np.arange(600)
    luck = rng.random(600)
    luck[0] = luck[-1] = (
        1  # evenly spaced frames tell nothing of the start: both clocks begin at the first edge
    )
    extra_us = exposed_us + rng.integers(100, 33_233, 600)
    is_doubled = (luck >= missed) & (luck < missed + 0.03)
    edges_us = np.sort(np.concatenate([exposed_us[luck >= missed], extra_us[is_doubled]]))
    is_there = rng.random(600) > 0.02  # frames are lost on their way, too
    own_us = (exposed_us - FIRST_US) * 1.0001 + rng.uniform(0, jitter_us, 600)
    sync = choose_sync(
        SyncOptions(mode),
        video(own_us[is_there].astype(int).tolist()),
        recording(edges_us.tolist()),
        FIRST_US,
    )
    image = np.zeros((1, 1, 3), np.uint8)
    places = [sync.place(RGBFrame(image, int(t), 0)) for t in own_us[is_there]]
    errors_us = [
        place.t_us - t for place, t in zip(places, exposed_us[is_there].tolist(), strict=True) if place
    ]
    assert len(errors_us) == is_there.sum()
    assert max(map(abs, errors_us)) < 33_333 // 4  # while evenness is being learnt, a stray edge may pass
    assert np.mean(np.abs(errors_us) <= 1) > 0.99
    assert "missed ones filled in" in sync.line


def test_edges_that_keep_no_beat_are_not_mended() -> None:
    rgb = video([0, 40_000, 80_000])
    edges = [FIRST_US + t for t in (0, 30_000, 31_000, 90_000, 95_000, 160_000, 170_000, 171_000, 300_000)]
    sync = choose_sync(SyncOptions("trigger"), rgb, recording(edges), FIRST_US)
    assert "filled in" not in sync.line


def test_the_input_and_the_edge_can_be_chosen() -> None:
    triggers = [(FIRST_US, 0, 1), (FIRST_US + 5, 0, 0), (FIRST_US + 9, 2, 0), (FIRST_US + 11, 2, 0)]
    events = MemoryEvents([(FIRST_US, 1, 1, 1)], triggers=triggers)
    rgb = video([0])

    def time_of(number: int | None, edge: str) -> int:
        sync = choose_sync(SyncOptions("trigger", number, edge), rgb, events, FIRST_US)  # type: ignore[arg-type]
        (place,) = placed(sync, rgb)
        assert place is not None
        return place[0] - FIRST_US

    assert (time_of(None, "rising"), time_of(0, "falling"), time_of(2, "falling")) == (0, 5, 9)
    assert time_of(None, "falling") == 9  # input 2 has the most falling edges


@pytest.mark.parametrize(
    ("times_us", "edges_us", "way"),
    [
        ([0, 10_000, 30_000], [0, 10_000, 20_000, 30_000], "by rising triggers"),
        ([0, 40_000, 80_000], [0, 30_000, 60_000], "by rising triggers"),
        ([0, 40_000, 80_000], [0, 30_000, 60_000, 90_000], "by timestamps"),
        ([0, 40_000, 80_000], [], "by timestamps"),
    ],
    ids=["same spacing", "one for each frame", "nothing in common", "no triggers"],
)
def test_auto_takes_triggers_that_belong_to_the_frames(
    times_us: list[int], edges_us: list[int], way: str
) -> None:
    events = recording([FIRST_US + t for t in edges_us])
    assert choose_sync(SyncOptions(), video(times_us), events, FIRST_US).line.startswith(way)


def test_auto_trusts_times_that_are_on_the_event_clock() -> None:
    events = recording([FIRST_US, FIRST_US + 10])
    assert choose_sync(SyncOptions(), FakeRGB([0, 10]), events, FIRST_US).line.startswith("by timestamps")


def test_trigger_without_such_edges_tells_which_there_are() -> None:
    events = recording([FIRST_US, FIRST_US + 9], number=6, polarity=0)
    with pytest.raises(
        RecordingError, match=r"memory\.raw: expected rising trigger edges, got 2 falling on input 6; choose"
    ):
        choose_sync(SyncOptions("trigger"), video([0]), events, FIRST_US)
    with pytest.raises(
        RecordingError, match="expected rising trigger edges on input 1, got 2 falling on inp"
    ):
        choose_sync(SyncOptions("trigger", 1), video([0]), events, FIRST_US)


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        (
            "host",
            r"--sync host goes by the arrival of live data.*; use auto, timestamps, trigger or offset=US",
        ),
        ("offset=1.5", "expected --sync auto, timestamps, trigger, host or offset=US, got 'offset=1.5'"),
        ("clock", "expected --sync auto, timestamps, trigger, host or offset=US, got 'clock'"),
    ],
)
def test_a_way_that_there_is_not_is_refused(mode: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        choose_sync(SyncOptions(mode), video([0]), recording([]), FIRST_US)


def test_trigger_without_an_event_camera_is_refused() -> None:
    with pytest.raises(InputError, match="--sync trigger needs an event camera"):
        choose_sync(SyncOptions("trigger"), video([0]), None, None)
