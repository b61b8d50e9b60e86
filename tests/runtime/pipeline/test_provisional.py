"""Decisions between pairs: when there are any, and on which events; pairs are as they would be without."""

from __future__ import annotations

import threading
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from velora_runtime.inference.recogniser import PairRecogniser
from velora_runtime.ingest.packets import Decoded
from velora_runtime.pipeline.frame_source import RunInputs
from velora_runtime.pipeline.pipeline import Pipeline
from velora_runtime.pipeline.provisional import Budget, LiveSteps, ProvisionalPacker

from tests.fakes import FakeClock, FakeRGB, MemoryEvents, RecordingEngine, RecordingSink, tiny_manifest
from tests.fakes_cameras import batch, make_rig
from velora_edge.bundle import EventInput, Palette
from velora_edge.datatypes import EventBatch, FramePair, TriggerBatch
from velora_edge.errors import InputError
from velora_edge.events.filters.event_preprocessing import EventPreprocessing, FilteredStream
from velora_edge.preprocessing.packer import Packer, Pair
from velora_edge.preprocessing.sync import TimestampSync
from velora_edge.preprocessing.windows import SteadyEdges, Steps, WindowRule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from velora_runtime.pipeline.frame_source import Pace
    from velora_runtime.sinks.base import Result

    from velora_edge.events.base import EventStream

FRAMES_US = [1000 * k for k in range(1, 8)]
STEPS = Steps(Fraction(4000), 1500)
DRAW = np.random.default_rng(5)
EVENTS = [
    (int(t), int(DRAW.integers(8)), int(DRAW.integers(8)), int(DRAW.integers(2)))
    for t in np.sort(DRAW.integers(0, 12_000, 600))
]


class Sees(RecordingEngine):
    """Its logits are made of the tokens that a decision sees, which are whole images' sums."""

    def __init__(self) -> None:
        super().__init__(3, labels=3)
        self.tokens = {"rgb": np.zeros(3), "event": np.zeros(3), "diff": np.zeros(2)}

    def encode(self, modality: str, images: Sequence[np.ndarray], slot: Any, patches: Any = None) -> None:
        weights = np.arange(1, images[0].size + 1).reshape(images[0].shape)
        values = [float((weights * image).sum() % 1009) for image in images]
        now, before = values[::2], values[1::2]  # of a camera that is absent both are what is left over in it
        self.tokens[modality][slot.place(modality)] = sum(now) - sum(before)

    def decide(self, phase: int, presence: Any) -> np.ndarray:
        seen = [(self.tokens[name] * getattr(presence, name)).sum() for name in ("rgb", "event", "diff")]
        self.logits = np.array(seen, np.float32) / 1000  # the engine's own array would do as well
        return self.logits


def run(
    *,
    times_us: list[int] | None = FRAMES_US,
    events: list[tuple[int, int, int, int]] = EVENTS,
    steps: Steps | None = STEPS,
    stream: EventStream | None = None,
    pace: Pace = "max",
    idle_below: int = 0,
    engine: RecordingEngine | None = None,
    duration_us: int | None = None,
) -> tuple[list[Result], Pipeline]:
    manifest, clock, sink = tiny_manifest(clip_length=3), FakeClock(), RecordingSink()
    sink.takes_provisional = True
    stream = stream or MemoryEvents(events).stream()
    if times_us is None:
        edges = SteadyEdges(0, Fraction(1000), lambda: stream.t_next_us, lead=3)
        inputs = RunInputs(None, None, edges, duration_us, steps=steps)
    else:
        inputs = RunInputs(FakeRGB(times_us), TimestampSync(0, ""), None, duration_us, steps=steps)
    kind = Packer if steps is None else ProvisionalPacker
    packer = kind(manifest, stream, WindowRule(1000, None if times_us else 0), clock)
    recogniser = PairRecogniser(manifest, engine or Sees(), clock, idle_below=idle_below)
    pipeline = Pipeline(manifest, inputs, packer, recogniser, [sink], pace, clock)
    pipeline.run()
    return sink.written, pipeline


def told(results: list[Result], *, provisional: bool) -> list[tuple[Any, ...]]:
    said = [result.prediction for result in results if result.prediction is not None]
    return [(p.seq, p.t_us, p.top, p.events, p.is_idle) for p in said if p.is_provisional == provisional]


def test_there_is_one_at_each_step_after_a_pair_of_a_full_clip_until_the_next() -> None:
    results, pipeline = run()
    said = [result.prediction for result in results if result.prediction is not None]
    expected = [
        3000,
        3250,
        3500,
        3750,
        4000,
        4250,
        4500,
        4750,
        5000,
        5250,
        5500,
        5750,
        6000,
        6250,
        6500,
        6750,
        7000,
    ]
    assert [p.t_us for p in said] == expected
    assert [p.seq for p in said] == [2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 6, 6, 6, 6]
    assert [p.is_provisional for p in said] == [t % 1000 != 0 for t in expected]
    counts = pipeline.report.provisional
    assert (counts.made, counts.left_out.total(), pipeline.report.predictions) == (12, 0, 5)


def test_its_events_are_those_since_the_last_pair() -> None:
    found = {t_us: n for _, t_us, _, n, _ in told(run()[0], provisional=True)}
    assert found == {t: sum(t // 1000 * 1000 <= e[0] < t for e in EVENTS) for t in found}
    assert len(found) == 12


CASES: dict[str, dict[str, Any]] = {
    "pictures": {},
    "pictures that jitter": {"times_us": [1003, 1990, 3014, 4001, 4960, 6033, 7000]},
    "pictures that are missing": {"times_us": [1000, 2000, 3000, 5100, 6000, 7600, 9200]},
    "pictures that outlast the events": {"times_us": FRAMES_US, "events": [e for e in EVENTS if e[0] < 4400]},
    "pictures before the events": {"times_us": FRAMES_US, "events": [e for e in EVENTS if e[0] > 3300]},
    "events alone": {"times_us": None},
    "a still scene": {"events": [e for e in EVENTS if e[0] < 2500 or e[0] > 6800], "idle_below": 3},
    "a duration": {"duration_us": 4300},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("rate_hz", [1500, 4000, 30_000])
def test_pairs_are_decided_as_they_are_without(case: str, rate_hz: int) -> None:
    without, alone = run(steps=None, **CASES[case])
    results, both = run(steps=Steps(Fraction(rate_hz), 1500), **CASES[case])
    assert told(results, provisional=False) == told(without, provisional=False)
    assert [result.pair.t_us for result in without] == [
        result.pair.t_us
        for result in results
        if result.prediction is None or not result.prediction.is_provisional
    ]
    ours, theirs = both.report.pairs, alone.report.pairs
    assert (ours.packed, ours.events, ours.without_events) == (
        theirs.packed,
        theirs.events,
        theirs.without_events,
    )
    if case != "a duration":  # events of the window that it cuts were walked over
        assert ours.skipped_events == theirs.skipped_events


def test_two_runs_give_the_same() -> None:
    first, second = run()[0], run()[0]
    assert told(first, provisional=True) == told(second, provisional=True)
    assert len(told(first, provisional=True)) == 12


def test_pairs_are_the_same_behind_filters() -> None:
    def filtered() -> EventStream:
        chain = EventPreprocessing(filters=("background=300", "refractory=100")).filter_chain((8, 8))
        return FilteredStream(MemoryEvents(EVENTS).stream(), chain)

    without, alone = run(steps=None, stream=filtered())
    results, both = run(stream=filtered())
    assert told(results, provisional=False) == told(without, provisional=False)
    assert both.report.pairs.events == alone.report.pairs.events > 50


def test_a_still_window_computes_nothing_and_says_so_and_a_movement_is_seen_at_once() -> None:
    still = [e for e in EVENTS if e[0] < 1000 or e[0] >= 6300]
    results, pipeline = run(events=still, idle_below=3)
    idle = {t_us: is_idle for _, t_us, _, _, is_idle in told(results, provisional=True)}
    assert {t: idle[t] for t in (5250, 5750, 6250, 6500, 6750)} == {
        5250: True, 5750: True, 6250: True, 6500: False, 6750: False,
    }  # fmt: skip
    assert pipeline.report.provisional.idle == sum(idle.values())


class Slow(Sees):
    """Takes the clock's time for each event frame, and tells when it began."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.begun = threading.Event(), threading.Event()

    def encode(self, modality: str, images: Sequence[np.ndarray], slot: Any, patches: Any = None) -> None:
        if modality == "event":
            self.begun.set()
            assert self.gate.wait(30)
        super().encode(modality, images, slot)


def test_a_slow_engine_leaves_them_out_first_and_counts_them() -> None:
    engine = Slow()
    timer = threading.Timer(0.3, engine.gate.set)
    timer.start()
    results, pipeline = run(pace="realtime", engine=engine)
    counts, pairs = pipeline.report.provisional, pipeline.report.pairs
    assert (pairs.dropped, pipeline.report.frames.dropped, pipeline.report.predictions) == (0, 0, 5)
    due = 18  # three between each two of seven pictures; of those before the first full clip six
    assert 0 < counts.left_out.total() <= due - counts.made
    without, _ = run(steps=None)
    assert told(results, provisional=False) == told(without, provisional=False)


def test_one_that_would_not_be_over_before_the_next_pair_is_left_out_and_the_bound_is_forgotten() -> None:
    budget, pair = Budget(), Pair.empty((2, 2))
    pair.frames, pair.ready_us, pair.coming_us = FramePair(3, 25_000, None, None), 100, 33_000
    assert budget.allows(pair, 8_100)
    assert not budget.allows(pair, 8_101)
    budget.see(9_000)
    assert [budget.allows(pair, 100) for _ in range(3)] == [False, False, True]


class Queue:
    """An event camera whose events have come up to a time."""

    def __init__(self) -> None:
        self.reached_us = 0

    def judge_window(self, t0_us: int, t1_us: int, now_us: int) -> bool | None:
        return True if self.reached_us >= t1_us else None


def test_live_the_newest_step_is_taken_once_up_to_the_shortest_window_of_late() -> None:
    class Packs:
        next_window: tuple[int, int] | None = None

    packer, stream = Packs(), Queue()
    live = LiveSteps(Steps(Fraction(120), 50_000), packer, stream, FakeClock())  # type: ignore[arg-type]
    assert live.take() is None
    packer.next_window = (100_000, 133_000)
    found = []
    for reached_us in (105_000, 109_000, 110_000, 126_000, 140_000):
        stream.reached_us = reached_us
        request = live.take()
        found.append(None if request is None else (request.t_us, request.coming_us))
    assert found == [None, (108_333, 133_000), None, (125_000, 133_000), None]
    assert live.overtaken == 1


@pytest.mark.parametrize("seed", range(6))
def test_live_windows_are_the_same_with_and_without(seed: int) -> None:
    draw, ms = np.random.default_rng(seed), 1000
    script, times_us, start = [], [], 0
    while start < 200 * ms:
        end = start + int(draw.integers(1, 5 * ms))
        t_us = np.sort(draw.integers(start, end, draw.integers(0, 40)))
        events = [(int(t), *map(int, draw.integers(0, 8, 2)), int(draw.integers(2))) for t in t_us]
        script.append(
            (end, Decoded(batch(*events) if events else EventBatch.empty(), TriggerBatch.empty(), end))
        )
        start, times_us = end, times_us + t_us.tolist()
    ends_us = [
        int(t) for t in np.cumsum(draw.choice([10 * ms, 9 * ms + 123, 4 * ms, 40 * ms], 60)) if t < 190 * ms
    ]
    event = EventInput(window_us=10 * ms, palette=Palette(), fit="stretch")

    def pack(steps: Steps | None) -> tuple[list[Any], int, list[tuple[int, int, int]]]:
        rig, peeked = make_rig(script, encoding=None), []
        kind = Packer if steps is None else ProvisionalPacker
        packer = kind(tiny_manifest(event=event), rig.stream, WindowRule(10 * ms, 0), rig.clock)
        found, between = [], Pair.empty((8, 8))
        live = (
            LiveSteps(steps, packer, rig.stream, rig.clock)
            if steps is not None and isinstance(packer, ProvisionalPacker)
            else None
        )
        for end_us in ends_us:
            while rig.stream.judge_window(end_us - 10 * ms, end_us, rig.clock.t_us) is None:
                rig.step()
                packer.pack_ahead()
                request = None if live is None else live.take()  # some end after the pair to come
                if live is not None and request is not None and live.packer.peek_into(between, request):
                    assert between.frames.event is not None
                    peeked.append((between.frames.event.t0_us, between.frames.t_us, between.events))
            packed = Pair.empty((8, 8))
            packer.pack_into(packed, end_us, None, 0)
            frame = packed.frames.event
            found.append(None if frame is None else (frame.t0_us, packed.events, packed.event_image.tolist()))
        packer.step_back()
        return found, packer.skipped, peeked

    plain, with_steps = pack(None), pack(Steps(Fraction(500), 15 * ms))
    assert with_steps[:2] == plain[:2]
    assert len(with_steps[2]) > 5
    counted = [(t0, t1, sum(t0 <= t < t1 for t in times_us)) for t0, t1, _ in with_steps[2]]
    assert with_steps[2] == counted


def test_frames_that_depend_on_the_windows_end_are_refused() -> None:
    event = EventInput(window_us=1000, representation="voxel_grid")
    with pytest.raises(InputError, match="--provisional shows a window before its end is known"):
        ProvisionalPacker(
            tiny_manifest(event=event), MemoryEvents(EVENTS).stream(), WindowRule(1000), FakeClock()
        )
