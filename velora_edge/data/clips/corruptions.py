"""Corruptions of clips: noise, lost events, hot pixels, pictures that stall or come late, other window rates.

Training draws them (`data.augment`), `velora eval --corrupt` sets them. They change images that are packed
already, so that a store and image files take them as well; what an event is in an image depends on the
representation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from velora_edge.data.clips.clips import ClipSource, Pairs, choose_pairs
from velora_edge.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from velora_edge.bundle import EventInput

    Images = NDArray[np.uint8]
    Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Corruption:
    """Corruption of one clip; the default changes nothing.

    Attributes:
        noise: share of the pixels of an event image that get an event of noise, ON or OFF.
        drop_events: share of the events that are left out.
        hot_pixels: share of the pixels that fire in every image of the clip.
        rgb_noise: standard deviation of the noise on RGB values, as a share of full scale.
        stale: the pairs from the first number to before the second show the picture before them.
        rgb_lost: the pictures are left out, where there are events.
        delay_pairs: pairs by which pictures come late; negative: early.
        window: length of the event windows, as a factor from 0.5 to 2.
        rate: pairs a second, as a factor; only where clips are made by `stride`.
        warp: largest change of the pace, as a share; the pace is drawn.
    """

    noise: float = 0.0
    drop_events: float = 0.0
    hot_pixels: float = 0.0
    rgb_noise: float = 0.0
    stale: tuple[int, int] = (0, 0)
    rgb_lost: bool = False
    delay_pairs: int = 0
    window: float = 1.0
    rate: float = 1.0
    warp: float = 0.0


def read_corrupted(
    source: ClipSource,
    index: int,
    corruption: Corruption,
    dice: np.random.Generator,
    rng: np.random.Generator | None = None,
) -> Pairs:
    """A corrupted clip of a recording.

    Args:
        source: the data set.
        index: of the recording.
        corruption: what is wrong with it.
        dice: draws where noise falls.
        rng: draws the clip's pairs, as `ClipSource.clip` has it.

    Raises:
        DatasetError: if the recording cannot be read.
        ConfigError: if nobody knows what an event is in images of the source's representation.
    """
    count = source.pairs(index)
    which = choose_pairs(count, source.spec, rng, corruption.rate)
    if corruption.warp:
        which = warp_pairs(which, count, corruption.warp, dice)
    rgb, event, older = _read(source, index, which, corruption, count)
    if rgb is not None:
        is_lost = corruption.rgb_lost and event is not None
        rgb = None if is_lost else _corrupt_pictures(rgb, corruption, dice)
    if event is not None:
        event = _corrupt_events(event, older, corruption, event_images(source.spec.event), dice)
    return Pairs(rgb, event)


def _read(
    source: ClipSource, index: int, which: NDArray[np.int64], corruption: Corruption, count: int
) -> tuple[Images | None, Images | None, Images | None]:
    """Pictures, event images, and those of the windows before, where they are needed; each row once."""
    pictures = np.clip(which - corruption.delay_pairs, 0, count - 1)
    before = np.maximum(which - 1, 0)
    needed = [which, pictures, *([before] if corruption.window > 1 else [])]
    rows = np.unique(np.concatenate(needed))
    pairs = source.read(index, rows)
    rgb = None if pairs.rgb is None else pairs.rgb[np.searchsorted(rows, pictures)]
    if pairs.event is None:
        return rgb, None, None
    event = pairs.event[np.searchsorted(rows, which)]
    if corruption.window <= 1:
        return rgb, event, None
    older = pairs.event[np.searchsorted(rows, before)]
    older[which == 0] = event_images(source.spec.event).blank
    return rgb, event, older


def _corrupt_pictures(rgb: Images, corruption: Corruption, dice: np.random.Generator) -> Images:
    first, end = corruption.stale
    if end > first:
        rgb[first:end] = rgb[max(first - 1, 0)]
    if corruption.rgb_noise:
        noise = dice.standard_normal(rgb.shape, np.float32) * np.float32(255 * corruption.rgb_noise)
        rgb = np.rint(np.clip(rgb + noise, 0, 255)).astype(np.uint8)
    return rgb


def _corrupt_events(
    event: Images,
    older: Images | None,
    corruption: Corruption,
    images: EventImages,
    dice: np.random.Generator,
) -> Images:
    if corruption.window != 1:
        event = images.stretch(event, older, corruption.window, dice)
    if corruption.drop_events:
        images.thin(event, corruption.drop_events, dice)
    if corruption.noise:
        where = dice.random(event.shape[:3]) < corruption.noise
        images.add(event, where, dice.random(event.shape[:3]) < 0.5, dice)
    if corruption.hot_pixels:
        where = dice.random(event.shape[1:3]) < corruption.hot_pixels
        is_on = dice.random(event.shape[1:3]) < 0.5
        images.add(
            event, np.broadcast_to(where, event.shape[:3]), np.broadcast_to(is_on, event.shape[:3]), dice
        )
    return event


def warp_pairs(
    which: NDArray[np.int64], count: int, most: float, dice: np.random.Generator
) -> NDArray[np.int64]:
    """The numbers of a clip's pairs at another pace, int64[T], not decreasing.

    Each step is as much longer or shorter as a draw for the clip and one for the step say, by the factor
    1 + `most` at most. The clip's middle stays where the recording has room.

    Args:
        which: int64[T], the clip's pairs.
        count: pairs of the recording.
        most: largest change of the pace, as a share.
        dice: draws it.
    """
    draws = (dice.uniform(-1, 1) + dice.uniform(-1, 1, len(which) - 1)) / 2
    ends = np.concatenate([[0.0], np.cumsum(np.diff(which) * (1 + most) ** draws)])
    if ends[-1] > count - 1:
        ends *= (count - 1) / ends[-1]
    start = np.clip((which[0] + which[-1] - ends[-1]) / 2, 0, count - 1 - ends[-1])
    return np.rint(start + ends).astype(np.int64)


class EventImages:
    """Events in images of a representation, uint8[T, H, W, 3]: this one is the polarity image.

    Attributes:
        blank: colour of a pixel without events.
    """

    def __init__(self, event: EventInput) -> None:
        self.blank = np.array(event.palette.background, np.uint8)
        self._colours = np.array([event.palette.off, event.palette.on], np.uint8)

    def add(self, images: Images, where: Mask, is_on: Mask, dice: np.random.Generator) -> None:
        """Add an event to each pixel of `where`, bool[T, H, W], in place; ON where `is_on`, else OFF."""
        images[where] = self._colours[is_on[where].astype(np.intp)]

    def thin(self, images: Images, share: float, dice: np.random.Generator) -> None:
        """Leave out that share of the events, in place."""
        images[dice.random(images.shape[:3]) < share] = self.blank

    def join(self, older: Images, newer: Images) -> Images:
        """The images of two windows, one after the other, as one twice as long."""
        return np.where((newer != self.blank).any(axis=-1, keepdims=True), newer, older)

    def stretch(
        self, images: Images, older: Images | None, window: float, dice: np.random.Generator
    ) -> Images:
        """The images of windows with the same ends that are `window` times as long, 0.5 to 2.

        Exact at 2. Otherwise an image does not tell which of its events are in the part of a window that is
        wanted: as many as there would be are drawn from all of it.

        Args:
            images: of the windows.
            older: of those before them; not needed where `window` is at most 1. Changed.
            window: the factor.
            dice: draws.
        """
        if window <= 1 or older is None:
            self.thin(images, 1 - window, dice)
            return images
        if window < 2:
            self.thin(older, 2 - window, dice)
        return self.join(older, images)


class CountImages(EventImages):
    """The same for counts."""

    def __init__(self, event: EventInput) -> None:
        self.blank = np.zeros(3, np.uint8)

    def add(self, images: Images, where: Mask, is_on: Mask, dice: np.random.Generator) -> None:
        """See `EventImages.add`."""
        for channel, of_channel in enumerate((where & ~is_on, where & is_on)):
            plane = images[..., channel]
            plane += (of_channel & (plane < 255)).astype(np.uint8)

    def thin(self, images: Images, share: float, dice: np.random.Generator) -> None:
        """See `EventImages.thin`: each event by itself."""
        has_events = images > 0
        images[has_events] = dice.binomial(images[has_events], 1 - share)

    def join(self, older: Images, newer: Images) -> Images:
        """See `EventImages.join`."""
        return newer + np.minimum(older, 255 - newer)


class TimeSurfaceImages(EventImages):
    """The same for time surfaces, whose values tell when: other windows are exact but for rounding."""

    def __init__(self, event: EventInput) -> None:
        self.blank = np.zeros(3, np.uint8)

    def add(self, images: Images, where: Mask, is_on: Mask, dice: np.random.Generator) -> None:
        """See `EventImages.add`; at any time of the window."""
        times = dice.integers(1, 256, where.shape, np.uint8)
        for channel, of_channel in enumerate((where & ~is_on, where & is_on)):
            images[..., channel] = np.maximum(images[..., channel], np.where(of_channel, times, 0))

    def thin(self, images: Images, share: float, dice: np.random.Generator) -> None:
        """See `EventImages.thin`."""
        images[dice.random(images.shape) < share] = 0

    def join(self, older: Images, newer: Images) -> Images:
        """See `EventImages.join`."""
        return np.where(newer > 0, _retime(newer, 2.0, 0.5), _retime(older, 2.0, 0.0))

    def stretch(
        self, images: Images, older: Images | None, window: float, dice: np.random.Generator
    ) -> Images:
        """See `EventImages.stretch`."""
        newer = _retime(images, window, 1 - 1 / window)
        if window <= 1 or older is None:
            return newer
        return np.where(newer > 0, newer, _retime(older, window, 1 - 2 / window))


class VoxelImages(EventImages):
    """The same for voxel grids; the events of a pixel are left out together."""

    def __init__(self, event: EventInput) -> None:
        self.blank = np.full(3, 128, np.uint8)

    def add(self, images: Images, where: Mask, is_on: Mask, dice: np.random.Generator) -> None:
        """See `EventImages.add`; in any bin."""
        at = (*np.nonzero(where), dice.integers(0, 3, np.count_nonzero(where)))
        levels = np.where(is_on[where], 16, -16)
        images[at] = np.clip(images[at].astype(np.int16) + levels, 0, 255)

    def join(self, older: Images, newer: Images) -> Images:
        """See `EventImages.join`: an event between two bins belongs to both, in any scale of time."""
        old, new = older.astype(np.float32) - 128, newer.astype(np.float32) - 128
        joined = np.stack(
            [
                old[..., 0] + old[..., 1] / 2,
                old[..., 1] / 2 + old[..., 2] + new[..., 0] + new[..., 1] / 2,
                new[..., 1] / 2 + new[..., 2],
            ],
            axis=-1,
        )
        return np.clip(np.floor(joined) + 128, 0, 255).astype(np.uint8)


def _retime(values: Images, window: float, shift: float) -> Images:
    """Values of a time surface (1 to 255 over a window) in a window that is so many times as long.

    `shift` is where the old window begins in the new one, as a share of it; what is before that is left out.
    """
    times = shift + (values.astype(np.float32) - 1) / 255 / window
    return np.where((values > 0) & (times >= 0), np.minimum(1 + 255 * times, 255), 0).astype(np.uint8)


_IMAGES: dict[str, type[EventImages]] = {
    "polarity": EventImages,
    "counts": CountImages,
    "time_surface": TimeSurfaceImages,
    "voxel_grid": VoxelImages,
}


def event_images(event: EventInput) -> EventImages:
    """What an event is in images of this representation.

    Raises:
        ConfigError: if nobody knows: it is a plugin's.
    """
    kind = _IMAGES.get(event.representation)
    if kind is None:
        raise ConfigError(
            [
                f"clip.event.representation: noise, windows and lost events are known for "
                f"{', '.join(_IMAGES)}, not for {event.representation!r}"
            ]
        )
    return kind(event)


class CorruptedSource(ClipSource):
    """A data set whose clips are corrupted: each in the same way whenever it is asked for.

    Args:
        source: the data set; `close` leaves it open.
        corruption: what is wrong with every clip.
        seed: of what is drawn, together with a recording's number.
    """

    def __init__(self, source: ClipSource, corruption: Corruption, seed: int) -> None:
        self.source, self.corruption, self.seed = source, corruption, seed
        self.kind, self.path, self.spec = source.kind, source.path, source.spec
        self.labels, self.items, self.cameras = source.labels, source.items, source.cameras
        self.is_sequential, self.event_frames = source.is_sequential, source.event_frames

    @property
    def rate_hz(self) -> float | None:
        """See `ClipSource.rate_hz`."""
        return self.source.rate_hz

    def pairs(self, index: int) -> int:
        """See `ClipSource.pairs`."""
        return self.source.pairs(index)

    def read(self, index: int, which: NDArray[np.int64]) -> Pairs:
        """See `ClipSource.read`; pairs by themselves are as they were recorded."""
        return self.source.read(index, which)

    def clip(self, index: int, rng: np.random.Generator | None = None) -> Pairs:
        """See `ClipSource.clip`."""
        dice = np.random.default_rng((self.seed, index))
        return read_corrupted(self.source, index, self.corruption, dice, rng)

    def problems(self, index: int, *, deep: bool) -> list[str]:
        """See `ClipSource.problems`."""
        return self.source.problems(index, deep=deep)
