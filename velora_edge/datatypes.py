"""Values of the pipeline, frozen and slotted, and the fit of a sensor's picture to the model's image.

Times are int64 microseconds on one clock, the event camera's. Windows are half-open: [t0, t1).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray


FitMode = Literal["crop", "letterbox", "stretch"]
Resample = Literal["area", "bilinear"]


@dataclass(frozen=True, slots=True)
class Fit:
    """An axis-aligned map from sensor to model, in continuous coordinates (a pixel's centre is at +0.5).

    u = x * scale_x + offset_x,  v = y * scale_y + offset_y.
    """

    scale_x: float
    scale_y: float
    offset_x: float
    offset_y: float


def fit(source_hw: tuple[int, int], target_hw: tuple[int, int], mode: FitMode) -> Fit:
    """The map that lays a picture of `source_hw` onto an image of `target_hw`: (height, width), pixels.

    Args:
        source_hw: of the sensor.
        target_hw: of the model's image.
        mode: `crop` fills the image and cuts off what stands over, evenly on both sides; `letterbox` shows
            the whole picture and leaves margins; `stretch` fills the image and keeps no aspect ratio.
    """
    (source_h, source_w), (target_h, target_w) = source_hw, target_hw
    scale_x, scale_y = target_w / source_w, target_h / source_h
    if mode == "crop":
        scale_x = scale_y = max(scale_x, scale_y)
    elif mode == "letterbox":
        scale_x = scale_y = min(scale_x, scale_y)
    return Fit(scale_x, scale_y, (target_w - source_w * scale_x) / 2, (target_h - source_h * scale_y) / 2)


MODALITIES = ("rgb", "event", "diff")
"""The model's three streams, in the order in which every array, mask and graph lists them."""


@dataclass(frozen=True, slots=True)
class EventBatch:
    """Events of one sensor: four contiguous arrays of one length, in the order of the stream.

    Attributes:
        t_us: int64[N], microseconds.
        x: uint16[N], column, 0 at the left.
        y: uint16[N], row, 0 at the top.
        p: uint8[N], polarity: 0 OFF (darker), 1 ON (brighter).
    """

    t_us: NDArray[np.int64]
    x: NDArray[np.uint16]
    y: NDArray[np.uint16]
    p: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.t_us)

    def __getitem__(self, which: slice | NDArray[np.bool_]) -> EventBatch:
        """The chosen events: views for a slice, copies for a mask."""
        return EventBatch(self.t_us[which], self.x[which], self.y[which], self.p[which])

    @classmethod
    def empty(cls, n: int = 0) -> EventBatch:
        """A batch of `n` events whose values are not set."""
        return cls(
            np.empty(n, np.int64), np.empty(n, np.uint16), np.empty(n, np.uint16), np.empty(n, np.uint8)
        )

    @classmethod
    def concatenate(cls, batches: Sequence[EventBatch]) -> EventBatch:
        """One batch that holds the events of all, in the order given."""
        if not batches:
            return cls.empty()
        return cls(
            np.concatenate([b.t_us for b in batches]),
            np.concatenate([b.x for b in batches]),
            np.concatenate([b.y for b in batches]),
            np.concatenate([b.p for b in batches]),
        )


@dataclass(frozen=True, slots=True)
class TriggerBatch:
    """Edges on the camera's external trigger inputs.

    Attributes:
        t_us: int64[N], microseconds.
        id: uint8[N], the input's number.
        p: uint8[N], the edge: 0 falling, 1 rising.
    """

    t_us: NDArray[np.int64]
    id: NDArray[np.uint8]
    p: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.t_us)

    @classmethod
    def empty(cls, n: int = 0) -> TriggerBatch:
        """A batch of `n` edges whose values are not set."""
        return cls(np.empty(n, np.int64), np.empty(n, np.uint8), np.empty(n, np.uint8))

    @classmethod
    def concatenate(cls, batches: Sequence[TriggerBatch]) -> TriggerBatch:
        """One batch that holds the edges of all, in the order given."""
        if not batches:
            return cls.empty()
        return cls(
            np.concatenate([b.t_us for b in batches]),
            np.concatenate([b.id for b in batches]),
            np.concatenate([b.p for b in batches]),
        )


@dataclass(frozen=True, slots=True)
class EventFrame:
    """Image of one window of events, as the model sees it.

    Attributes:
        image: uint8[H, W, 3] at model resolution, in the bundle's representation; of `velora_edge.frames`,
            what was asked for.
        t0_us: the window's start, included.
        t1_us: the window's end, excluded.
        events: events of the window that fell on the frame.
    """

    image: NDArray[np.uint8]
    t0_us: int
    t1_us: int
    events: int


@dataclass(frozen=True, slots=True)
class RGBFrame:
    """One picture of the RGB camera.

    Attributes:
        image: uint8[H, W, 3], RGB order, at the camera's own resolution.
        t_us: mid-exposure; on the camera's clock from a source, on the event clock once synchronised.
        seq: the camera's sequence number, from 0; a gap is a frame that was lost.
    """

    image: NDArray[np.uint8]
    t_us: int
    seq: int


@dataclass(frozen=True, slots=True)
class FramePair:
    """An RGB frame and the event window that ends at it; one of the two may be absent.

    Attributes:
        seq: the pair's number, from 0, without gaps.
        t_us: the instant that the pair stands for: the end of its event window.
        rgb: the picture, or None where there is no RGB camera.
        event: the event frame, or None where there is no event camera.
        skew_us: the RGB frame's time less `t_us`, as measured; None where a camera is absent.
    """

    seq: int
    t_us: int
    rgb: RGBFrame | None
    event: EventFrame | None
    skew_us: int | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """Prediction of the model at one time.

    Attributes:
        seq: number of the newest pair that it has seen.
        t_us: that pair's time, event clock.
        label: the best label.
        score: its probability, 0 to 1.
        top: the best labels with their probabilities, best first.
        events: events in the newest pair's window.
        skew_us: the newest pair's skew, None where a camera is absent.
        latency_ms: milliseconds by stage: pack, encode, head, total.
        dropped: what was dropped so far, by camera: rgb (frames), events.
        missing: cameras of the run that the newest pair lacks: rgb, event; empty where all is well.
        is_idle: nothing moved for a whole clip, and nothing was computed: what was said last stands.
        is_provisional: it was made between two pairs, of events up to `t_us`; `seq` is the coming pair's.
    """

    seq: int
    t_us: int
    label: str
    score: float
    top: tuple[tuple[str, float], ...]
    events: int
    skew_us: int | None
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    is_idle: bool = False
    is_provisional: bool = False
