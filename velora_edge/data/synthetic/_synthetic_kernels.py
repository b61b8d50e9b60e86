"""Drawing the synthetic scene: the object over the ground, seen by the event sensor and by the RGB camera."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from velora_edge.events.kernels._compile import kernel
from velora_edge.events.simulator._simulator_kernels import sample_region

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
