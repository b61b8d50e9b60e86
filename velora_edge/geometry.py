"""Fit of a sensor's picture to the model's image, the same for RGB pixels and events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FitMode = Literal["crop", "letterbox", "stretch"]


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
