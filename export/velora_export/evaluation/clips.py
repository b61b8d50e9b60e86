"""Clips for comparison, calibration and acceptance of an export: of a data set, or noise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge.errors import DatasetError, InputError
from velora_edge.train.evaluate import choose_part

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from velora_edge.data.clips.clips import ClipSource
    from velora_edge.model.config import ModelConfig

Flags = dict[str, "NDArray[np.float32]"]


@dataclass(frozen=True)
class Clips:
    """Clips in memory.

    Attributes:
        rgb: uint8[B, T, H, W, 3]; zeros where that camera is absent.
        event: the same.
        source: where they come from, for the report.
        cameras: those that recorded them.
        labels: int64[B], places among the model's labels; None where they are not known.
        are_real: False for noise, for which any label is as good as another.
    """

    rgb: NDArray[np.uint8]
    event: NDArray[np.uint8]
    source: str
    cameras: tuple[str, ...] = ("rgb", "event")
    labels: NDArray[np.int64] | None = None
    are_real: bool = True

    def __len__(self) -> int:
        return len(self.rgb)

    def first(self, count: int) -> Clips:
        """At most `count` of them, drawn; the same each time."""
        which = _draw(len(self), count)
        labels = None if self.labels is None else self.labels[which]
        return replace(self, rgb=self.rgb[which], event=self.event[which], labels=labels)

    def flags(self, *, without: str = "") -> Flags:
        """`rgb_present` and `event_present` float32[1, T], as the cameras are, one of them hidden."""
        T = self.rgb.shape[1]
        return {
            f"{camera}_present": np.full((1, T), camera in self.cameras and camera != without, np.float32)
            for camera in ("rgb", "event")
        }


@dataclass(frozen=True)
class RealClips:
    """Clips of one data set: recordings that were trained on, and others to judge by.

    Attributes:
        calibration: ranges are taken from these. judged: the export is judged by these; none of them is in
        `calibration`, where the set is large enough.
    """

    calibration: Clips
    judged: Clips


def random_clips(config: ModelConfig, count: int = 4, seed: int = 0) -> Clips:
    """Clips of smooth noise, different in every frame."""
    draw = np.random.default_rng(seed)
    height, width = config.image_size
    coarse = draw.integers(
        0, 256, (2, count, config.clip_length, -(-height // 4), -(-width // 4), 3), np.uint8
    )
    images = coarse.repeat(4, axis=3).repeat(4, axis=4)[:, :, :, :height, :width]
    rgb, event = np.ascontiguousarray(images)
    return Clips(rgb, event, f"random, seed {seed}", are_real=False)


def read_real_clips(
    source: ClipSource, labels: Sequence[str], run: dict[str, Any], *, calibration: int, judged: int
) -> RealClips:
    """Clips of a data set, drawn from its recordings.

    Args:
        source: the set, in the model's form.
        labels: the model's; where the set has others, its clips carry none.
        run: identity of the training run: what was held out there is what is judged by.
        calibration: at most so many clips to calibrate on.
        judged: at most so many to judge by.
    """
    held_out = choose_part(source, run).members
    try:
        trained = choose_part(source, run, "train").members
    except DatasetError:  # a published test part alone
        trained = held_out
    trained = trained[~np.isin(trained, held_out)] if not set(trained) <= set(held_out) else trained
    places = {label: k for k, label in enumerate(labels)}
    known = [places.get(label) for label in source.labels]
    return RealClips(
        _read(source, trained[_draw(len(trained), calibration)], known),
        _read(source, held_out[_draw(len(held_out), judged)], known),
    )


def _read(source: ClipSource, members: NDArray[np.int64], known: list[int | None]) -> Clips:
    pairs = [source.clip(int(index)) for index in members]
    T, (height, width) = source.spec.length, source.spec.image_size
    empty = np.zeros((len(pairs), T, height, width, 3), np.uint8)
    images = {
        camera: np.stack([p.rgb if camera == "rgb" else p.event for p in pairs])  # type: ignore[misc]
        for camera in source.cameras
    }
    labels = [known[source.items[int(index)].label] for index in members]
    return Clips(
        images.get("rgb", empty),
        images.get("event", empty),
        source.path.name,
        tuple(source.cameras),
        None if None in labels else np.array(labels, np.int64),
    )


def read_npz(path: Path, config: ModelConfig) -> RealClips:
    """Clips out of an .npz file: `rgb` and `event`, uint8[B, T, H, W, 3], and `label`, int64[B], where known.

    Every other clip is calibrated on, the others are judged by.

    Raises:
        InputError: if the file is not one, or if its clips are not of the model's size.
    """
    remedy = "give an .npz file with the arrays rgb and event, uint8[B, T, H, W, 3], B at least 2, and label"
    try:
        with np.load(path, allow_pickle=False) as file:
            rgb, event = np.asarray(file["rgb"]), np.asarray(file["event"])
            label = np.asarray(file["label"], np.int64) if "label" in file else None
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"no clips: {error}", path=path, remedy=remedy) from error
    expected = (config.clip_length, *config.image_size, 3)
    for name, array in (("rgb", rgb), ("event", event)):
        if array.dtype != np.uint8 or array.shape[1:] != expected or len(array) < 2:
            problem = f"expected 2 or more uint8 clips of {expected}, got {array.dtype} {array.shape}"
            raise InputError(problem, path=path, place=name, remedy=remedy)
    if len(rgb) != len(event) or (label is not None and label.shape != rgb.shape[:1]):
        raise InputError("rgb, event and label differ in length", path=path, remedy=remedy)
    if label is not None and not ((label >= 0) & (label < len(config.labels))).all():
        raise InputError(
            f"labels are not all from 0 to {len(config.labels) - 1}", path=path, place="label", remedy=remedy
        )
    parts = [
        Clips(rgb[k::2], event[k::2], path.name, labels=None if label is None else label[k::2])
        for k in (0, 1)
    ]
    return RealClips(*parts)


def _draw(there: int, wanted: int) -> NDArray[np.int64]:
    """At most `wanted` numbers below `there`, rising, always the same; drawn, for sets repeat classes."""
    drawn = np.random.default_rng(0).permutation(there)[:wanted]
    return np.sort(drawn).astype(np.int64)
