"""What both cameras show, side by side, with a strip of text below."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from velora_edge.geometry import fit

if TYPE_CHECKING:
    from numpy.typing import NDArray

PANEL_HEIGHT = 360
STRIP_HEIGHT = 76
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_BACKGROUND = (24, 26, 30)
_TEXT = (240, 240, 240)
_DIM = (150, 154, 160)
_BAR = (64, 160, 255)


class Overlay:
    """A canvas with a panel for each camera that there is, and a strip with label, score and details.

    Single-threaded: it draws on one canvas again and again.

    Args:
        rgb_hw: height and width of the RGB pictures, pixels; None for no panel.
        event_hw: the same of the event frames.

    Attributes:
        canvas: uint8[H, W, 3], RGB; both sides are even, as video codecs want them.
    """

    def __init__(self, rgb_hw: tuple[int, int] | None, event_hw: tuple[int, int] | None) -> None:
        self._rgb_width = 0 if rgb_hw is None else _panel_width(rgb_hw)
        self._event_width = 0 if event_hw is None else _panel_width(event_hw)
        width = max(self._rgb_width + self._event_width, 2)
        self._empty = np.full((PANEL_HEIGHT + STRIP_HEIGHT, width, 3), _BACKGROUND, np.uint8)
        self.canvas = self._empty.copy()

    def draw(
        self,
        rgb: NDArray[np.uint8] | None,
        event: NDArray[np.uint8] | None,
        label: str,
        score: float | None,
        details: str,
    ) -> NDArray[np.uint8]:
        """Draw one moment.

        Args:
            rgb: uint8[H, W, 3], RGB, any size; None leaves the panel dark.
            event: the same, of the event frame; its pixels stay sharp.
            label: large, above the score's bar.
            score: 0 to 1, the bar's length and a figure beside the label; None for none.
            details: small, at the bottom.

        Returns:
            The canvas, which the next call draws over.
        """
        np.copyto(self.canvas, self._empty)
        edge = self._rgb_width
        if rgb is not None and edge:
            _paste(rgb, self.canvas[:PANEL_HEIGHT, :edge], cv2.INTER_AREA)
        if event is not None and self._event_width:
            _paste(event, self.canvas[:PANEL_HEIGHT, edge:], cv2.INTER_NEAREST)
        self._write(label, score, details)
        return self.canvas

    def _write(self, label: str, score: float | None, details: str) -> None:
        canvas, width = self.canvas, self.canvas.shape[1]
        text = label if score is None else f"{label}  {score:.0%}"
        cv2.putText(canvas, text, (12, PANEL_HEIGHT + 30), _FONT, 0.8, _TEXT, 2, cv2.LINE_AA)
        if score is not None:
            end = 12 + round((width - 24) * min(max(score, 0.0), 1.0))
            canvas[PANEL_HEIGHT + 40 : PANEL_HEIGHT + 46, 12:end] = _BAR
        cv2.putText(canvas, details, (12, PANEL_HEIGHT + 66), _FONT, 0.42, _DIM, 1, cv2.LINE_AA)


def _panel_width(hw: tuple[int, int]) -> int:
    """Width of a panel of the picture's shape, even, and not so wide that it leaves no room for the other."""
    width = round(PANEL_HEIGHT * hw[1] / hw[0])
    return min(max(width, 64), 4 * PANEL_HEIGHT) // 2 * 2


def _paste(picture: NDArray[np.uint8], panel: NDArray[np.uint8], shrink: int) -> None:
    """The whole picture, as large as the panel allows, in its middle."""
    panel_hw = panel.shape[:2]
    to = fit(picture.shape[:2], (panel_hw[0], panel_hw[1]), "letterbox")
    height = min(max(1, round(picture.shape[0] * to.scale_y)), panel_hw[0])
    width = min(max(1, round(picture.shape[1] * to.scale_x)), panel_hw[1])
    y, x = (panel_hw[0] - height) // 2, (panel_hw[1] - width) // 2
    interpolation = cv2.INTER_LINEAR if to.scale_x > 1 and shrink == cv2.INTER_AREA else shrink
    panel[y : y + height, x : x + width] = cv2.resize(picture, (width, height), interpolation=interpolation)
