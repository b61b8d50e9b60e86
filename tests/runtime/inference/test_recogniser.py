"""Pairs go into the right slots, and a stream is recognised as a whole clip is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from velora_runtime.inference.recogniser import PairRecogniser, SpanWatch, softmax_into
from velora_runtime.inference.run_model import with_stride

from tests.fakes import FakeClock, RecordingEngine, tiny_manifest, write_tiny_bundle
from tests.runtime.streaming import make_pair, stream_and_clips
from velora_edge.errors import EngineError, InputError

if TYPE_CHECKING:
    from pathlib import Path

    from velora_runtime.engines.ring import Presence

    from velora_edge.preprocessing.packer import Pair


def feed(recogniser: PairRecogniser, kinds: str) -> list[bool]:
    """Pairs whose images hold their number: b both, r RGB alone, e events alone. Whether each was decided."""
    decided = []
    for i, kind in enumerate(kinds):
        image = np.full((8, 8, 3), i, np.uint8)
        pair = make_pair(i, image if kind in "br" else None, image + 100 if kind in "be" else None)
        decided.append(recogniser.see(pair) is not None)
    return decided


def recogniser_of(engine: RecordingEngine, clip_length: int, stride: int = 1) -> PairRecogniser:
    return PairRecogniser(tiny_manifest(clip_length, stride), engine, FakeClock())


def test_tokens_take_the_oldest_slot() -> None:
    engine = RecordingEngine(3)
    assert feed(recogniser_of(engine, 3), "bb") == [False, False]
    assert (engine.rgb, engine.event) == ([[0, 1, None]], [[100, 101, None]])
    assert engine.diff == [[((0, 1), (100, 101)), None]]
    engine = RecordingEngine(3)
    assert feed(recogniser_of(engine, 3), "bbbb") == [False, False, True, True]
    assert (engine.rgb, engine.event) == ([[3, 1, 2]], [[103, 101, 102]])
    assert engine.diff == [[((2, 3), (102, 103)), ((1, 2), (101, 102))]]


def test_with_a_stride_the_difference_is_to_the_pair_a_stride_ago() -> None:
    engine = RecordingEngine(3, stride=2)
    assert feed(recogniser_of(engine, 3, 2), "bbbbbb") == [False] * 4 + [True] * 2
    assert engine.rgb == [[0, 2, 4], [1, 3, 5]]
    assert engine.diff == [
        [((0, 2), (100, 102)), ((2, 4), (102, 104))],
        [((1, 3), (101, 103)), ((3, 5), (103, 105))],
    ]
    assert [phase for phase, *_ in engine.decided] == [0, 1]


def test_an_absent_camera_costs_nothing_and_its_difference_is_the_same_picture_twice() -> None:
    engine = RecordingEngine(3)
    feed(recogniser_of(engine, 3), "brreb")
    assert engine.rgb == [[0, 4, 2]]  # slot 0 still holds pair 0's tokens, which presence leaves out
    assert engine.event == [[103, 104, None]]
    assert engine.diff == [[((0, 1), None), (None, (103, 104))]]
    assert engine.decided[-1] == (0, [0, 1, 1], [1, 1, 0], [0, 1])


def test_an_absent_camera_leaves_the_picture_before_its_absence_out_of_the_difference() -> None:
    engine = RecordingEngine(4)
    feed(recogniser_of(engine, 4), "beb")
    assert engine.diff == [[(None, (100, 101)), (None, (101, 102)), None]]


def watch(
    events: list[int], idle_below: int, **lacks: int
) -> tuple[list[int], list[bool], list[list[float]]]:
    """Pairs with so many events each: numbers of those that were encoded, which were idle, and the logits."""
    engine = RecordingEngine(3)
    recogniser = PairRecogniser(tiny_manifest(3), engine, FakeClock(), idle_below=idle_below)
    encoded, idle, logits = [], [], []
    for i, count in enumerate(events):
        image = np.full((8, 8, 3), i, np.uint8)
        pair = make_pair(i, image, None if i in lacks.values() else image)
        pair.events, engine.logits = count, np.full(3, i, np.float32)
        told = recogniser.see(pair)
        if any(i in ring for ring in engine.rgb):
            encoded.append(i)
        idle.append(recogniser.is_idle)
        logits.append([] if told is None else told.tolist())
    return encoded, idle, logits


def test_nothing_is_computed_once_a_whole_clip_was_still_and_at_once_when_something_moves() -> None:
    encoded, idle, logits = watch([50, 9, 9, 9, 9, 0, 10, 9], idle_below=10)
    assert encoded == [0, 1, 2, 3, 6, 7]
    assert idle == [False] * 4 + [True, True, False, False]
    assert logits[4] == logits[5] == logits[3] != logits[6]


def test_a_pair_that_lacks_its_events_is_computed() -> None:
    encoded, idle, _ = watch([0] * 6, idle_below=10, lacks=4)
    assert (encoded, idle) == ([0, 1, 2, 4, 5], [False, False, False, True, False, False])


def test_without_a_bound_still_pairs_are_computed() -> None:
    encoded, idle, _ = watch([0] * 5, idle_below=0)
    assert (encoded, idle) == ([0, 1, 2, 3, 4], [False] * 5)


def between(seq: int, number: int, events: int = 0) -> Pair:
    """A window of events before the pair `seq`, whose image holds a number."""
    pair = make_pair(seq, None, np.full((8, 8, 3), number, np.uint8))
    pair.events, pair.coming_us = events, seq + 1
    return pair


def test_between_pairs_events_take_the_next_slot_and_its_picture_is_left_out() -> None:
    engine = RecordingEngine(3, labels=3)
    recogniser = recogniser_of(engine, 3)
    feed(recogniser, "bbbb")
    assert recogniser.see_between(between(4, 200)) is not None
    assert (engine.rgb, engine.event) == ([[3, 1, 2]], [[103, 200, 102]])
    assert engine.decided[-1] == (0, [1, 0, 1], [1, 1, 1], [1, 1])
    assert recogniser.ring.presence[0].rgb.tolist() == [1, 1, 1]


def test_with_a_stride_events_between_pairs_go_to_the_ring_of_the_next() -> None:
    engine = RecordingEngine(3, stride=2, labels=3)
    recogniser = recogniser_of(engine, 3, 2)
    feed(recogniser, "bbbbb")
    assert recogniser.see_between(between(5, 200)) is None  # the next pair makes that ring's first clip
    feed(recogniser, "b")
    recogniser.see_between(between(6, 201))
    assert engine.event == [[201, 102, 104], [101, 103, 100]]
    assert engine.decided[-1][:2] == (0, [0, 1, 1])


class WritesLogits(RecordingEngine):
    """Writes its logits into the same array each time, as engines do."""

    next = 0.0

    def decide(self, phase: int, presence: Presence) -> np.ndarray:
        self.logits[:] = self.next
        return super().decide(phase, presence)


def test_between_pairs_a_still_window_computes_nothing_and_what_stood_stands() -> None:
    engine = WritesLogits(3, labels=3)
    recogniser = PairRecogniser(tiny_manifest(3), engine, FakeClock(), idle_below=10)

    def see(events: int, logit: float, *, provisional: bool = False) -> tuple[bool, list[float]]:
        pair = between(0, 7, events) if provisional else make_pair(0, *np.zeros((2, 8, 8, 3), np.uint8))
        pair.events, engine.next, decided = events, logit, len(engine.decided)
        logits = (recogniser.see_between if provisional else recogniser.see)(pair)
        assert recogniser.is_idle == (len(engine.decided) == decided and logits is not None)
        return recogniser.is_idle, [] if logits is None else logits.tolist()

    for _ in range(2):
        see(0, 1)
    assert see(0, 3) == (False, [3.0] * 3)
    assert see(0, 4, provisional=True) == (False, [4.0] * 3)  # the gate has not closed
    assert see(0, 3) == (True, [3.0] * 3)
    assert see(9, 5, provisional=True) == (True, [3.0] * 3)
    assert see(10, 6, provisional=True) == (False, [6.0] * 3)
    assert see(0, 7) == (True, [3.0] * 3)
    assert see(10, 8) == (False, [8.0] * 3)


def test_a_prediction_between_pairs_says_so() -> None:
    recogniser = recogniser_of(RecordingEngine(2, labels=3), 2)
    logits = np.zeros(3, np.float32)
    said = [
        recogniser.predict(pair, logits, {}, {})
        for pair in (between(4, 0), make_pair(4, *np.zeros((2, 8, 8, 3))))
    ]
    assert [(p.seq, p.is_provisional) for p in said] == [(4, True), (4, False)]


def test_missing_counts_down_to_the_first_full_clip() -> None:
    recogniser = recogniser_of(RecordingEngine(3, stride=2), 3, 2)
    missing = [recogniser.missing]
    for i in range(6):
        recogniser.see(make_pair(i, np.zeros((8, 8, 3), np.uint8), None))
        missing.append(recogniser.missing)
    assert missing == [5, 4, 3, 2, 1, 0, 0]


def test_a_prediction_names_the_best_labels_and_its_pair() -> None:
    engine = RecordingEngine(2, labels=3)
    recogniser = recogniser_of(engine, 2)
    packed = make_pair(4, np.zeros((8, 8, 3), np.uint8), None)
    packed.events = 17
    logits = np.log(np.array([0.2, 0.7, 0.1], np.float32)) + 5
    prediction = recogniser.predict(packed, logits, {"pack": 1.0}, {"rgb": 2, "events": 3})
    assert (prediction.seq, prediction.t_us, prediction.label, prediction.events) == (4, 4, "right", 17)
    assert [label for label, _ in prediction.top] == ["right", "left", "still"]
    assert [score for _, score in prediction.top] == pytest.approx([0.7, 0.2, 0.1], abs=1e-6)
    assert prediction.score == prediction.top[0][1]
    assert (prediction.latency_ms, prediction.dropped) == ({"pack": 1.0}, {"rgb": 2, "events": 3})


def test_softmax_survives_large_logits() -> None:
    scores = np.zeros(3, np.float32)
    softmax_into(np.array([1e30, 1e30, -1e30], np.float32), scores)
    assert scores.tolist() == [0.5, 0.5, 0]


def test_logits_that_are_no_numbers_are_an_engine_error() -> None:
    engine = RecordingEngine(2)
    engine.logits[:] = np.nan
    with pytest.raises(EngineError, match="a fake gave logits that are no numbers"):
        feed(recogniser_of(engine, 2), "bb")


STREAMS = {
    "both": "bbbbbbbbbbbbbb",
    "events alone": "eeeeeeeeeeeeee",
    "RGB alone": "rrrrrrrrrrrrrr",
    "RGB lost for a while": "bbbbbeeeebbbbb",
    "events lost for good": "bbbbbbbrrrrrrr",
    "taking turns": "rererererebbre",
}


@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("kinds", STREAMS.values(), ids=STREAMS)
def test_streaming_equals_whole_clips(tmp_path: Path, kinds: str, stride: int) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny.velora", clip_length=4, stride=stride)
    rng = np.random.default_rng(11)
    rgb, event = (rng.integers(0, 256, (len(kinds), 8, 8, 3), dtype=np.uint8) for _ in range(2))
    streamed, whole = stream_and_clips(bundle, rgb, event, kinds)
    assert len(streamed) == len(kinds) - 3 * stride
    np.testing.assert_allclose(streamed, whole, atol=1e-4)
    assert np.ptp(whole, axis=0).min() > 1e-2  # the clips differ, so a stale ring would be seen


def test_streaming_equals_whole_clips_in_openvino(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino", reason="needs the extra openvino")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    bundle = write_tiny_bundle(tmp_path / "tiny.velora", clip_length=4, stride=3)
    rng = np.random.default_rng(11)
    kinds = STREAMS["RGB lost for a while"]
    rgb, event = (rng.integers(0, 256, (len(kinds), 8, 8, 3), dtype=np.uint8) for _ in range(2))
    streamed, whole = stream_and_clips(bundle, rgb, event, kinds, backend="openvino")
    assert len(streamed) == len(kinds) - 9
    np.testing.assert_allclose(streamed, whole, atol=1e-4)


def watched(
    times_us: list[int], *, span_s: float | None = 0.2, stride: int = 1
) -> tuple[SpanWatch, list[str]]:
    """A watch over clips of three pairs that saw pairs at these times, to the run's end; what it told."""
    lines: list[str] = []
    watch = SpanWatch(tiny_manifest(3, stride, span_s=span_s), lines.append)
    for t_us in times_us:
        watch.see(t_us)
    watch.end()
    return watch, lines


def steady(period_ms: int, count: int) -> list[int]:
    return [5_000_000 + 1000 * period_ms * k for k in range(count)]


def test_clips_that_cover_another_time_than_in_training_are_told_once_with_the_remedy() -> None:
    watch, lines = watched(steady(50, 60))
    assert watch.span_s == pytest.approx(0.1)
    assert lines == [
        "a clip covers 0.10 s, at 20 pairs a second and a stride of 1; in training it covered 0.20 s, so "
        "labels may be wrong: --stride 2 makes it 0.20 s, --stride auto finds the stride by itself"
    ]


def test_clips_that_no_stride_makes_short_enough_are_told_the_rate_that_it_takes() -> None:
    _, lines = watched(steady(200, 6))
    assert len(lines) == 1
    assert lines[0].endswith("no stride mends that, 10 pairs a second would")


@pytest.mark.parametrize("period_ms", [70, 100, 130])
def test_clips_that_cover_about_the_time_of_training_are_not_told(period_ms: int) -> None:
    watch, lines = watched(steady(period_ms, 30))
    assert watch.span_s == pytest.approx(2 * period_ms / 1000)
    assert lines == []


def test_a_stride_counts_in_the_span() -> None:
    watch, lines = watched(steady(50, 30), stride=2)
    assert (watch.span_s, lines) == (pytest.approx(0.2), [])


def test_one_stall_is_no_other_rate() -> None:
    before, after = steady(100, 7), [t_us + 3_000_000 for t_us in steady(100, 20)[7:]]
    assert watched(before + after)[1] == []


def test_a_short_run_tells_what_it_showed_once_and_a_shorter_one_nothing() -> None:
    assert len(watched(steady(50, 3))[1]) == 1
    watch, lines = watched(steady(50, 2))
    assert (watch.span_s, lines) == (None, [])


def test_a_bundle_that_does_not_say_is_measured_but_not_judged() -> None:
    watch, lines = watched(steady(50, 30), span_s=None)
    assert (watch.span_s, lines) == (pytest.approx(0.1), [])


def chosen(stride: object, span_s: float | None = 0.2, rate_hz: float | None = 25.0) -> tuple[int, list[str]]:
    lines: list[str] = []
    manifest = tiny_manifest(3, 4, span_s=span_s)
    return with_stride(manifest, stride, lambda: rate_hz, lines.append).stride, lines  # type: ignore[arg-type]


def test_a_stride_is_the_models_own_the_users_or_the_one_that_covers_the_span() -> None:
    assert chosen(None) == (4, [])
    assert chosen(7, span_s=None, rate_hz=None) == (7, [])
    assert chosen("auto") == (
        2, ["stride 2: a clip covers 0.16 s at 25 pairs a second, 0.20 s in training"],
    )  # fmt: skip


def test_auto_says_what_it_lacks() -> None:
    with pytest.raises(
        InputError, match="auto: tiny does not say how long a clip was in training; export it"
    ):
        chosen("auto", span_s=None)
    with pytest.raises(InputError, match="auto: nobody can tell how many frames a second"):
        chosen("auto", rate_hz=None)
