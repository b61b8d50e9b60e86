"""What the synthetic set shows: an object of some colour that flies over a textured ground in changing light.

The object crosses the view again and again in one direction, so fast that no two pictures of a 30 Hz camera
show the same crossing. Each picture catches it anywhere in the view: its places in the pictures are
independent draws from one distribution, the same for all directions, so neither the direction nor its axis is
in the RGB stream, in whatever way its pictures are averaged, subtracted or ordered. The direction is in the
events' polarity: the object is always brighter than the ground, so its leading edge gives ON and its trailing
edge OFF. Colours have equal luminance, and luminance is all that the event sensor sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from velora_edge.data.synthetic._synthetic_kernels import OVERSAMPLING, Flights, Light
from velora_edge.events.simulator.simulator import LUMA_WEIGHTS, SensorModel

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

COLOURS = {"red": (1.90, 0.62, 0.62), "green": (0.45, 1.35, 0.62), "blue": (0.75, 0.95, 1.90)}
"""Red, green and blue of each colour at luminance 1."""
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
"""Columns and rows, rows downwards."""
LABELS = tuple(f"{colour}-{direction}" for colour in COLOURS for direction in DIRECTIONS)
"""The set's classes; a clip's label is an index into them."""
_MARGIN_PX = 1.0  # at least a step, so that a pixel that the object leaves is drawn once more


@dataclass(frozen=True, slots=True)
class SceneModel:
    """The scene's ranges and both cameras; a pair of numbers is the range of a uniform draw.

    Attributes:
        side_px: width and height of both cameras' view. It is square, so that no direction differs.
        period_us: from one picture to the next; the event window of a pair is as long.
        exposure_us: of a picture; so short (a quarter of a pixel's way) that its blur does not tell the axis.
        object_px: diameter of the object.
        elongation: of the object's axes, each way.
        edge_px: width of the object's soft edge.
        object_luma: of 255.
        ground_luma: lowest and highest value of the ground's texture.
        tilt_deg: how far a crossing may turn from the label's direction, each way.
        crossing_us: time from just outside to just outside; at most half a period, for one crossing may begin
            just before a picture and the one before it end just after the picture before.
        light_swing: of the slow and of the fast change of light, log intensity.
        light_period_us: of the slow one and, divided by five, of the fast one.
        grain: variance of a dark pixel, and what each unit of intensity adds to it (read and shot noise).
        step_px: the object moves by at most this much from one sample to the next.
        light_step_us: from one sample of the whole view to the next.
        sensor: the event sensor, but for its noise rate.
        noise_rate_hz: of the event sensor.
    """

    side_px: int = 96
    period_us: int = 33_333
    exposure_us: int = 24
    object_px: tuple[float, float] = (14.0, 18.0)
    elongation: tuple[float, float] = (1.0, 1.3)
    edge_px: tuple[float, float] = (1.2, 2.0)
    object_luma: tuple[float, float] = (100.0, 116.0)
    ground_luma: tuple[float, float] = (24.0, 52.0)
    tilt_deg: float = 10.0
    crossing_us: tuple[float, float] = (10_000.0, 15_500.0)
    light_swing: tuple[float, float] = (0.02, 0.12)
    light_period_us: tuple[float, float] = (300_000.0, 2_000_000.0)
    grain: tuple[float, float] = (6.0, 0.15)
    step_px: float = 0.5
    light_step_us: int = 4_000
    sensor: SensorModel = SensorModel(  # noqa: RUF009  (frozen)
        threshold_on=0.3, threshold_off=0.3, refractory_us=500, resolution_us=200
    )
    noise_rate_hz: tuple[float, float] = (0.1, 0.6)


def draw_ground(scene: SceneModel, rng: Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A textured ground: its luminance float32[H, W] and its colours float32[H, W, 3] of that luminance."""
    side = scene.side_px
    texture = np.zeros((side, side), np.float32)
    for cells, weight in ((4, 1.0), (12, 0.8), (32, 0.8)):
        noise = rng.random((cells, cells), np.float32)
        texture += weight * cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC)
    texture -= texture.min()
    texture /= texture.max()
    low, high = scene.ground_luma
    luma = (low + (high - low) * texture).astype(np.float32)
    return luma, (luma[..., None] * _at_unit_luma(rng.uniform(0.85, 1.15, 3))).astype(np.float32)


def draw_sprite(scene: SceneModel, rng: Generator) -> NDArray[np.float32]:
    """A random object's coverage, 0 to 1, float32[S, S], `OVERSAMPLING` samples a pixel.

    An ellipse or a box with round corners, of any orientation.
    """
    diameter = rng.uniform(*scene.object_px)
    stretch = np.sqrt(rng.uniform(*scene.elongation))
    edge, turn, power = rng.uniform(*scene.edge_px), rng.uniform(0, 2 * np.pi), rng.choice((2, 4))
    side = sprite_side(scene)
    at = (np.arange(side, dtype=np.float32) + 0.5 - side / 2) / OVERSAMPLING
    u = (at * np.cos(turn) - at[:, None] * np.sin(turn)) / (diameter / 2 * stretch)
    v = (at * np.sin(turn) + at[:, None] * np.cos(turn)) / (diameter / 2 / stretch)
    square = u * u, v * v
    radius = np.sqrt(square[0] + square[1] if power == 2 else np.sqrt(square[0] ** 2 + square[1] ** 2))
    inside_px = (1 - radius) * diameter / 2
    return np.clip(0.5 + inside_px / edge, 0, 1).astype(np.float32)


def sprite_side(scene: SceneModel) -> int:
    """Side of the scene's sprites, samples; room for any object, its soft edge and a margin."""
    # A box with round corners (power 4) reaches 2 ** 0.25 times as far along its diagonal.
    reach = scene.object_px[1] / 2 * np.sqrt(scene.elongation[1]) * 2**0.25
    soft = scene.edge_px[1] * scene.elongation[1]
    return 2 * int(np.ceil((reach + soft / 2 + _MARGIN_PX) * OVERSAMPLING))


def draw_colour(name: str, rng: Generator) -> NDArray[np.float32]:
    """A shade of one of `COLOURS` at luminance 1, float32[3]."""
    return _at_unit_luma(np.array(COLOURS[name]) * rng.uniform(0.93, 1.07, 3))


def draw_light(scene: SceneModel, rng: Generator) -> Light:
    """A slow and a fast change of light, of random phase."""
    swing = rng.uniform(*scene.light_swing, 2) * (1.0, 0.3)
    period_us = rng.uniform(*scene.light_period_us, 2) * (1.0, 0.2)
    return Light(swing, 2 * np.pi / period_us, rng.uniform(0, 2 * np.pi, 2))


def draw_flights(
    scene: SceneModel,
    direction: str,
    t_us: NDArray[np.int64],
    sprite: NDArray[np.float32],
    number: int,
    rng: Generator,
) -> Flights:
    """Crossings of one object in one direction, one for each picture.

    What is drawn does not depend on the direction: where in the view each picture catches the object, evenly
    over the square in which all of it is seen, how fast it is, and how its way is tilted.

    Args:
        scene: what is shown.
        direction: name of one of `DIRECTIONS`.
        t_us: int64[N], the pictures' times, at least a period apart.
        sprite: the object.
        number: of the sprite among those of the scene.
        rng: where all is drawn from.
    """
    n, half, reach = len(t_us), scene.side_px / 2, sprite_side(scene) / OVERSAMPLING / 2
    seen_half = half - scene.object_px[1] / 2
    along, beside = rng.uniform(-seen_half, seen_half, (2, n))
    speed = 2 * (half + reach) / rng.uniform(*scene.crossing_us, n)
    slope = np.tan(np.deg2rad(rng.uniform(-scene.tilt_deg, scene.tilt_deg, n)))
    before = along + half + reach
    start_us = t_us - (before / speed).astype(np.int64)
    end_us = start_us + (2 * (half + reach) / speed).astype(np.int64)
    x, y = _turned(np.full(n, -half - reach), beside - slope * before, direction)
    vx, vy = _turned(speed, slope * speed, direction)
    luma = np.full(n, rng.uniform(*scene.object_luma))
    half_px = np.full(n, _reach_px(sprite))
    return Flights(start_us, end_us, x + half, y + half, vx, vy, np.full(n, number), half_px, luma)


def _reach_px(sprite: NDArray[np.float32]) -> float:
    rows, columns = np.nonzero(sprite)
    side = sprite.shape[0]
    return float(np.abs(np.concatenate([rows, columns]) + 0.5 - side / 2).max() / OVERSAMPLING) + _MARGIN_PX


def _turned(along: NDArray[np.float64], beside: NDArray[np.float64], direction: str) -> Any:
    """Columns and rows of what lies `along` the direction and `beside` it."""
    dx, dy = DIRECTIONS[direction]
    return dx * along - dy * beside, dy * along + dx * beside


def _at_unit_luma(rgb: NDArray[np.float64]) -> NDArray[np.float32]:
    return (rgb / (rgb @ LUMA_WEIGHTS)).astype(np.float32)
