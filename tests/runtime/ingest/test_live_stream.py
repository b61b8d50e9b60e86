"""From what a camera gives, and fails to give, to the windows of pairs: everything is accounted for."""

from __future__ import annotations

import numpy as np
import pytest
from velora_runtime.cameras.feeds import Patience
from velora_runtime.ingest.packets import CameraState, Decoded

from tests.fakes import tiny_manifest
from tests.fakes_cameras import Rig, batch, evt3, garbage, gone, make_rig, rising
from velora_edge.datatypes import TriggerBatch
from velora_edge.preprocessing.packer import Packer, Pair
from velora_edge.preprocessing.windows import WindowRule

MS = 1000
LATE = 3 * MS
"""From the end of a packet's time to its arrival."""


def packets(first_ms: int, last_ms: int, *, camera_us: int = 0, arrive_us: int = LATE) -> list:  # type: ignore[type-arg]
    """A packet of ten events for each millisecond; the camera's clock begins at `camera_us`."""
    script = []
    for ms in range(first_ms, last_ms):
        start = camera_us + (ms - first_ms) * MS
        events = [(start + 100 * k, k % 8, k % 8, k % 2) for k in range(10)]
        script.append(((ms + 1) * MS + arrive_us, evt3(*events, end_us=start + MS)))
    return script


def windows(rig: Rig, ends_ms: range) -> tuple[list[int | None], Packer]:
    """Events of each window of 10 ms, None where the camera was absent; takes steps as time needs them."""
    packer = Packer(tiny_manifest(), rig.stream, WindowRule(10 * MS, (ends_ms[0] - 10) * MS), rig.clock)
    found: list[int | None] = []
    for end_ms in ends_ms:
        end_us = end_ms * MS
        while rig.stream.judge_window(end_us - 10 * MS, end_us, rig.clock.t_us) is None:
            rig.step()
        packed = Pair.empty((8, 8))
        packer.pack_into(packed, end_us, None, 0)
        found.append(None if packed.frames.event is None else packed.events)
    return found, packer


def assert_accounted(rig: Rig, packer: Packer, in_windows: int) -> None:
    """Every event that came is in a window, skipped, dropped by a cause, or unread."""
    counts = rig.ingest.counts
    assert counts.received == in_windows + packer.skipped + sum(counts.dropped.values()) + rig.stream.unread


def test_a_window_is_complete_once_the_cameras_time_has_passed_its_end() -> None:
    rig = make_rig([(13 * MS, evt3((1000, 1, 1, 1), end_us=9999)), (14 * MS, evt3(end_us=10_000))])
    rig.step()
    assert rig.stream.judge_window(0, 10 * MS, rig.clock.t_us) is None
    rig.step()
    assert rig.stream.judge_window(0, 10 * MS, rig.clock.t_us) is True


def test_a_trigger_passes_a_windows_end_too() -> None:
    rig = make_rig([(13 * MS, evt3((1000, 1, 1, 1), edges=[10_500]))])
    rig.step()
    assert rig.stream.judge_window(0, 10 * MS, rig.clock.t_us) is True
    rig.stream.skip_until(1)
    assert rig.stream.take_triggers().t_us.tolist() == [10_500]


def test_a_silent_sensors_window_is_complete_by_the_hosts_clock() -> None:
    rig = make_rig([(5 * MS, evt3((1000, 1, 1, 1), end_us=2000))])
    rig.step()
    assert (
        rig.stream.judge_window(0, 10 * MS, 13 * MS) is None
    )  # the end is due at 13 ms, and then some grace
    assert rig.stream.judge_window(0, 10 * MS, 24 * MS) is True


def test_at_pace_max_only_the_cameras_time_counts() -> None:
    rig = make_rig([(0, evt3((1000, 1, 1, 1), end_us=2000))], is_paced=False)
    rig.step()
    assert rig.stream.judge_window(0, 10 * MS, 10**9) is None
    rig.queue.finish()
    assert rig.stream.judge_window(0, 2 * MS, 0) is True


def test_every_window_gets_its_own_events() -> None:
    rig = make_rig(packets(0, 100))
    found, packer = windows(rig, range(10, 100, 10))
    assert found == [100] * 9
    assert_accounted(rig, packer, 900)


def test_decoded_events_are_packed_like_raw_ones() -> None:
    script = [
        (13 * MS, Decoded(batch((1000, 1, 1, 1), (9999, 2, 2, 0)), rising(5000), 10_000)),
        (23 * MS, Decoded(batch((10_000, 1, 1, 1)), TriggerBatch.empty(), 20_000)),
    ]
    rig = make_rig(script, encoding=None)
    found, packer = windows(rig, range(10, 30, 10))
    assert found == [2, 1]
    assert rig.stream.take_triggers().t_us.tolist() == [5000]
    assert_accounted(rig, packer, 3)


def test_a_camera_that_is_gone_for_3_s_leaves_its_windows_empty_and_comes_back_on_the_same_clock() -> None:
    before = packets(0, 1000)
    after = packets(4000, 5000, camera_us=77 * MS)  # its own clock has begun anew
    rig = make_rig([*before, (1_003 * MS, gone()), *after], opens=[gone(), gone(), True])
    found, packer = windows(rig, range(10, 4990, 10))
    missing = [k for k, n in enumerate(found) if n is None]
    assert found[:99] == [100] * 99
    assert missing == list(range(missing[0], missing[-1] + 1))
    assert 290 <= len(missing) <= 310
    assert found[missing[-1] + 2 :] == [100] * (len(found) - missing[-1] - 2)
    counts = rig.camera.counts
    assert (counts.connections, counts.outages, rig.camera.state) == (2, 1, CameraState.LIVE)
    assert 2_900 * MS <= counts.lost_us <= 3_300 * MS
    assert_accounted(rig, packer, sum(n or 0 for n in found))


@pytest.mark.parametrize("n_bytes", [20_000, 20_001])
def test_garbage_in_the_middle_of_a_stream_is_passed_over_and_counted(n_bytes: int) -> None:
    script = packets(0, 300)
    bad = b"".join([script[150][1][:33], garbage(n_bytes)])
    script.insert(150, (script[150][0], bad))
    rig = make_rig(script)
    found, packer = windows(rig, range(10, 300, 10))
    assert found[:14] == [100] * 14
    assert found[17:] == [100] * 12
    assert n_bytes <= rig.ingest.counts.garbage_bytes <= n_bytes + 1000
    assert rig.ingest.counts.resyncs == (33 + n_bytes) % 2
    assert_accounted(rig, packer, sum(n or 0 for n in found))


def test_a_time_that_jumps_ahead_and_back_does_not_hold_up_the_windows() -> None:
    script = packets(0, 100)
    script[50] = (script[50][0], evt3((9_000_000, 1, 1, 1)) + script[50][1])
    rig = make_rig(script)
    found, packer = windows(rig, range(10, 100, 10))
    assert found == [100] * 5 + [99] + [100] * 3
    assert_accounted(rig, packer, 899)


@pytest.mark.parametrize("camera_us", [2 * MS, 3_600_000 * MS])
def test_a_clock_that_is_set_costs_one_parcel_and_the_windows_go_on(camera_us: int) -> None:
    camera_us %= 1 << 24
    rig = make_rig([*packets(0, 1000), *packets(1000, 2000, camera_us=camera_us)])
    found, packer = windows(rig, range(10, 1990, 10))
    assert None not in found
    assert sum(n != 100 for n in found) <= 3
    (note,) = rig.notes
    assert note.startswith("the event camera's clock was set to ")
    assert note.endswith(" us; times go on by the host's clock")
    assert 1 <= rig.ingest.counts.dropped["clock"] <= 10
    assert_accounted(rig, packer, sum(n or 0 for n in found))


def test_a_clock_that_is_set_again_and_again_is_told_once_a_minute_and_counted_always() -> None:
    script = packets(0, 100)
    for k in range(1, 11):
        script += packets(100 * k, 100 * (k + 1), camera_us=0)
    rig = make_rig(script)
    rig.run_script()
    assert rig.ingest.counts.as_dict()["clock_sets"] == 10
    assert len(rig.notes) == 1


def test_a_slow_reader_loses_the_oldest_events_and_all_are_counted() -> None:
    rig = make_rig(packets(0, 100), room_bytes=8000)
    rig.run_script()
    packer = Packer(tiny_manifest(), rig.stream, WindowRule(10 * MS, 0), rig.clock)
    packed, seen = Pair.empty((8, 8)), []
    for end_ms in range(10, 100, 10):
        packer.pack_into(packed, end_ms * MS, None, 0)
        seen.append(packed.events)
    assert seen[0] == 0
    assert seen[-1] == 100
    assert rig.ingest.counts.dropped["overrun"] >= 700
    assert_accounted(rig, packer, sum(seen))


def test_after_a_gap_the_decoder_stands_where_the_stream_does() -> None:
    """An event after the gap refers to a row, a time and a turn of the clock that the gap has swallowed."""
    turn = 1 << 24
    rows = [evt3((t, 3, 5, 1)) for t in range(0, 4 * turn, turn // 8)]
    last = np.array([0x2000 | 1 << 11 | 7], "<u2").tobytes()
    rig = make_rig([(k * turn // 8, words) for k, words in enumerate([*rows, last])], room_bytes=600)
    rig.run_script()
    assert rig.ingest.counts.dropped["overrun"] > 20
    packet = None
    while (more := rig.queue.get()) is not None:
        packet = more
    assert packet is not None
    assert packet.words == last
    rig.stream._begin(packet, is_new=True)
    found = rig.stream.read_batch(10, 1 << 60)
    assert (found.t_us.tolist(), found.x.tolist(), found.y.tolist()) == ([4 * turn - turn // 8], [7], [5])


def test_a_cap_on_the_rate_drops_whole_parcels_and_counts_their_events() -> None:
    rig = make_rig(packets(0, 1000), cap=5000)
    found, packer = windows(rig, range(10, 1000, 10))
    assert 4500 <= sum(n or 0 for n in found) <= 5600
    assert None not in found
    assert rig.ingest.counts.dropped["rate_cap"] > 4000
    assert_accounted(rig, packer, sum(n or 0 for n in found))


def test_a_camera_that_has_ended_leaves_nothing_unread() -> None:
    rig = make_rig(packets(0, 30), patience=Patience(retry_us=0))
    rig.run_script()
    rig.feed.script = [(40 * MS, gone())]
    rig.step(2)
    rig.queue.finish()
    found, packer = windows(rig, range(10, 40, 10))
    assert found == [100, 100, 100]
    rig.stream.await_window(40 * MS, 50 * MS)
    assert (rig.stream.t_next_us, rig.camera.state) == (None, CameraState.ENDED)
    assert_accounted(rig, packer, 300)


def test_what_came_before_the_run_was_ready_is_left_out_and_counted() -> None:
    rig = make_rig(packets(0, 100))
    rig.step(50)
    rig.stream.begin_now()
    assert (rig.stream.early, rig.stream.t_next_us) == (500, 50 * MS)
    found, packer = windows(rig, range(60, 100, 10))
    assert found == [100] * 4
    assert rig.ingest.counts.received == 500 + 400 + packer.skipped + rig.stream.unread
