"""Augmentation: random geometry for both cameras alike, light, noise and time; and the settings of data."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from pydantic import Field

from velora_edge.bundle import EventInput, RGBInput
from velora_edge.config import Section
from velora_edge.data.clips.clips import ClipSpec, Pairs, Sampling, SplitConfig
from velora_edge.data.clips.corruptions import Corruption, read_corrupted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from velora_edge.data.clips.clips import ClipSource

    Colour = tuple[int, int, int]


_FIELD_POINTS = 5
"""Points of the field of an elastic deformation, along each axis, before it is made smooth."""


class AugmentConfig(Section):
    """Augmentation of training clips; one draw holds for a whole clip. The default changes nothing.

    Attributes:
        shift: longest shift along each axis, as a share of the image (padding 10 at 224 pixels: 0.045).
        flip: mirror half of the clips left to right. Off where labels tell left from right: a mirrored clip
            keeps its label.
        rotate_deg: largest rotation, degrees.
        scale: largest change of size, as a share: 0.1 draws from 0.9 to 1.1.
        shear: largest shear: 0.2 moves the top edge of a square image against the bottom one by up to a fifth
            of its side.
        elastic: largest standard deviation of a smooth random field that moves the image's parts against each
            other, as a share of the image.
        brightness: largest change of RGB brightness, as a share of full scale.
        contrast: largest change of RGB contrast, as a share.
        noise: largest share of an event image's pixels that get an event of noise.
        drop_events: largest share of the events that are left out.
        hot_pixels: largest share of the event image's pixels that fire in every image of a clip.
        rgb_noise: largest standard deviation of noise on RGB values, as a share of full scale.
        stale_rgb: share of the clips in which the picture stands still for a while, as after a stall.
        delay_pairs: most pairs by which pictures are late or early against the events.
        window: largest change of the event windows' length, as a share, up to 1: twice as long, or half.
        warp: largest change of the pace of what happens, as a share: 0.5 is up to 1.5 times as fast or slow.
    """

    shift: float = Field(0.0, ge=0, le=0.5)
    flip: bool = False
    rotate_deg: float = Field(0.0, ge=0, le=180)
    scale: float = Field(0.0, ge=0, lt=1)
    shear: float = Field(0.0, ge=0, le=1)
    elastic: float = Field(0.0, ge=0, le=0.2)
    brightness: float = Field(0.0, ge=0, le=1)
    contrast: float = Field(0.0, ge=0, lt=1)
    noise: float = Field(0.0, ge=0, le=1)
    drop_events: float = Field(0.0, ge=0, le=1)
    hot_pixels: float = Field(0.0, ge=0, le=1)
    rgb_noise: float = Field(0.0, ge=0, le=1)
    stale_rgb: float = Field(0.0, ge=0, le=1)
    delay_pairs: int = Field(0, ge=0)
    window: float = Field(0.0, ge=0, le=1)
    warp: float = Field(0.0, ge=0)


@dataclass(frozen=True, slots=True)
class Variation:
    """One random draw of an augmentation.

    Attributes:
        matrix: float64[2, 3], from the image's pixels (x, y, 1) to the varied image's.
        gain: factor on RGB values about mid-grey.
        offset: added to RGB values, 0 to 255.
        field: float64[H, W, 2], how far (x, y) from the place that `matrix` says a pixel of the varied image
            looks, pixels; None: nowhere else.
    """

    matrix: NDArray[np.float64]
    gain: float
    offset: float
    field: NDArray[np.float64] | None = None


def draw(config: AugmentConfig, image_size: tuple[int, int], rng: np.random.Generator) -> Variation:
    """Draw a variation; takes the same number of random values whatever the configuration."""
    height, width = image_size
    spread = rng.uniform(-1, 1, 6)
    flip = bool(rng.integers(2)) and config.flip
    shift = np.rint(spread[:2] * config.shift * (width, height))
    angle = math.radians(spread[2] * config.rotate_deg)
    size = 1 + spread[3] * config.scale
    linear = size * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    if flip:
        linear[:, 0] *= -1
    centre = np.array([width - 1, height - 1]) / 2
    matrix = np.column_stack([linear, centre + shift - linear @ centre])
    return Variation(matrix, 1 + spread[4] * config.contrast, 255 * spread[5] * config.brightness)


def deform(
    variation: Variation, config: AugmentConfig, image_size: tuple[int, int], rng: np.random.Generator
) -> Variation:
    """The variation with a shear and an elastic deformation; where neither is asked for, nothing is drawn."""
    if not (config.shear or config.elastic):
        return variation
    height, width = image_size
    shear = rng.uniform(-1, 1) * config.shear
    middle = (height - 1) / 2
    matrix = variation.matrix @ np.array([[1, shear, -shear * middle], [0, 1, 0], [0, 0, 1]])
    spread = rng.uniform(0, 1) * config.elastic
    points = spread * rng.standard_normal((_FIELD_POINTS, _FIELD_POINTS, 2)) * (width, height)
    field = cv2.resize(points, (width, height), interpolation=cv2.INTER_CUBIC)
    return replace(variation, matrix=matrix, field=field.astype(np.float64) if config.elastic else None)


def draw_corruption(config: AugmentConfig, length: int, dice: np.random.Generator) -> Corruption:
    """Draw what is wrong with a clip of `length` pairs, each part between nothing and what `config` allows.

    Takes the same number of random values whatever the configuration.
    """
    share = dice.random(9)
    first = 1 + int(share[7] * (length - 1))
    end = first + 1 + int(share[8] * (length - first))
    return Corruption(
        noise=share[0] * config.noise,
        drop_events=share[1] * config.drop_events,
        hot_pixels=share[2] * config.hot_pixels,
        rgb_noise=share[3] * config.rgb_noise,
        stale=(first, end) if share[4] < config.stale_rgb else (0, 0),
        delay_pairs=round((2 * share[6] - 1) * config.delay_pairs),
        window=(1 + config.window) ** (2 * share[5] - 1),
        warp=config.warp,
    )


def read_varied(
    source: ClipSource,
    index: int,
    config: AugmentConfig,
    rng: np.random.Generator,
    dice: np.random.Generator,
) -> Pairs:
    """A training clip of a recording, with the noise and the changes of time that are asked for.

    Args:
        source: the data set.
        index: of the recording.
        config: what is asked for; without any of it, this is `source.clip`.
        rng: draws the clip's pairs.
        dice: draws everything else.
    """
    corruption = draw_corruption(config, source.spec.length, dice)
    if corruption == Corruption():
        return source.clip(index, rng)
    return read_corrupted(source, index, corruption, dice, rng)


def apply(pairs: Pairs, variation: Variation, blank: Colour) -> Pairs:
    """Varied copies of a clip's images.

    RGB is interpolated and its border repeated; event images take the nearest pixel, so that no colours arise
    that no event frame has, and their border is `blank`, an empty window's colour.
    """
    rgb, event = pairs.rgb, pairs.event
    if rgb is not None:
        is_whole = bool((variation.matrix == np.rint(variation.matrix)).all())  # then both are the same
        between = cv2.INTER_NEAREST if is_whole and variation.field is None else cv2.INTER_LINEAR
        rgb = _light(_warp(rgb, variation, between, cv2.BORDER_REPLICATE, blank), variation)
    if event is not None:
        event = _warp(event, variation, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT, blank)
    return Pairs(rgb, event)


def _warp(
    images: NDArray[np.uint8], variation: Variation, interpolation: int, border: int, blank: Colour
) -> NDArray[np.uint8]:
    out = np.empty_like(images)
    size = (images.shape[2], images.shape[1])
    places = _places(variation, size)
    for source, target in zip(images, out, strict=True):
        if places is None:
            cv2.warpAffine(
                source, variation.matrix, size, target, interpolation, borderMode=border, borderValue=blank
            )
        else:
            cv2.remap(source, *places, interpolation, target, borderMode=border, borderValue=blank)
    return out


def _places(
    variation: Variation, size: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Where in the image each pixel of the varied one looks, x and y, float32[H, W]; None without a field."""
    if variation.field is None:
        return None
    inverse = cv2.invertAffineTransform(variation.matrix)
    pixels = np.stack(np.meshgrid(*map(np.arange, size)), axis=-1)
    places = (pixels @ inverse[:, :2].T + inverse[:, 2] + variation.field).astype(np.float32)
    return np.ascontiguousarray(places[..., 0]), np.ascontiguousarray(places[..., 1])


def _light(images: NDArray[np.uint8], variation: Variation) -> NDArray[np.uint8]:
    if variation.gain == 1 and variation.offset == 0:
        return images
    levels = (np.arange(256) - 127.5) * variation.gain + 127.5 + variation.offset
    table = np.rint(np.clip(levels, 0, 255)).astype(np.uint8)
    changed = cv2.LUT(images.reshape(-1, *images.shape[-2:]), table)  # ten times as fast as NumPy's indexing
    return np.asarray(changed, np.uint8).reshape(images.shape)


SYNTHETIC, DIGITS = "synthetic", "digits"
"""The sets that are made here: the first is both cameras', the second N-MNIST's likeness, to pre-train on."""


class ClipConfig(Section):
    """Making of clips from recordings; stored with the model, so that evaluation and runtime do the same.

    Attributes:
        sampling: `spread`, T pairs evenly from the whole recording; or `stride`, T pairs `stride` apart.
        stride: pairs from one of a clip's pairs to the next; the runtime's temporal stride.
        event: how events become images.
        rgb: how pictures become images.
        rate_hz: pairs a second of recordings that are image files, which do not tell; every other set does.
    """

    sampling: Sampling = "spread"
    stride: int = Field(1, ge=1)
    event: EventInput = EventInput()
    rgb: RGBInput = RGBInput()
    rate_hz: float | None = Field(None, gt=0)

    def spec(self, length: int, image_size: tuple[int, int]) -> ClipSpec:
        """The form of a clip of `length` pairs of images of `image_size` (height, width)."""
        return ClipSpec(length, image_size, self.sampling, self.stride, self.event, self.rgb, self.rate_hz)


class DataConfig(Section):
    """Data to train on.

    Attributes:
        path: folder or file of the data set, or `synthetic`, or `digits`.
        kind: its layout, or `auto` to tell it by what is there; `velora dataset check` shows the result.
        split: how it is divided where its publishers did not.
        augment: how training clips are varied.
        seed: of the sets that are made here.
        check: look at every file's name, head and tail before training; millions of files on a slow disk take
            minutes.
        skip_damaged: leave out recordings that cannot be read, and tell which; the set is read once for that.
        workers: processes that read clips, for each training process; 0 reads in the training process. None:
            up to 8, as there are cores, where a GPU trains, and 0 where the CPU does.
    """

    path: str
    kind: str = "auto"
    split: SplitConfig = SplitConfig()
    augment: AugmentConfig = AugmentConfig()
    seed: int = 0
    check: bool = True
    skip_damaged: bool = False
    workers: int | None = Field(None, ge=0)

    def problems(self) -> list[str]:
        """See `Section.problems`."""
        if self.path not in (SYNTHETIC, DIGITS) and not Path(self.path).exists():
            return [f"path: no such file or folder: {self.path}; set data.path=..., or data.path=synthetic"]
        return []
