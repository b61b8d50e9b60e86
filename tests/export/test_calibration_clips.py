"""Clips that an export is judged by and calibrated on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from networks import tiny_config
from velora_export.evaluation.sessions import Clips, random_clips, read_npz, read_real_clips

from velora_edge.data.clips.clips import ClipSource, ClipSpec, Item, Pairs, fingerprint
from velora_edge.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPEC = ClipSpec(length=4, image_size=(32, 32))


class _Set(ClipSource):
    """Recordings of four pairs; every pixel of recording k is k, modulo 256."""

    kind, path, spec = "made", Path("made"), SPEC

    def __init__(
        self, count: int = 20, cameras: Any = ("rgb", "event"), labels: Any = ("rest", "wave")
    ) -> None:
        self.cameras, self.labels = cameras, labels
        self.items = [Item(f"r{k:02}", k % 2) for k in range(count)]

    def pairs(self, index: int) -> int:
        return 4

    def read(self, index: int, which: NDArray[np.int64]) -> Pairs:
        images = np.full((len(which), 32, 32, 3), index % 256, np.uint8)
        return Pairs(*(images if camera in self.cameras else None for camera in ("rgb", "event")))

    def problems(self, index: int, *, deep: bool) -> list[str]:
        return []


def _numbers(clips: Clips) -> list[int]:
    return [int(clip.max()) for clip in np.maximum(clips.rgb, clips.event)]


def test_random_clips_are_of_the_model_s_size_and_come_back() -> None:
    config = tiny_config(image_size=(30, 42))
    clips = random_clips(config, count=2, seed=5)
    assert clips.rgb.shape == clips.event.shape == (2, 4, 30, 42, 3)
    assert clips.rgb.dtype == np.uint8
    np.testing.assert_array_equal(clips.event, random_clips(config, count=2, seed=5).event)
    assert not np.array_equal(clips.rgb[0, 0], clips.rgb[0, 1])
    assert not np.array_equal(clips.rgb, clips.event)
    assert not clips.are_real


def test_what_was_held_out_judges_and_what_was_trained_on_calibrates() -> None:
    source = _Set()
    run = {"data": {"fingerprint": fingerprint(source.items), "split": {"seed": 0}}}
    real = read_real_clips(source, ("wave", "point", "rest"), run, calibration=100, judged=100)
    judged, calibration = _numbers(real.judged), _numbers(real.calibration)
    assert len(judged) == 4  # a fifth
    assert not set(judged) & set(calibration)
    assert real.judged.labels is not None
    assert real.judged.labels.tolist() == [2 if number % 2 == 0 else 0 for number in judged]  # rest, wave


def test_no_more_clips_are_read_than_asked_for() -> None:
    real = read_real_clips(_Set(), ("wave", "rest"), {}, calibration=2, judged=5)
    drawn = _numbers(real.judged)
    assert len(set(drawn)) == 5
    assert drawn == sorted(drawn)
    assert drawn == _numbers(read_real_clips(_Set(), ("wave", "rest"), {}, calibration=2, judged=5).judged)
    assert len(real.calibration) == 2


def test_classes_that_take_turns_are_all_drawn() -> None:
    real = read_real_clips(_Set(400), ("wave", "rest"), {}, calibration=1, judged=100)
    assert real.judged.labels is not None
    assert 30 < real.judged.labels.sum() < 70  # every second recording is one of a class


def test_a_set_of_other_labels_has_none() -> None:
    real = read_real_clips(_Set(labels=("jump", "wave")), ("wave", "rest"), {}, calibration=1, judged=2)
    assert real.judged.labels is None


def test_a_camera_that_the_set_lacks_is_absent() -> None:
    real = read_real_clips(_Set(cameras=("event",)), ("wave", "rest"), {}, calibration=1, judged=2)
    assert real.judged.cameras == ("event",)
    assert not real.judged.rgb.any()


def _npz(path: Path, count: int = 4, **arrays: Any) -> Path:
    images = np.arange(count, dtype=np.uint8)[:, None, None, None, None] * np.ones(
        (1, 4, 32, 32, 3), np.uint8
    )
    np.savez(path, **{"rgb": images, "event": images, **arrays})
    return path


def test_every_other_clip_of_an_npz_calibrates(tmp_path: Path) -> None:
    real = read_npz(_npz(tmp_path / "c.npz", label=np.array([0, 1, 2, 0])), tiny_config())
    assert (_numbers(real.calibration), _numbers(real.judged)) == ([0, 2], [1, 3])
    assert real.judged.labels is not None
    assert (real.judged.labels.tolist(), real.judged.source) == ([1, 0], "c.npz")


@pytest.mark.parametrize(
    ("count", "arrays", "message"),
    [
        (1, {}, r"c\.npz, rgb: expected 2 or more uint8 clips of \(4, 32, 32, 3\), got uint8 \(1, 4"),
        (4, {"rgb": np.zeros((4, 3), np.uint8)}, r"rgb: expected 2 or more"),
        (4, {"event": np.zeros((2, 4, 32, 32, 3), np.uint8)}, "rgb, event and label differ in length"),
        (4, {"label": np.zeros(3, int)}, "differ in length"),
        (4, {"label": np.array([0, 1, 2, 3])}, "label: labels are not all from 0 to 2"),
        (4, {"label": np.array([object()] * 4)}, "no clips: "),
    ],
)
def test_what_is_wrong_with_an_npz_is_told(
    tmp_path: Path, count: int, arrays: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read_npz(_npz(tmp_path / "c.npz", count, **arrays), tiny_config())
