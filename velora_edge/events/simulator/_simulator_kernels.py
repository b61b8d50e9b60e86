"""The pixels of the simulated sensor: log intensity in, threshold crossings out."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from velora_edge.events.kernels._compile import kernel


class PixelState(NamedTuple):
    """What each pixel remembers; all arrays are [H, W].

    reference: float32, log intensity of the last crossing; level: float32, log intensity of the last sample;
    sampled_us, fired_us: int64, times of the last sample and of the last event; threshold_on, threshold_off:
    float32, steps of log intensity, above 0; leak_per_us: float32, steps by which the reference sinks.
    """

    reference: Any
    level: Any
    sampled_us: Any
    fired_us: Any
    threshold_on: Any
    threshold_off: Any
    leak_per_us: Any


class EventColumns(NamedTuple):
    """Room for events: t int64, x uint16, y uint16, p uint8, one length."""

    t: Any
    x: Any
    y: Any
    p: Any


@kernel
def grown(events: Any, n: Any) -> Any:
    """Twice the room, with the first `n` events."""
    room = 2 * len(events.t)
    t, x = np.empty(room, np.int64), np.empty(room, np.uint16)
    y, p = np.empty(room, np.uint16), np.empty(room, np.uint8)
    t[:n], x[:n], y[:n], p[:n] = events.t[:n], events.x[:n], events.y[:n], events.p[:n]
    return EventColumns(t, x, y, p)


@kernel
def sample_region(
    state: Any, image: Any, gain: Any, region: Any, t_us: Any, refractory_us: Any, events: Any, n: int
) -> tuple[Any, int]:
    """Let the pixels of a region see `image + gain`, log intensities float32[H, W], at `t_us`.

    The light is taken to change linearly between a pixel's samples, so its crossings lie in
    [last sample, t_us). One inside the refractory time moves the reference but gives no event.

    Args:
        state: changed.
        image: of the whole sensor.
        gain: added to every pixel.
        region: first row, end row, first column, end column; inside the sensor.
        t_us: not before the pixels' last samples.
        refractory_us: time after an event for which a pixel is silent.
        events: room, grown where it does not suffice.
        n: events in it so far.

    Returns:
        The room, which may be another, and the number of events in it, pixel by pixel and not by time.
    """
    # The arrays are taken out of their tuple once: a call with the tuple for each pixel is ten times slower.
    references, levels, sampled = state.reference, state.level, state.sampled_us
    fired, ons, offs, leaks = state.fired_us, state.threshold_on, state.threshold_off, state.leak_per_us
    y0, y1, x0, x1 = region
    for y in range(y0, y1):
        for x in range(x0, x1):
            level, before, start_us = image[y, x] + gain, levels[y, x], sampled[y, x]
            on, off, interval_us = ons[y, x], offs[y, x], t_us - start_us
            reference = references[y, x] - leaks[y, x] * on * np.float32(interval_us)
            levels[y, x], sampled[y, x] = level, t_us
            change = level - reference
            if -off < change < on:
                references[y, x] = reference
                continue
            step, polarity = (on, 1) if change > 0 else (-off, 0)
            crossings = int(change / step)
            while n + crossings > len(events.t):
                events = grown(events, n)
            slope = level - before
            for i in range(1, crossings + 1):
                part = (reference + i * step - before) / slope if slope != 0 else 1.0
                passed_us = int(min(max(part, 0.0), 1.0) * interval_us)
                at_us = start_us + min(passed_us, max(interval_us - 1, 0))
                if at_us - fired[y, x] >= refractory_us:
                    events.t[n], events.x[n], events.y[n], events.p[n] = at_us, x, y, polarity
                    fired[y, x] = at_us
                    n += 1
            references[y, x] = reference + crossings * step
    return events, n


@kernel
def low_pass_into(level: Any, target: Any, intensity: Any, step: Any) -> None:
    """Move float32[H, W] `level` towards `target` as a photoreceptor does: slower where it is dark.

    `step` is 2 pi f dt; the share of the intensity, 0..255, and its offset of a tenth follow Hu et al., v2e,
    2021.
    """
    for y in range(level.shape[0]):
        for x in range(level.shape[1]):
            share = min(1.0, step * (0.1 + 0.9 * min(max(intensity[y, x], 0.0), 255.0) / 255.0))
            level[y, x] += share * (target[y, x] - level[y, x])
