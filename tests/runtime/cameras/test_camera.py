"""A camera's thread: connects, tells silence from loss, tries again with longer and longer waits."""

from __future__ import annotations

import threading

import pytest
from velora_runtime.cameras.camera import Camera
from velora_runtime.cameras.feeds import FeedEndError, Patience
from velora_runtime.ingest.packets import CameraState

from tests.fakes import FakeClock
from tests.fakes_cameras import Basket, ScriptedFeed, gone

LIVE, STALLED, LOST, ENDED = CameraState.LIVE, CameraState.STALLED, CameraState.LOST, CameraState.ENDED


def make(script: list, opens: list = (), **how: object) -> tuple[Camera, ScriptedFeed, Basket, list[str]]:  # type: ignore[type-arg,assignment]
    clock, basket, notes = FakeClock(), Basket(), []  # type: ignore[var-annotated]
    retry_us = how.pop("retry_us", None)
    feed = ScriptedFeed(clock, script, opens=[True, *opens], **how)  # type: ignore[arg-type]
    camera = Camera(feed, basket, Patience(retry_us=retry_us), clock, notes.append)  # type: ignore[arg-type]
    feed.open()
    camera.adopt()
    return camera, feed, basket, notes


def test_it_is_connecting_until_something_comes_and_live_then() -> None:
    camera, feed, basket, _ = make([(5, "a")])
    assert camera.state is CameraState.CONNECTING
    camera.step()
    assert camera.state is LIVE
    assert basket.got == ["begin", ("a", 5)]
    feed.clock.t_us += 999_999
    assert camera.state is LIVE


def test_silence_is_stalled_and_long_silence_is_a_loss() -> None:
    camera, feed, _, notes = make([(0, "a")])
    camera.step()
    for _ in range(10):
        camera.step()
    assert camera.state is STALLED
    while camera.state is STALLED:
        camera.step()
    assert (camera.state, feed.clock.t_us, feed.closed) == (LOST, 5_000_000, 1)
    assert notes == ["scripted: lost: nothing came for 5.0 s"]


def test_a_camera_that_may_be_silent_is_not_lost() -> None:
    camera, feed, _, _ = make([(0, "a")], may_be_silent=True)
    for _ in range(100):
        camera.step()
    assert (camera.state, feed.closed) == (STALLED, 0)


def test_a_lost_camera_is_tried_again_with_longer_and_longer_waits() -> None:
    refusals = [gone("refused")] * 8
    camera, feed, _, _ = make([(1_000_000, "a"), (1_000_000, gone())], refusals)
    while len(feed.opened) < 9:
        camera.step()
    waits = [b - a for a, b in zip([1_000_000, *feed.opened[1:]], feed.opened[1:], strict=False)]
    assert waits == [250_000, 500_000, 1_000_000, 2_000_000, 4_000_000, 8_000_000, 8_000_000, 8_000_000]
    assert camera.counts.reasons == {"unplugged": 1, "refused": 8}
    assert camera.state is LOST


def test_it_is_back_with_the_first_thing_that_comes_not_with_the_connection() -> None:
    camera, feed, basket, notes = make([(0, "a"), (0, gone()), (3_000_000, None), (3_000_000, "b")])
    while feed.script:
        camera.step()
        if len(feed.script) == 1:
            assert camera.state is LOST
    assert camera.state is LIVE
    assert basket.got == ["begin", ("a", 0), "begin", ("b", 3_000_000)]
    assert (camera.counts.connections, camera.counts.outages, camera.counts.lost_us) == (2, 1, 3_000_000)
    assert notes == ["scripted: lost: unplugged", "scripted: back after 3.0 s"]


def test_a_camera_that_gives_up_again_at_once_waits_longer_each_time() -> None:
    camera, feed, _, _ = make([(0, "a"), (0, gone()), (0, gone()), (0, gone()), (0, gone())])
    while len(feed.opened) < 4:
        camera.step()
    assert camera.counts.outages == 1
    assert feed.opened[1:] == [250_000, 750_000, 1_750_000]


def test_a_camera_is_given_up_after_the_time_that_the_user_gave() -> None:
    camera, feed, basket, notes = make([(0, "a"), (0, gone())], [gone()] * 99, retry_us=3_000_000)
    while camera.step():
        pass
    assert camera.state is ENDED
    assert 3_000_000 <= feed.clock.t_us <= 3_300_000
    assert notes[-1] == "scripted: given up"
    assert basket.got == ["begin", ("a", 0)]
    assert camera.as_dict()["lost_s"] >= 3.0


def test_a_feed_that_ends_ends_the_camera() -> None:
    camera, _, _, notes = make([(0, "a"), (0, FeedEndError())])
    assert camera.step()
    assert not camera.step()
    assert (camera.state, notes) == (ENDED, [])


def test_its_thread_hands_on_what_comes_and_ends_with_the_feed() -> None:
    camera, _, basket, _ = make([(0, "a"), (1, "b"), (2, FeedEndError())])
    camera.start()
    camera.close()
    assert basket.got == ["begin", ("a", 0), ("b", 1), "end"]
    assert [t.name for t in threading.enumerate() if "scripted" in t.name] == []


def test_a_bug_in_its_thread_is_kept_for_whoever_waits() -> None:
    camera, _, basket, _ = make([(0, ZeroDivisionError("a bug"))])
    camera.start()
    camera.close()
    assert isinstance(camera.error, ZeroDivisionError)
    assert (basket.got, camera.state) == (["begin", "end"], ENDED)


def test_a_camera_that_comes_and_goes_is_told_once_a_minute_and_counted_always() -> None:
    script: list = []  # type: ignore[type-arg]
    for k in range(100):
        script += [(700_000 * k, "a"), (700_000 * k, gone(f"unplugged {k}"))]
    camera, feed, _, notes = make([*script, (70_000_000, "a")])
    while feed.script:
        camera.step()
    assert camera.counts.outages == 100
    assert notes == [
        "scripted: lost: unplugged 0",
        "scripted: back after 0.7 s",
        "scripted: lost (outage 87): unplugged 86",
        "scripted: back after 0.7 s",
    ]


def test_a_loss_that_was_not_told_is_told_once_the_minute_is_over() -> None:
    camera, feed, _, notes = make(
        [(0, "a"), (0, gone("first")), (1_000_000, "a"), (1_000_000, gone("second"))], [True] + [gone()] * 99
    )
    while feed.clock.t_us < 59_000_000:
        camera.step()
    assert notes == ["scripted: lost: first", "scripted: back after 1.0 s"]
    while feed.clock.t_us < 61_000_000:
        camera.step()
    assert notes[2:] == ["scripted: lost (outage 2): second"]


@pytest.mark.parametrize("comes_back", [True, False])
def test_what_cannot_come_back_ends_with_its_loss(*, comes_back: bool) -> None:
    camera, _, _, _ = make([(0, "a"), (0, gone())], comes_back=comes_back)
    camera.step()
    camera.step()
    assert camera.step() is comes_back
