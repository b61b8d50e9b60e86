"""A live RGB camera as a source: the newest pictures, on one clock, and every one accounted for."""

from __future__ import annotations

import threading
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from velora_runtime.cameras.camera_settings import CameraSettings, RGBSettings
from velora_runtime.cameras.drivers import registry
from velora_runtime.cameras.feeds import FeedEndError, LiveSetup, Shot
from velora_runtime.cameras.live_rgb import ROOM, LiveRGB
from velora_runtime.ingest.packets import CameraState

from tests.fakes import FakeClock
from tests.fakes_cameras import ScriptedFeed, gone
from velora_edge.clock import SystemClock
from velora_edge.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterable

MS = 1000


def shot(value: int, t_us: int | None, clock: str = "device") -> Shot:
    return Shot(lambda: np.full((4, 6, 3), value, np.uint8), t_us, clock)  # type: ignore[arg-type]


def make(script: Iterable[tuple[int, Any]], **how: Any) -> tuple[LiveRGB, ScriptedFeed]:
    clock = FakeClock()
    feed: Any = ScriptedFeed(clock, script, opens=[True, *how.pop("opens", [])])
    feed.size = (6, 4)
    return LiveRGB(feed, LiveSetup(clock, threading.Event(), print, **how)), feed


def read_all(rgb: LiveRGB, feed: ScriptedFeed) -> list[tuple[int, int, int]]:
    """Sequence number, time and value of each picture, each taken as soon as it is there."""
    found, frames = [], iter(rgb)
    while feed.script:
        rgb.camera.step()
        while rgb._slot.shots:
            frame = next(frames)
            found.append((frame.seq, frame.t_us, int(frame.image[0, 0, 0])))
    return found


def test_pictures_have_the_cameras_own_times() -> None:
    rgb, feed = make(
        [(5 * MS, shot(1, 900 * MS)), (45 * MS, shot(2, 933 * MS)), (72 * MS, shot(3, 966 * MS))]
    )
    assert (rgb.width, rgb.height, rgb.is_live) == (6, 4, True)
    assert read_all(rgb, feed) == [(0, 900 * MS, 1), (1, 933 * MS, 2), (2, 966 * MS, 3)]
    assert rgb.is_host_clock is False


def test_pictures_without_times_get_those_of_their_arrival() -> None:
    rgb, feed = make([(5 * MS, shot(1, None)), (45 * MS, shot(2, None))])
    assert read_all(rgb, feed) == [(0, 5 * MS, 1), (1, 45 * MS, 2)]
    assert rgb.is_host_clock is True


def test_newer_pictures_take_the_place_of_those_that_nobody_took_and_all_are_counted() -> None:
    rgb, feed = make([(10 * MS * k, shot(k, 10 * MS * k)) for k in range(20)])
    for _ in range(5):
        rgb.camera.step()
    frames = iter(rgb)
    assert next(frames).seq == 4  # the run begins with the newest
    for _ in range(15):
        rgb.camera.step()
    assert [frame.seq for frame in islice(frames, ROOM)] == list(range(12, 20))
    feed.script = [(200 * MS, shot(20, 200 * MS))]
    rgb.camera.step()
    rgb.close()
    counted = rgb.as_dict()["frames"]
    assert counted == {"received": 21, "early": 4, "overrun": 7, "unread": 1}
    assert rgb.overrun == 7


def test_times_go_on_where_the_camera_begins_its_own_anew() -> None:
    before = [(100 * MS * k, shot(k, 5_000 * MS + 100 * MS * k)) for k in range(20)]
    after = [(5_000 * MS + 100 * MS * k, shot(20 + k, 100 * MS * k)) for k in range(20)]
    rgb, feed = make([*before, (2_000 * MS, gone()), *after], opens=[gone(), True])
    found = read_all(rgb, feed)
    assert [value for _, _, value in found] == list(range(40))
    times = [t_us for _, t_us, _ in found]
    assert times[:20] == [5_000 * MS + 100 * MS * k for k in range(20)]
    assert times[20:] == [10_000 * MS + 100 * MS * k for k in range(20)]
    assert (rgb.camera.counts.outages, rgb.state) == (1, CameraState.LIVE)


def test_it_ends_with_its_camera() -> None:
    rgb, _ = make([(0, shot(1, 0)), (0, FeedEndError())])
    rgb.start(hurry=False)
    assert [frame.seq for frame in rgb] == [0]
    rgb.close()
    assert rgb.state is CameraState.ENDED


def test_a_bug_in_its_thread_reaches_whoever_reads() -> None:
    rgb, _ = make([(0, ZeroDivisionError("a bug"))])
    rgb.start(hurry=False)
    with pytest.raises(ZeroDivisionError):
        list(rgb)
    rgb.close()


def test_a_camera_that_is_not_there_and_one_that_should_wait_are_refused() -> None:
    clock = FakeClock()
    feed: Any = ScriptedFeed(clock, opens=[gone("no such device")])
    with pytest.raises(SourceError, match="scripted: no such device; check that it is there; velora cameras"):
        LiveRGB(feed, LiveSetup(clock, threading.Event(), print))
    with pytest.raises(SourceError, match="a camera cannot wait; leave out --pace max"):
        make([], waits=True)


def test_a_cameras_rate_is_that_of_its_newest_frames() -> None:
    rgb, feed = make([(40 * MS * k, shot(k, 40 * MS * k)) for k in range(20)])
    while feed.script:
        rgb.camera.step()
    assert rgb.measure_rate_hz() == pytest.approx(25.0)
    rgb.close()


class Steady:
    """A camera of 25 frames a second, by its own clock and in fact."""

    name, size, may_be_silent, comes_back = "steady", (6, 4), False, True

    def __init__(self) -> None:
        self.taken = self.closed = 0
        self._pause = threading.Event()

    def open(self) -> None:
        self.taken = 0

    def read(self) -> Shot:
        self._pause.wait(0.04)
        self.taken += 1
        return shot(self.taken, 40 * MS * self.taken)

    def close(self) -> None:
        self.closed += 1


def test_a_live_cameras_rate_is_that_of_its_settings_or_measured_and_it_is_closed_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    feed = Steady()
    monkeypatch.setattr(registry, "_make", lambda modality, text, setup: feed)
    setup = LiveSetup(SystemClock(), threading.Event(), print)
    declared = replace(setup, settings=CameraSettings(rgb=RGBSettings(rate_hz=60)))
    assert registry.live_rate_hz("steady", declared) == 60
    assert (feed.taken, feed.closed) == (0, 0)
    assert registry.live_rate_hz("steady", setup) == pytest.approx(25.0)
    assert feed.closed == 1


def test_the_rate_of_a_camera_that_gives_nothing_is_given_up() -> None:
    rgb, feed = make([])
    assert rgb.measure_rate_hz() is None
    assert feed.clock.t_us == 5_000 * MS
    rgb.close()
