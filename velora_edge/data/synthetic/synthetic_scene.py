"""Scene of the synthetic set, and the kernels that draw it for the event camera and the RGB camera.

The object crosses the view again and again in one direction, so fast that no two pictures of a 30 Hz camera
show the same crossing. Each picture catches it anywhere in the view: its places in the pictures are
independent draws from one distribution, the same for all directions, so neither the direction nor its axis is
in the RGB stream, in whatever way its pictures are averaged, subtracted or ordered. The direction is in the
events' polarity: the object is always brighter than the ground, so its leading edge gives ON and its trailing
edge OFF. Colours have equal luminance, and luminance is all that the event sensor sees.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np

from velora_edge.events.kernels._intrinsics import kernel
from velora_edge.events.simulator import LUMA_WEIGHTS, SensorModel, sample_region

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray


OVERSAMPLING = 8
"""Sprite samples per pixel, along each axis."""


class Flights(NamedTuple):
    """Passes of an object over the view, one after the other, none at the same time as another.

    All are arrays of one length: start_us, end_us int64; x, y float64, the centre at the start, pixels;
    vx, vy float64, pixels per microsecond; sprite int64; reach float64, pixels from the centre beyond which
    the sprite is empty, with a margin; luma float64, of the object, 0..255.
    """

    start_us: Any
    end_us: Any
    x: Any
    y: Any
    vx: Any
    vy: Any
    sprite: Any
    reach: Any
    luma: Any


class Light(NamedTuple):
    """log intensity of the light: the sum of `swing * sin(rate * t + phase)`; t in microseconds."""

    swing: Any
    rate: Any
    phase: Any


@kernel
def light_at(light: Any, t_us: Any) -> float:
    """Natural logarithm of the light's factor."""
    total = 0.0
    for i in range(len(light.swing)):
        total += light.swing[i] * math.sin(light.rate[i] * t_us + light.phase[i])
    return total


@kernel
def region_of(flights: Any, i: Any, t_us: Any, height: Any, width: Any) -> Any:
    """Rows and columns of the view that the object may cover (y0, y1, x0, x1; maybe none), and its centre."""
    half = flights.reach[i]
    passed_us = t_us - flights.start_us[i]
    cx = flights.x[i] + flights.vx[i] * passed_us
    cy = flights.y[i] + flights.vy[i] * passed_us
    y0, y1 = max(0, math.floor(cy - half)), min(height, math.ceil(cy + half))
    x0, x1 = max(0, math.floor(cx - half)), min(width, math.ceil(cx + half))
    return (y0, max(y0, y1), x0, max(x0, x1)), cx, cy


@kernel
def draw_log(canvas: Any, ground: Any, ground_log: Any, sprites: Any, flights: Any, i: Any, t_us: Any) -> Any:
    """Draw flight `i` into the log-intensity canvas; return the region that may have changed."""
    region, cx, cy = region_of(flights, i, t_us, canvas.shape[0], canvas.shape[1])
    sprite, luma = sprites[flights.sprite[i]], np.float32(flights.luma[i])
    luma_log, side = np.float32(math.log(luma)), sprite.shape[0]
    for y in range(region[0], region[1]):
        row = math.floor((y + 0.5 - cy) * OVERSAMPLING) + side // 2
        for x in range(region[2], region[3]):
            column = math.floor((x + 0.5 - cx) * OVERSAMPLING) + side // 2
            inside = 0 <= row < side and 0 <= column < side
            share = sprite[row, column] if inside else np.float32(0)
            if share == 0:
                canvas[y, x] = ground_log[y, x]
            elif share == 1:
                canvas[y, x] = luma_log
            else:
                canvas[y, x] = math.log(ground[y, x] + share * (luma - ground[y, x]))
    return region


@kernel
def add_cover(cover: Any, sprites: Any, flights: Any, i: Any, t_us: Any, weight: Any) -> None:
    """Add flight `i`'s coverage, times a weight, to float32[H, W]."""
    region, cx, cy = region_of(flights, i, t_us, cover.shape[0], cover.shape[1])
    sprite = sprites[flights.sprite[i]]
    side = sprite.shape[0]
    for y in range(region[0], region[1]):
        row = math.floor((y + 0.5 - cy) * OVERSAMPLING) + side // 2
        for x in range(region[2], region[3]):
            column = math.floor((x + 0.5 - cx) * OVERSAMPLING) + side // 2
            if 0 <= row < side and 0 <= column < side:
                cover[y, x] += sprite[row, column] * weight


@kernel
def render_events(
    state: Any,
    canvas: Any,
    ground: Any,
    ground_log: Any,
    sprites: Any,
    flights: Any,
    light: Any,
    span: Any,
    light_step_us: Any,
    step_px: Any,
    refractory_us: Any,
    events: Any,
) -> tuple[Any, int]:
    """Let the sensor watch the scene; see `sample_region` for the sensor's arguments and the return.

    Where the object is, it is drawn anew whenever it has moved by `step_px`; the rest of the view only
    changes with the light and is sampled every `light_step_us`.

    Args:
        state: of the sensor, begun at the span's start with the canvas; changed.
        canvas: float32[H, W] log intensity of the scene at the span's start, light apart; changed.
        ground: float32[H, W], intensity of the ground.
        ground_log: its logarithm.
        sprites: float32[K, S, S], coverage, oversampled.
        flights: in time order.
        light: of the whole scene.
        span: start and end, microseconds.
        light_step_us: as above.
        step_px: as above.
        refractory_us: of the sensor.
        events: room for events.
    """
    t0_us, t1_us = span
    whole = (0, canvas.shape[0], 0, canvas.shape[1])
    n = 0
    next_us = t0_us + light_step_us
    for i in range(len(flights.start_us)):
        step_us = max(1, int(step_px / math.hypot(flights.vx[i], flights.vy[i])))
        t_us = max(flights.start_us[i], t0_us + 1)
        while t_us <= min(flights.end_us[i], t1_us):
            while next_us <= t_us:
                gain = np.float32(light_at(light, next_us))
                events, n = sample_region(state, canvas, gain, whole, next_us, refractory_us, events, n)
                next_us += light_step_us
            region = draw_log(canvas, ground, ground_log, sprites, flights, i, t_us)
            gain = np.float32(light_at(light, t_us))
            events, n = sample_region(state, canvas, gain, region, t_us, refractory_us, events, n)
            t_us += step_us
    while next_us <= t1_us:
        gain = np.float32(light_at(light, next_us))
        events, n = sample_region(state, canvas, gain, whole, next_us, refractory_us, events, n)
        next_us += light_step_us
    return events, n


@kernel
def expose_into(
    images: Any,
    t_us: Any,
    exposure_us: Any,
    samples: Any,
    ground_rgb: Any,
    colours: Any,
    sprites: Any,
    flights: Any,
    light: Any,
    noise: Any,
    grain: Any,
) -> None:
    """Take the RGB camera's pictures: the light that falls in during each exposure, and noise.

    Args:
        images: uint8[T, H, W, 3]; written.
        t_us: int64[T], middle of each exposure.
        exposure_us: its length.
        samples: positions of the object that are summed up in an exposure.
        ground_rgb: float32[H, W, 3], 0..255.
        colours: float32[F, 3], each flight's, 0..255.
        sprites: float32[K, S, S].
        flights: in time order.
        light: of the whole scene.
        noise: float32[T, H, W, 3], normal deviates.
        grain: variance of a dark pixel, and what each unit of intensity adds to it.
    """
    count, height, width, _ = images.shape
    cover = np.empty((height, width), np.float32)
    for k in range(count):
        cover[:] = 0
        seen = -1
        for s in range(samples):
            at_us = t_us[k] + int((s + 0.5) / samples * exposure_us) - exposure_us // 2
            i = np.searchsorted(flights.start_us, at_us, side="right") - 1
            if i >= 0 and at_us <= flights.end_us[i]:
                seen = i
                add_cover(cover, sprites, flights, i, at_us, np.float32(1 / samples))
        factor = np.float32(math.exp(light_at(light, t_us[k])))
        dark, bright = np.float32(grain[0]), np.float32(grain[1])
        for y in range(height):
            for x in range(width):
                for c in range(3):
                    value = ground_rgb[y, x, c]
                    if seen >= 0:
                        value += cover[y, x] * (colours[seen, c] - value)
                    value *= factor
                    value += noise[k, y, x, c] * np.sqrt(dark + bright * value)
                    images[k, y, x, c] = np.uint8(
                        min(max(value + np.float32(0.5), np.float32(0)), np.float32(255))
                    )


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
