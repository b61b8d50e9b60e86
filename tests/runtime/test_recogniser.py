"""Pairs go into the right slots, and a stream is recognised as a whole clip is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from velora_runtime.engines.base import EngineOptions
from velora_runtime.engines.ort import OnnxRuntimeEngine
from velora_runtime.packer import Packed
from velora_runtime.recogniser import Recogniser, softmax_into

from tests.fakes import FakeClock, RecordingEngine, tiny_manifest, write_tiny_bundle
from velora_edge.bundle import Bundle
from velora_edge.datatypes import EventFrame, FramePair, RGBFrame
from velora_edge.errors import EngineError

if TYPE_CHECKING:
    from pathlib import Path


def make_pair(seq: int, rgb: np.ndarray | None, event: np.ndarray | None) -> Packed:
    shape = next(image.shape for image in (rgb, event) if image is not None)
    packed = Packed.empty(shape[:2])
    rgb_frame = event_frame = None
    if rgb is not None:
        packed.rgb_image[:] = rgb
        rgb_frame = RGBFrame(rgb, seq, seq)
    if event is not None:
        packed.event_image[:] = event
        event_frame = EventFrame(packed.event_image, seq, seq + 1, 0)
    packed.pair = FramePair(seq, seq, rgb_frame, event_frame)
    return packed


def feed(recogniser: Recogniser, kinds: str) -> list[bool]:
    """Pairs whose images hold their number: b both, r RGB alone, e events alone. Whether each was decided."""
    decided = []
    for i, kind in enumerate(kinds):
        image = np.full((8, 8, 3), i, np.uint8)
        pair = make_pair(i, image if kind in "br" else None, image + 100 if kind in "be" else None)
        decided.append(recogniser.see(pair) is not None)
    return decided


def recogniser_of(engine: RecordingEngine, clip_length: int, stride: int = 1) -> Recogniser:
    return Recogniser(tiny_manifest(clip_length, stride), engine, FakeClock())


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


def open_clip_graph(bundle: Bundle) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(str(bundle.graph("clip")), providers=["CPUExecutionProvider"])


def clip_logits(session: Any, rgb: np.ndarray, event: np.ndarray, kinds: str) -> np.ndarray:
    """The clip graph on T pairs; where a camera is absent its images are noise, which must not matter."""
    present = [np.array([[kind in cameras for kind in kinds]], np.float32) for cameras in ("br", "be")]
    feeds = {"rgb": rgb[None], "event": event[None], "rgb_present": present[0], "event_present": present[1]}
    return np.asarray(session.run(None, feeds)[0][0])


STREAMS = {
    "both": "bbbbbbbbbbbbbb",
    "events alone": "eeeeeeeeeeeeee",
    "RGB alone": "rrrrrrrrrrrrrr",
    "RGB lost for a while": "bbbbbeeeebbbbb",
    "events lost for good": "bbbbbbbrrrrrrr",
    "taking turns": "rererererebbre",
}


def assert_streaming_equals_clips(bundle: Bundle, kinds: str, tolerance: float) -> int:
    manifest = bundle.manifest
    T, s = manifest.clip_length, manifest.stride
    rng = np.random.default_rng(11)
    shape = (len(kinds), *manifest.image_size, 3)
    rgb, event = (rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(2))
    engine = OnnxRuntimeEngine(bundle, EngineOptions(threads=1))
    engine.warm_up()
    clip_graph = open_clip_graph(bundle)
    recogniser = Recogniser(manifest, engine, FakeClock())
    compared = 0
    for i, kind in enumerate(kinds):
        pair = make_pair(i, rgb[i] if kind in "br" else None, event[i] if kind in "be" else None)
        logits = recogniser.see(pair)
        if logits is None:
            assert i < (T - 1) * s
            continue
        which = list(range(i - (T - 1) * s, i + 1, s))
        expected = clip_logits(clip_graph, rgb[which], event[which], "".join(kinds[j] for j in which))
        np.testing.assert_allclose(logits, expected, atol=tolerance, rtol=tolerance)
        compared += 1
    return compared


@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("kinds", STREAMS.values(), ids=STREAMS)
def test_streaming_equals_whole_clips(tmp_path: Path, kinds: str, stride: int) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny.velora", clip_length=4, stride=stride)
    assert assert_streaming_equals_clips(bundle, kinds, tolerance=1e-4) == len(kinds) - 3 * stride


@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("kinds", STREAMS.values(), ids=STREAMS)
def test_the_demo_model_streams_as_it_sees_whole_clips(kinds: str, stride: int) -> None:
    from velora_edge.bundle import open_bundle

    bundle = open_bundle("demo")
    strided = Bundle(bundle.path, bundle.manifest.model_copy(update={"stride": stride}))
    longer = kinds + kinds[-1] * (7 * stride)
    assert assert_streaming_equals_clips(strided, longer, tolerance=1e-4) == 14
