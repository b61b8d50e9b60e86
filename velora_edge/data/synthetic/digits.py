"""Simulated N-MNIST: scikit-learn's handwritten digits under a saccading event camera.

The digits (8 x 8 pixels, Alpaydin and Kaynak 1998) come with scikit-learn. N-MNIST was recorded from digits
on a screen while the camera made three saccades of 100 ms along a triangle (Orchard et al. 2015); here the
digit moves so, and the event simulator looks at it. Nothing of N-MNIST itself is used. Its files call an
event at a stroke's trailing edge ON, so the digits are dark here and the screen is bright.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from velora_edge.data.clips.augment import DIGITS
from velora_edge.data.clips.clips import ClipSource, Item, Modality, Pairs, count_windows, pack_windows
from velora_edge.datatypes import EventBatch
from velora_edge.errors import MissingExtraError
from velora_edge.events.accumulate.representations import RegistrationMap
from velora_edge.events.simulator import EventSimulator, SensorModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from velora_edge.data.clips.clips import ClipSpec

SIDE_PX = 34
SACCADE_US, SACCADES = 100_000, 3
STEP_US = 5_000
VARIANTS = 6
"""Renderings of each digit, each with another form, place and motion."""
_FINE = 4
_WARP_POINTS, _LARGEST_WARP = 5, 0.25
"""Points of the field that warps a digit, along each axis, and its largest spread, cells of the picture."""
_TRIANGLE = np.array([[0.0, 0.0], [0.5, 1.0], [1.0, 0.0], [0.0, 0.0]])
_SENSOR = SensorModel(
    threshold_on=0.35, threshold_off=0.4, threshold_sigma=0.06, refractory_us=2_000,
    noise_rate_hz=0.3, leak_rate_hz=0.6,
)  # fmt: skip


class DigitsSet(ClipSource):
    """Simulated recordings of 1797 digits, each in several variants; there is no RGB.

    A process keeps the images that it has rendered.

    Args:
        spec: the form of the clips.
        seed: of all variation.
    """

    kind = DIGITS
    cuts_windows = True
    cameras: tuple[Modality, ...] = ("event",)

    def __init__(self, spec: ClipSpec, seed: int = 0) -> None:
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise MissingExtraError("scikit-learn", "train", "the set of digits") from error
        digits = load_digits()
        self.path, self.spec, self.seed = Path(DIGITS), spec, seed
        self.labels = tuple(str(k) for k in range(10))
        self._pictures = (digits.images * (255 / 16)).astype(np.float32)
        self._targets = [int(k) for k in digits.target]
        self.items = [
            Item(f"{i:04}-{variant}", label, "val" if i % 10 == 0 else "train")
            for i, label in enumerate(self._targets)
            for variant in range(VARIANTS)
        ]
        self._map = RegistrationMap.from_fit((SIDE_PX, SIDE_PX), spec.image_size, spec.event.fit)
        self._length = count_windows(0, SACCADES * SACCADE_US - 1, spec.event.window_us)
        self._kept: dict[int, NDArray[np.uint8]] = {}

    def pairs(self, index: int) -> int:
        """See `ClipSource.pairs`."""
        return self._length

    def read(self, index: int, which: NDArray[np.int64]) -> Pairs:
        """See `ClipSource.read`."""
        if index not in self._kept:
            window_us = self.spec.event.window_us
            windows = [(k * window_us, (k + 1) * window_us) for k in range(self._length)]
            self._kept[index] = pack_windows(self.events(index), windows, self._map, self.spec.event)
        return Pairs(None, self._kept[index][which])

    def events(self, index: int) -> EventBatch:
        """The simulated events of a recording."""
        rng = np.random.default_rng((self.seed, index))
        scene = draw_digit(self._pictures[index // VARIANTS], rng)
        return saccade(scene, rng)

    def problems(self, index: int, *, deep: bool) -> list[str]:
        """None: it is made here."""
        return []

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_kept": {}}


def draw_digit(picture: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """A dark digit on a bright screen, wider than the sensor sees, at `_FINE` samples a pixel.

    Args:
        picture: float32[8, 8], 0 to 255.
        rng: draws size, slant, turn, warp and weight of the strokes.
    """
    side = _FINE * (SIDE_PX + 16)
    height = rng.uniform(18, 22) * _FINE / 8
    width = height * rng.uniform(0.8, 1.4)
    slant, turn = rng.uniform(-0.1, 0.5), rng.uniform(-0.15, 0.15)
    shape = np.array([[width, -slant * height], [0, height]])
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    inverse = np.linalg.inv(rotation @ shape)
    at = np.arange(side) - (side - 1) / 2
    # Cells of the picture, and of the hand: a smooth field moves parts of a stroke against each other.
    warp = rng.uniform(0, _LARGEST_WARP) * rng.standard_normal((_WARP_POINTS, _WARP_POINTS, 2))
    where = cv2.resize(warp, (side, side), interpolation=cv2.INTER_CUBIC)
    where += inverse[:, 0] * at[None, :, None] + inverse[:, 1] * at[:, None, None] + 3.5
    columns, rows = np.ascontiguousarray(where.transpose(2, 0, 1), np.float32)
    grey = cv2.remap(picture, columns, rows, cv2.INTER_CUBIC, borderValue=0)
    # Grey strokes of 8 x 8 pixels are broad. What is darker than its surroundings is a pen's line.
    line = cv2.GaussianBlur(grey, (0, 0), 0.3 * height) - 0.9 * cv2.GaussianBlur(grey, (0, 0), 1.2 * height)
    strokes = 1 / (1 + np.exp(-0.12 * (line - rng.uniform(40, 75))))
    # A pixel sees the mean over its area.
    return np.asarray(cv2.blur((220 - 200 * strokes).astype(np.float32), (_FINE, _FINE)), np.float32)


def saccade(scene: NDArray[np.float32], rng: np.random.Generator) -> EventBatch:
    """Events of the sensor while it looks along a triangle over the scene, 300 ms in all."""
    reach = -rng.uniform(4.5, 6.5) * np.array([1.0, rng.uniform(0.6, 1.0)])  # the digit goes against the gaze
    shift = rng.uniform(-1.5, 1.5, 2) - reach * _TRIANGLE.mean(axis=0)
    sensor = EventSimulator(SIDE_PX, SIDE_PX, _SENSOR, seed=int(rng.integers(2**62)))
    batches = []
    for t_us in range(0, SACCADES * SACCADE_US + 1, STEP_US):
        leg, done = divmod(min(t_us, SACCADES * SACCADE_US - 1), SACCADE_US)
        share = done / SACCADE_US
        part = share**3 * (10 - 15 * share + 6 * share**2)  # the motion of least jerk
        at = _TRIANGLE[leg] + part * (_TRIANGLE[leg + 1] - _TRIANGLE[leg])
        batches.append(sensor.push(_look(scene, shift + reach * at), t_us))
    return EventBatch.concatenate(batches)


def _look(scene: NDArray[np.float32], offset_px: NDArray[np.float64]) -> NDArray[np.float32]:
    """What the sensor sees with its centre `offset_px` (x, y) from the scene's."""
    corner = (len(scene) - _FINE * SIDE_PX) / 2 + _FINE * offset_px
    matrix = np.array([[_FINE, 0, corner[0]], [0, _FINE, corner[1]]])
    matrix[:, 2] += (_FINE - 1) / 2
    seen = cv2.warpAffine(
        scene, matrix, (SIDE_PX, SIDE_PX), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    return np.asarray(seen, np.float32)
