"""Pictures come to the model's size beside the packing thread, and it waits for them."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from velora_runtime.inference.recogniser import PairRecogniser
from velora_runtime.pipeline.frame_source import FrameResizer, RunInputs
from velora_runtime.pipeline.pipeline import Pipeline

from tests.fakes import FakeClock, FakeRGB, RecordingEngine, RecordingSink, tiny_manifest
from velora_edge.datatypes import RGBFrame
from velora_edge.preprocessing.packer import Packer, Pair, PairRequest, PendingImage
from velora_edge.preprocessing.sync import AlignedFrame, TimestampSync
from velora_edge.preprocessing.windows import WindowRule
from velora_edge.vision import Resizer

MANIFEST = tiny_manifest(clip_length=3)
PICTURE = np.arange(20 * 24 * 3, dtype=np.uint8).reshape(20, 24, 3)


def small(picture: np.ndarray) -> list[int]:
    image = np.zeros((*MANIFEST.image_size, 3), np.uint8)
    Resizer(picture.shape[:2], MANIFEST.image_size, MANIFEST.rgb.fit).resize_into(picture, image)
    return image.tolist()  # type: ignore[no-any-return]


def test_it_is_the_picture_that_the_packer_would_have_made() -> None:
    resizer, empty = FrameResizer(MANIFEST), np.zeros((*MANIFEST.image_size, 3), np.uint8)
    for picture in (PICTURE, PICTURE[:16, :16]):  # the camera may change its size
        shrunk = resizer.take()
        resizer.shrink(picture, shrunk)
        assert shrunk.exchange(empty).tolist() == small(picture)


def test_whoever_needs_it_waits_and_gives_an_array_for_it() -> None:
    resizer, mine, got = FrameResizer(MANIFEST), np.zeros((*MANIFEST.image_size, 3), np.uint8), []
    shrunk = resizer.take()
    thread = threading.Thread(target=lambda: got.append(shrunk.exchange(mine)))
    thread.start()
    thread.join(0.05)
    assert (thread.is_alive(), got) == (True, [])
    resizer.shrink(PICTURE, shrunk)
    thread.join(20)
    assert got[0].tolist() == small(PICTURE)
    assert shrunk.image is mine


def test_one_that_is_used_again_is_on_its_way_again() -> None:
    resizer = FrameResizer(MANIFEST)
    first = resizer.take()
    resizer.shrink(PICTURE, first)
    resizer.give(first)
    assert resizer.take() is first
    assert not first._is_there.is_set()


def test_a_picture_that_cannot_be_shrunk_keeps_nobody_waiting() -> None:
    resizer = FrameResizer(MANIFEST)
    shrunk = resizer.take()
    with pytest.raises(ValueError, match="expected picture uint8"):
        resizer.shrink(np.zeros((8, 8), np.uint8), shrunk)
    assert shrunk._is_there.is_set()


def test_the_packer_takes_it_without_a_copy() -> None:
    packer = Packer(MANIFEST, None, WindowRule(1000), FakeClock())
    shrunk, packed = (
        PendingImage(np.full((*MANIFEST.image_size, 3), 7, np.uint8)),
        Pair.empty(MANIFEST.image_size),
    )
    shrunk.finish()
    theirs, mine = shrunk.image, packed.rgb_image
    frame = RGBFrame(PICTURE, 5, 0)
    instant = PairRequest(5, AlignedFrame(frame, 5), 0, shrunk)
    packer.pack_into(packed, instant.t_us, instant.placed, instant.ready_us, instant.shrunk)
    assert (packed.rgb_image is theirs, shrunk.image is mine) == (True, True)
    assert packed.frames.rgb is frame


def test_the_steady_state_uses_the_same_arrays_again() -> None:
    feed = RunInputs(FakeRGB([1000 * k for k in range(1, 251)]), TimestampSync(0, ""))
    clock, sink = FakeClock(), RecordingSink()
    packer = Packer(MANIFEST, None, WindowRule(1000), clock)
    recogniser = PairRecogniser(MANIFEST, RecordingEngine(3, labels=3), clock)
    pipeline = Pipeline(MANIFEST, feed, packer, recogniser, [sink], "max", clock)
    assert pipeline.run().pairs.packed == 250
    assert pipeline._resizer._free.made <= 7
