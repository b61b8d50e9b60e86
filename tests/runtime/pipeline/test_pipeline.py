"""The threads together: nothing is lost at pace max, drops are counted at realtime, every end is clean."""

from __future__ import annotations

import threading
from fractions import Fraction
from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest
from velora_runtime.inference.recogniser import PairRecogniser
from velora_runtime.pipeline.frame_source import RunInputs
from velora_runtime.pipeline.pipeline import ROOM_FOR_STALLS, Pipeline

from tests.fakes import FakeClock, FakeRGB, MemoryEvents, RecordingEngine, RecordingSink, tiny_manifest
from velora_edge.errors import EngineError, RecordingError
from velora_edge.preprocessing.packer import Packer
from velora_edge.preprocessing.sync import TimestampSync
from velora_edge.preprocessing.windows import SteadyEdges, WindowRule

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from velora_runtime.engines.ring import Presence
    from velora_runtime.pipeline.frame_source import Pace

    from velora_edge.datatypes import RGBFrame

FRAMES_US = [1000 * k for k in range(1, 11)]
EVENTS = [(100 * k, k % 8, 3, k % 2) for k in range(120)]


class WaitingEngine(RecordingEngine):
    """Lets `begun` know that it has the first picture, and waits at `gate` before it goes on."""

    def __init__(self, clip_length: int) -> None:
        super().__init__(clip_length, labels=3)
        self.begun, self.gate = threading.Event(), threading.Event()

    def encode(
        self, modality: str, images: Sequence[np.ndarray], slot: Any, patches: np.ndarray | None = None
    ) -> None:
        if modality == "rgb":
            self.begun.set()
            assert self.gate.wait(30)
        super().encode(modality, images, slot)


class Remembers(RecordingEngine):
    """Keeps what each clip was decided on, in no order: as the model's mean over it."""

    def __init__(self, clip_length: int, labels: int) -> None:
        super().__init__(clip_length, labels=labels)
        self.clips: list[tuple[list[int | None], list[tuple[int, ...] | None]]] = []

    def decide(self, phase: int, presence: Presence) -> np.ndarray:
        self.clips.append((sorted(self.event[phase], key=str), sorted(self.diff[phase], key=str)))
        return super().decide(phase, presence)


def make(
    *,
    times_us: list[int] | None = FRAMES_US,
    events: list[tuple[int, int, int, int]] | None = EVENTS,
    rgb: FakeRGB | None = None,
    engine: RecordingEngine | None = None,
    sinks: list[RecordingSink] | None = None,
    pace: Pace = "max",
    rate_hz: int = 1000,
    duration_us: int | None = None,
    clock: FakeClock | None = None,
    passes_gaps: bool = True,
    is_live: bool = False,
) -> Pipeline:
    manifest, clock = tiny_manifest(clip_length=3), clock or FakeClock()
    stream = None if events is None else MemoryEvents(events).stream()
    start_us = None
    if times_us is None:
        start_us = events[0][0] if events else 0
        next_us = None if stream is None or not passes_gaps else lambda: stream.t_next_us
        feed = RunInputs(None, None, SteadyEdges(start_us, Fraction(rate_hz), next_us, lead=3), duration_us)
    else:
        feed = RunInputs(rgb or FakeRGB(times_us), TimestampSync(0, ""), None, duration_us, is_live=is_live)
    packer = Packer(manifest, stream, WindowRule(1000, start_us), clock)
    recogniser = PairRecogniser(manifest, engine or RecordingEngine(3, labels=3), clock)
    return Pipeline(manifest, feed, packer, recogniser, sinks or [], pace, clock)


def test_every_pair_is_seen_and_every_full_clip_predicted() -> None:
    sink = RecordingSink()
    report = make(sinks=[sink]).run()
    assert [seen.pair.t_us for seen in sink.written] == FRAMES_US
    assert [seen.missing for seen in sink.written] == [2, 1] + [0] * 8
    predictions = [seen.prediction for seen in sink.written]
    assert predictions[:2] == [None, None]
    assert [(p.seq, p.t_us, p.events) for p in predictions if p] == [
        (k, FRAMES_US[k], 10) for k in range(2, 10)
    ]
    assert (report.pairs.packed, report.predictions, report.pairs.events) == (10, 8, 100)
    assert (report.first_us, report.last_us, report.recording_s) == (1000, 10_000, 0.009)
    assert report.unused_frames == 0


def test_events_alone_give_a_window_for_every_period_that_is_whole() -> None:
    sink = RecordingSink()
    report = make(times_us=None, sinks=[sink]).run()
    pairs = [seen.pair for seen in sink.written]
    assert [pair.t_us for pair in pairs] == [1000 * k for k in range(1, 12)]  # events until 11900
    assert {pair.rgb for pair in pairs} == {None}
    assert (report.predictions, report.pairs.without_rgb) == (9, 11)
    assert (report.pairs.events, report.pairs.skipped_events) == (110, 10)


def test_rgb_alone_needs_no_events() -> None:
    sink = RecordingSink()
    report = make(events=None, sinks=[sink]).run()
    assert [(seen.pair.event, seen.pair.skew_us) for seen in sink.written] == [(None, None)] * 10
    assert (report.predictions, report.pairs.without_events, report.skew_us.count) == (8, 10, 0)


def test_the_rgb_camera_may_outlast_the_events() -> None:
    sink = RecordingSink()
    report = make(events=[(t, 1, 1, 1) for t in range(500, 4600, 100)], sinks=[sink]).run()
    assert (report.pairs.packed, report.pairs.without_events, report.predictions) == (10, 5, 8)
    said = [seen.prediction.missing for seen in sink.written if seen.prediction]
    assert said == [()] * 3 + [("event",)] * 5


def test_two_runs_at_pace_max_see_and_say_the_same() -> None:
    runs = []
    for _ in range(2):
        engine, sink = RecordingEngine(3, labels=3), RecordingSink()
        report = make(engine=engine, sinks=[sink]).run()
        said = [seen.prediction and seen.prediction.label for seen in sink.written]
        runs.append((engine.rgb, engine.event, engine.diff, engine.decided, said, report.as_dict()["events"]))
    assert runs[0] == runs[1]


def test_a_slow_sink_loses_nothing_at_pace_max() -> None:
    gate = threading.Event()
    sink = RecordingSink(room=1, gate=gate)
    timer = threading.Timer(0.05, gate.set)
    timer.start()
    report = make(sinks=[sink]).run()
    timer.join()
    assert [seen.pair.seq for seen in sink.written] == list(range(10))
    assert report.sink_drops == {"recording": 0}


def test_an_engine_that_stalls_for_too_long_loses_old_pairs_at_realtime_and_they_are_counted() -> None:
    engine = WaitingEngine(3)
    clock = FakeClock()

    class Frames(FakeRGB):
        def __iter__(self) -> Iterator[RGBFrame]:
            for frame in super().__iter__():
                if frame.seq == 1:
                    assert engine.begun.wait(30)
                yield frame
                wait_until_packed(pipeline, frame.seq + 1)
            engine.gate.set()

    sink = RecordingSink()
    times_us = [1000 * k for k in range(1, ROOM_FOR_STALLS + 4)]
    pipeline = make(rgb=Frames(times_us), engine=engine, sinks=[sink], pace="realtime", clock=clock)
    report = pipeline.run()
    assert [seen.pair.seq for seen in sink.written] == [0, *range(3, ROOM_FOR_STALLS + 3)]
    assert (report.pairs.packed, report.pairs.dropped, report.pairs.dropped_events) == (len(times_us), 2, 20)
    assert report.dropped() == {"rgb": 2, "events": 20}
    assert clock.waits == [t - 1000 for t in times_us]


def wait_until_packed(pipeline: Pipeline, pairs: int) -> None:
    """Until the packing thread has handed on that many pairs, or 30 s."""
    waiting = threading.Event()
    for _ in range(30_000):
        counts = pipeline.report.pairs
        if counts.packed >= pairs and counts.dropped >= pairs - 1 - ROOM_FOR_STALLS:
            return
        waiting.wait(0.001)
    raise AssertionError(f"{pipeline.report.pairs} after 30 s")


def test_realtime_waits_for_each_instant_of_the_recording() -> None:
    clock = FakeClock()
    clock.t_us = 50_000
    make(times_us=None, pace="realtime", clock=clock).run()
    assert clock.waits == [50_000 + 1000 * k for k in range(12)]


@pytest.mark.parametrize(("is_live", "last_us"), [(True, 450_000), (False, 300_000)])
def test_a_live_duration_counts_from_the_first_pair_of_both_cameras(is_live: bool, last_us: int) -> None:
    """Pictures come every 50 ms, events from 160 ms on."""
    late = [(160_000 + 100 * k, k % 8, 3, k % 2) for k in range(8000)]
    times_us = [50_000 * k for k in range(1, 18)]
    sink = RecordingSink()
    report = make(times_us=times_us, events=late, sinks=[sink], duration_us=300_000, is_live=is_live).run()
    assert [result.pair.t_us for result in sink.written][-1] == last_us
    assert report.warnings == (["the first 0.15 s are without events"] if is_live else [])


def test_duration_ends_the_run_early() -> None:
    sink = RecordingSink()
    report = make(sinks=[sink], duration_us=4000).run()
    assert [seen.pair.t_us for seen in sink.written] == [1000, 2000, 3000, 4000]
    assert not report.was_stopped
    counted = report.frames.read
    assert counted == report.pairs.packed + report.unused_frames


def test_frames_that_are_not_later_are_left_out_and_counted() -> None:
    sink = RecordingSink()
    report = make(times_us=[1000, 2000, 2000, 1500, 3000], sinks=[sink]).run()
    assert [seen.pair.t_us for seen in sink.written] == [1000, 2000, 3000]
    assert (report.frames.late, report.unused_frames) == (2, 0)


def test_a_frame_without_a_place_on_the_event_clock_is_counted() -> None:
    class EverySecond(TimestampSync):
        def place(self, frame: RGBFrame) -> Any:
            return None if frame.seq % 2 else super().place(frame)

    pipeline = make()
    pipeline._feed = RunInputs(pipeline._feed.rgb, EverySecond(0, ""))
    report = pipeline.run()
    assert (report.frames.read, report.frames.unplaced, report.pairs.packed) == (10, 5, 5)


def test_stop_ends_an_endless_camera_and_finishes_what_is_under_way() -> None:
    class Endless(FakeRGB):
        def __iter__(self) -> Iterator[RGBFrame]:
            for frame in FakeRGB(list(range(1000, 10**9, 1000))):
                if frame.seq == 20:
                    pipeline.stop()
                yield frame

    sink = RecordingSink()
    pipeline = make(rgb=Endless([0]), sinks=[sink])
    report = pipeline.run()
    assert report.was_stopped
    assert [seen.pair.seq for seen in sink.written] == list(range(20))
    assert (sink.closed, report.frames.read, report.unused_frames) == (1, 21, 1)


@pytest.mark.parametrize("where", ["rgb", "events", "engine", "sink"])
def test_an_error_in_any_thread_ends_the_run_with_that_error_and_closes_the_sinks(where: str) -> None:
    class BrokenRGB(FakeRGB):
        def __iter__(self) -> Iterator[RGBFrame]:
            yield from islice(super().__iter__(), 3)
            raise RecordingError("broken rgb")

    class BrokenEvents(MemoryEvents):
        def batches(self) -> Iterator[Any]:
            yield self.batch
            raise RecordingError("broken events")

    class BrokenEngine(RecordingEngine):
        def decide(self, *args: Any) -> np.ndarray:
            raise EngineError("broken engine")

    class BrokenSink(RecordingSink):
        def write(self, item: Any) -> None:
            raise RecordingError("broken sink")

    other, sink = RecordingSink(), (BrokenSink() if where == "sink" else RecordingSink())
    pipeline = make(
        rgb=BrokenRGB(FRAMES_US) if where == "rgb" else None,
        engine=BrokenEngine(3) if where == "engine" else None,
        sinks=[other, sink],
    )
    if where == "events":
        pipeline._packer._events = BrokenEvents(EVENTS[:30]).stream()
    with pytest.raises((RecordingError, EngineError), match=f"broken {where}"):
        pipeline.run()
    assert (other.closed, sink.closed) == (1, 1)
    assert [t.name for t in threading.enumerate() if t.name in ("rgb", "pack", "inference")] == []


def test_a_sink_too_slow_for_realtime_is_dropped_from_and_told() -> None:
    gate = threading.Event()
    slow = RecordingSink(room=2, gate=gate)

    class LastOpens(RecordingSink):
        def take(self, seen: Any) -> Any:
            if seen.pair.seq == 9:
                gate.set()
            return super().take(seen)

    class OneAtATime(FakeRGB):
        def __iter__(self) -> Iterator[RGBFrame]:
            for frame in super().__iter__():
                yield frame
                while len(slow.taken) <= frame.seq:
                    threading.Event().wait(0.001)

    report = make(rgb=OneAtATime(FRAMES_US), sinks=[slow, LastOpens()], pace="realtime").run()
    assert len(slow.written) + len(slow.discarded) == 10
    assert report.sink_drops == {"recording": len(slow.discarded)}
    assert 6 <= len(slow.discarded) <= 8


def test_steady_state_uses_the_same_arrays_again() -> None:
    pipeline = make(times_us=None, events=[(10 * k, 1, 1, 1) for k in range(30_000)])
    report = pipeline.run()
    assert report.pairs.packed > 250
    assert pipeline._free.made <= 7


HOUR_US = 3_600_000_000
AFTER_A_GAP = [*EVENTS, *((t_us + HOUR_US, x, y, p) for t_us, x, y, p in EVENTS)]


@pytest.mark.parametrize("pace", ["max", "realtime"])
def test_an_hour_without_an_event_is_passed_over_in_one_step(pace: Pace) -> None:
    sink, clock = RecordingSink(), FakeClock()
    began_us = clock.now_us()
    report = make(events=AFTER_A_GAP, times_us=None, sinks=[sink], pace=pace, clock=clock).run()
    ends_us = [seen.pair.t_us for seen in sink.written]
    first, second = [1000 * k for k in range(1, 13)], [HOUR_US + 1000 * k for k in range(1, 12)]
    made = [*first, 13_000, 14_000, 15_000, HOUR_US, *second]
    if pace == "max":
        assert ends_us == made
    assert set(ends_us) <= set(made)
    assert clock.now_us() - began_us < 1_000_000
    assert report.as_dict()["passed_over_windows"] == HOUR_US // 1000 - 16
    assert report.warnings == [
        f"there is no event from 12,000 to {HOUR_US + EVENTS[0][0]:,} us (3,600 s): 3,599,984 empty windows "
        "were passed over"
    ]


def test_after_a_gap_the_clip_is_what_it_would_be_if_all_windows_had_been_made() -> None:
    # The image's first pixel tells the polarity that came last there; windows of 100 ms.
    before = [(20_000 * k, 0, 0, k % 3 == 0) for k in range(20)]
    after = [(70_000_000 + 20_000 * k, 0, 0, k % 4 == 0) for k in range(14)]
    clips: dict[bool, list[tuple[int, list[int | None], list[tuple[int, ...] | None]]]] = {}
    for passes_gaps in (True, False):
        sink, engine = RecordingSink(), Remembers(3, labels=3)
        make(
            events=[*before, *after], times_us=None, sinks=[sink], engine=engine, rate_hz=10,
            passes_gaps=passes_gaps,
        ).run()  # fmt: skip
        ends_us = [seen.pair.t_us for seen in sink.written if seen.prediction is not None]
        clips[passes_gaps] = [(t, *clip) for t, clip in zip(ends_us, engine.clips, strict=True)]
    assert len(clips[False]) > 690
    assert len(clips[True]) < 12
    assert set(map(str, clips[True])) < set(map(str, clips[False]))
    assert clips[True][-2:] == clips[False][-2:]


def test_frames_in_an_hour_without_events_keep_their_windows() -> None:
    sink = RecordingSink()
    times_us = [1000, 2000, HOUR_US // 2, HOUR_US + 1000, HOUR_US + 2000]
    report = make(events=AFTER_A_GAP, times_us=times_us, sinks=[sink]).run()
    pairs = [seen.pair for seen in sink.written]
    assert [pair.t_us for pair in pairs] == times_us
    assert [pair.event.events for pair in pairs if pair.event is not None] == [10, 10, 0, 10, 10]
    assert (report.pairs.passed_over, report.warnings) == (0, [])
