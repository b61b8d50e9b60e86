"""Rendered scenes: a hand shakes or sways a red or a blue bottle, over a desk, before two cameras.

Both motions reach equally far, in the same places and directions; one is fast, one slow. A clip's pictures
lie 266 ms apart, and at that rate a fast motion looks like a slow one: only the events tell them apart. The
bottles have one shape and one luminance, which is all that an event camera sees: only the pictures tell red
from blue.

Everything else is drawn anew for each place: clutter, light and how it changes, hand, sleeve and size, how
unsteady the camera is, the sensor's thresholds and noise. A scene comes round after 4.2 s without a jump,
so that a camera can show it for as long as it is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from velora_edge.datatypes import EventBatch
from velora_edge.events.simulator import LUMA_WEIGHTS, EventSimulator, SensorModel

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

SIDE_PX, MARGIN_PX, SPRITE_PX = 128, 16, 320
LOOP_US = 4_194_304
"""1,024 times 4,096 us, what a word of EVT3 counts."""
PICTURES = 126
"""In a loop: 30 a second."""


@dataclass(frozen=True)
class Motion:
    """A way to move.

    Attributes:
        turns: lowest and highest number of swings in a loop.
        step_us: from one look of the event sensor to the next, in which the hand moves by less than a pixel.
    """

    turns: tuple[int, int]
    step_us: int


MOTIONS = {"shake": Motion((24, 39), 1024), "sway": Motion((3, 6), 4096)}
"""5.7 to 9.3, and 0.7 to 1.4 swings a second."""
COLOURS = {"red": (1.90, 0.62, 0.62), "blue": (0.75, 0.95, 1.90)}
"""Red, green and blue of each bottle at luminance 1."""
LABELS = tuple(f"{motion}-{colour}" for motion in MOTIONS for colour in COLOURS)


@dataclass(frozen=True)
class Ranges:
    """Where a place's properties are drawn from, evenly.

    Attributes:
        scale: size of hand and bottle.
        reach_px: of the motion, each way from its middle.
        middle: of the motion, as a share of the view.
        ground: luminance of the ground, 0 to 255.
        skin: luminance of the hand.
        bottle: luminance of the bottle.
        tremble_px: how far the camera moves.
        light: swing of the light's logarithm.
    """

    scale: tuple[float, float] = (1.3, 1.7)
    reach_px: tuple[float, float] = (12.0, 18.0)
    middle: tuple[float, float] = (0.40, 0.60)
    ground: tuple[float, float] = (30.0, 75.0)
    skin: tuple[float, float] = (105.0, 175.0)
    bottle: tuple[float, float] = (85.0, 115.0)
    tremble_px: tuple[float, float] = (0.2, 0.8)
    light: tuple[float, float] = (0.02, 0.12)


TRAINED = Ranges()
HELD_OUT = Ranges(scale=(1.25, 1.75), reach_px=(11.5, 18.5), middle=(0.39, 0.61))
"""Of places that were not trained on: a little wider than those that were."""


class Wander:
    """A value that changes slowly and comes round with the loop.

    Args:
        low: least value.
        high: largest value.
        rng: draws how it changes.
        rounds: fewest and most periods in a loop.
    """

    def __init__(self, low: float, high: float, rng: Generator, rounds: tuple[int, int] = (1, 2)) -> None:
        self._middle, self._half = (low + high) / 2, (high - low) / 2
        self._rounds, self._phase = rng.integers(*rounds, 2, endpoint=True), rng.uniform(0, 2 * np.pi, 2)

    def at(self, t_us: NDArray[np.int64]) -> NDArray[np.float64]:
        """The value at each of the times."""
        waves = np.sin(2 * np.pi * self._rounds * t_us[:, None] / LOOP_US + self._phase)
        return self._middle + self._half * waves @ np.array([0.6, 0.4])


class Place:
    """Desk, hand, light and cameras; the same for all classes that are shown there.

    Args:
        seed: of all that is drawn.
        ranges: that it is drawn from.
    """

    def __init__(self, seed: int, ranges: Ranges) -> None:
        rng = np.random.default_rng(seed)
        self.ranges = ranges
        self.ground = draw_ground(rng, rng.uniform(*ranges.ground))
        self.scale, self.arm_deg = rng.uniform(*ranges.scale), rng.uniform(0, 360)
        tone = np.array([1.25, 0.95, 0.75]) ** rng.uniform(0.6, 1.4)
        self.skin = rng.uniform(*ranges.skin) * at_unit_luma(tone)
        self.sleeve = rng.uniform(40, 140) * at_unit_luma(rng.uniform(0.8, 1.2, 3))
        self.bottle = rng.uniform(*ranges.bottle)
        self.tremble_px, self.light = rng.uniform(*ranges.tremble_px), rng.uniform(*ranges.light)
        on, off = rng.uniform(0.2, 0.3, 2)
        noise_hz = rng.uniform(0.1, 0.6)
        self.sensor = SensorModel(on, off, noise_rate_hz=noise_hz, resolution_us=64)


class Track:
    """Where hand and camera are, and how bright the light is, at each of the times."""

    def __init__(self, motion: Motion, place: Place, rng: Generator, t_us: NDArray[np.int64]) -> None:
        turns = rng.integers(*motion.turns, endpoint=True)
        phase = 2 * np.pi * turns * t_us / LOOP_US + Wander(-1, 1, rng).at(t_us) + rng.uniform(0, 2 * np.pi)
        axis = Wander(-0.7, 0.7, rng).at(t_us) + rng.uniform(0, np.pi)
        swing, reach = np.sin(phase), Wander(*place.ranges.reach_px, rng).at(t_us)
        low, high = (share * SIDE_PX for share in place.ranges.middle)
        self.x = Wander(low, high, rng).at(t_us) + swing * reach * np.cos(axis)
        self.y = Wander(low, high, rng).at(t_us) + swing * reach * np.sin(axis)
        self.turn_deg = place.arm_deg + Wander(-30, 30, rng).at(t_us) + 6 * swing
        tremble, light = place.tremble_px, place.light
        self.dx, self.dy = (Wander(-tremble, tremble, rng, (3, 12)).at(t_us) for _ in range(2))
        self.gain = np.exp(Wander(-light, light, rng, (1, 8)).at(t_us)).astype(np.float32)

    def compose(self, ground: NDArray[np.float32], hand: NDArray[np.float32], k: int) -> NDArray[np.float32]:
        """The view at time `k`, float32[H, W] or [H, W, 3].

        Args:
            ground: float32[H, W] or [H, W, 3], with a margin around the view.
            hand: float32[S, S, 2] or [S, S, 4]; values times coverage, and coverage.
            k: number of the time.
        """
        size = SIDE_PX, SIDE_PX
        shift = np.array([[1, 0, MARGIN_PX + self.dx[k]], [0, 1, MARGIN_PX + self.dy[k]]], np.float32)
        view = cv2.warpAffine(ground, shift, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        matrix = cv2.getRotationMatrix2D((SPRITE_PX / 2, SPRITE_PX / 2), self.turn_deg[k], 1)
        matrix[:, 2] += np.array([self.x[k] - self.dx[k], self.y[k] - self.dy[k]]) - SPRITE_PX / 2
        drawn = cv2.warpAffine(hand, matrix, size, flags=cv2.INTER_LINEAR)
        cover = drawn[..., -1]
        if view.ndim == 3:
            return (view * (1 - cover[..., None]) + drawn[..., :-1]) * self.gain[k]
        return (view * (1 - cover) + drawn[..., 0]) * self.gain[k]


def render(place: Place, label: str, seed: int) -> tuple[NDArray[np.uint8], EventBatch]:
    """One loop of a class at a place.

    Args:
        place: where.
        label: one of `LABELS`.
        seed: of the motion and of both cameras' noise.

    Returns:
        Pictures uint8[`PICTURES`, H, W, 3], RGB, evenly over the loop, and events in [0, `LOOP_US`).
    """
    motion, _, colour = label.partition("-")
    hand = draw_hand(place, COLOURS[colour])
    return (
        _expose(place, hand, MOTIONS[motion], seed),
        _watch(place, hand, MOTIONS[motion], seed),
    )


def _expose(place: Place, hand: NDArray[np.float32], motion: Motion, seed: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng((seed, 1))
    t_us = np.arange(PICTURES, dtype=np.int64) * LOOP_US // PICTURES
    track = Track(motion, place, np.random.default_rng(seed), t_us)
    pictures = np.empty((PICTURES, SIDE_PX, SIDE_PX, 3), np.uint8)
    for k, picture in enumerate(pictures):
        light = track.compose(place.ground, hand, k)
        light += rng.standard_normal(light.shape, np.float32) * np.sqrt(6 + 0.15 * light)
        np.clip(light + 0.5, 0, 255, out=light)
        picture[:] = light
    return pictures


def _watch(place: Place, hand: NDArray[np.float32], motion: Motion, seed: int) -> EventBatch:
    t_us = np.arange(0, LOOP_US + 1, motion.step_us, dtype=np.int64)
    track = Track(motion, place, np.random.default_rng(seed), t_us)
    sensor = EventSimulator(SIDE_PX, SIDE_PX, place.sensor, seed)
    ground = place.ground @ LUMA_WEIGHTS
    grey = np.dstack([hand[..., :3] @ LUMA_WEIGHTS, hand[..., 3]])
    seen = (sensor.push(track.compose(ground, grey, k), int(t)) for k, t in enumerate(t_us))
    return EventBatch.concatenate(list(seen))


def draw_ground(rng: Generator, luma: float) -> NDArray[np.float32]:
    """A desk with books, plates and cables in muted colours, float32[H, W, 3], a margin around the view."""
    side = SIDE_PX + 2 * MARGIN_PX
    texture = np.zeros((side, side), np.float32)
    for cells, weight in ((4, 0.32), (12, 0.16), (40, 0.13)):
        noise = rng.random((cells, cells), np.float32)
        texture += weight * cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC)
    ground = (luma * (0.7 + texture))[..., None] * at_unit_luma(rng.uniform(0.8, 1.2, 3))
    ground = np.ascontiguousarray(ground, np.float32)
    for _ in range(rng.integers(5, 12)):
        colour = (rng.uniform(0.4, 1.9) * luma * at_unit_luma(rng.uniform(0.75, 1.25, 3))).tolist()
        x, y, a, b = (int(value) for value in (*rng.uniform(0, side, 2), *rng.uniform(8, 36, 2)))
        kind, turn_deg = rng.integers(3), float(rng.uniform(0, 180))
        if kind == 0:
            corners = cv2.boxPoints(((x, y), (a, b), turn_deg)).astype(np.int32)
            cv2.fillPoly(ground, [corners], colour, cv2.LINE_AA)
        elif kind == 1:
            cv2.ellipse(ground, (x, y), (a // 2, b // 2), turn_deg, 0, 360, colour, -1, cv2.LINE_AA)
        else:
            ends = rng.uniform(0, side, (4, 2)).astype(np.int32)
            cv2.polylines(ground, [ends], False, colour, int(rng.integers(1, 4)), cv2.LINE_AA)
    return np.asarray(cv2.GaussianBlur(ground, (3, 3), 0), np.float32)


def draw_hand(place: Place, colour: tuple[float, float, float]) -> NDArray[np.float32]:
    """A forearm and a hand around a bottle, float32[S, S, 4]: values times coverage, and coverage."""
    fine = 4
    canvas = np.zeros((SPRITE_PX * fine, SPRITE_PX * fine, 4), np.float32)
    unit, middle = place.scale * fine, SPRITE_PX * fine / 2

    def stroke(start: tuple[float, float], end: tuple[float, float], width: float, paint: np.ndarray) -> None:
        ends = ((round(middle + x * unit), round(middle + y * unit)) for x, y in (start, end))
        cv2.line(canvas, *ends, (*paint.tolist(), 1.0), round(width * unit), cv2.LINE_AA)

    bottle = place.bottle * at_unit_luma(np.array(colour))
    stroke((16, 6), (110, 6), 15, place.skin)
    stroke((42, 6), (140, 6), 21, place.sleeve)
    stroke((0, -13), (0, 14), 17, bottle)
    stroke((0, -24), (0, -20), 8, bottle * 0.8)
    stroke((8, 2), (14, 8), 17, place.skin)
    for finger in range(4):
        shade = place.skin * (0.94 + 0.03 * finger)
        stroke((8, -5 + 5.5 * finger), (-6, -6 + 5.5 * finger), 4.5, shade)
    canvas[..., :3] *= canvas[..., 3:]
    return np.asarray(cv2.resize(canvas, (SPRITE_PX, SPRITE_PX), interpolation=cv2.INTER_AREA), np.float32)


def at_unit_luma(colour: NDArray[np.float64]) -> NDArray[np.float32]:
    """A colour of luminance 1."""
    return (colour / float(colour @ LUMA_WEIGHTS)).astype(np.float32)
