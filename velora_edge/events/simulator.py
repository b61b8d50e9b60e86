"""Simulator of an event camera: from pictures to events.

Each pixel compares the logarithm of its intensity with the one at which it last fired, and fires ON or OFF
for each threshold that is crossed; between two pictures the logarithm is taken to change linearly, which
gives times finer than the pictures (Rebecq et al., ESIM, CoRL 2018). Mismatch of thresholds, leak, noise,
finite bandwidth and the linear part of the dark range follow Hu et al., v2e, CVPRW 2021.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from velora_edge.datatypes import EventBatch
from velora_edge.errors import InputError
from velora_edge.events.kernels._intrinsics import kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray


class PixelState(NamedTuple):
    """State of the pixels; all arrays are [H, W].

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


LINEAR_BELOW = 20.0
"""Intensity, of 255, under which the response is linear and not logarithmic (v2e)."""
LUMA_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)
"""Luminance of red, green and blue: ITU-R BT.601, as in OpenCV's RGB2GRAY."""
_LONG_AGO = np.iinfo(np.int64).min // 2
_LEAST_THRESHOLD = 0.01


@dataclass(frozen=True, slots=True)
class SensorModel:
    """Parameters of the simulated sensor.

    Attributes:
        threshold_on: rise of log intensity that gives an ON event.
        threshold_off: fall of log intensity that gives an OFF event.
        threshold_sigma: standard deviation of both over the pixels.
        refractory_us: time after an event for which its pixel is silent.
        noise_rate_hz: background activity of each pixel, both polarities alike.
        leak_rate_hz: ON events of a pixel in constant light.
        cutoff_hz: bandwidth of the photoreceptor in full light; 0 for no limit.
        resolution_us: the sensor is read out at multiples of it, row by row and ON after OFF; an event has
            the time of the readout before it.
        starts_charged: references begin anywhere between the thresholds, and not at the first picture.
    """

    threshold_on: float = 0.2
    threshold_off: float = 0.2
    threshold_sigma: float = 0.03
    refractory_us: int = 500
    noise_rate_hz: float = 0.1
    leak_rate_hz: float = 0.1
    cutoff_hz: float = 0.0
    resolution_us: int = 1
    starts_charged: bool = True

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least = _LEAST_THRESHOLD if field.name in ("threshold_on", "threshold_off") else 0
            least = 1 if field.name == "resolution_us" else least
            if not np.isfinite(value) or value < least:
                raise InputError(f"expected the sensor's {field.name} to be at least {least}, got {value}")


def log_intensity(intensity: NDArray[Any]) -> NDArray[np.float32]:
    """Natural logarithm of intensities on the scale of 0..255; linear under 20, where it joins on.

    Args:
        intensity: any shape, uint8 or float.
    """
    values = np.asarray(intensity, np.float32)
    slope = np.float32(np.log(LINEAR_BELOW) / LINEAR_BELOW)
    return np.where(values < LINEAR_BELOW, values * slope, np.log(np.maximum(values, 1.0))).astype(np.float32)


_LOG_OF_UINT8 = log_intensity(np.arange(256))


class EventSimulator:
    """A simulated sensor that is shown one picture after another; single-threaded.

    Args:
        width: of the sensor and of every picture, pixels.
        height: likewise.
        model: what the sensor is like.
        seed: of its mismatch and its noise; the same pictures and seed give the same events.
    """

    def __init__(self, width: int, height: int, model: SensorModel | None = None, seed: int = 0) -> None:
        if not (0 < width <= 65536 and 0 < height <= 65536):
            raise InputError(f"expected a sensor of 1 to 65536 pixels a side, got {width}x{height}")
        self.width, self.height, self.model = width, height, model or SensorModel()
        self.rng = np.random.default_rng(seed)
        self.t_us: int | None = None
        """Time of the newest picture, None before the first."""
        self.state = self._new_state()
        self.room = EventColumns(*_columns(width * height))
        self._filtered: NDArray[np.float32] | None = None

    def push(self, image: NDArray[Any], t_us: int) -> EventBatch:
        """Show the sensor a picture; get the events since the one before, in time order.

        Args:
            image: intensities from 0 to 255: [H, W] luminance or [H, W, 3] RGB, uint8 or float; not changed.
            t_us: its time, later than that of the one before.

        Returns:
            Events in [time before, t_us), but for the rounding of `SensorModel.resolution_us`; none for the
            first picture.

        Raises:
            InputError: if the picture's shape or its time does not fit.
        """
        intensity = self._intensity(image)
        level = _LOG_OF_UINT8[intensity] if intensity.dtype == np.uint8 else log_intensity(intensity)
        if self.t_us is None:
            self.begin(level, t_us)
            return EventBatch.empty()
        if t_us <= self.t_us:
            raise InputError(f"expected a picture later than {self.t_us} us, got one at {t_us} us")
        if self.model.cutoff_hz > 0:
            level = self._low_passed(level, intensity, t_us - self.t_us)
        whole = (0, self.height, 0, self.width)
        self.room, n = sample_region(
            self.state, level, np.float32(0), whole, t_us, self.model.refractory_us, self.room, 0
        )
        return self.collect(n, t_us)

    def begin(self, level: NDArray[np.float32], t_us: int) -> None:
        """Start with log intensities float32[H, W]."""
        self.state.level[:] = self.state.reference[:] = level
        if self.model.starts_charged:
            charge = self.rng.random(level.shape, np.float32)
            span = self.state.threshold_on + self.state.threshold_off
            self.state.reference[:] += charge * span - self.state.threshold_on
        self.state.sampled_us[:] = self.t_us = t_us
        self._filtered = level.copy() if self.model.cutoff_hz > 0 else None

    def collect(self, n: int, t_us: int) -> EventBatch:
        """The first `n` events of `room` and the noise up to `t_us`, in time order; ends a step."""
        assert self.t_us is not None
        room, noise = self.room, self._noise(self.t_us, t_us)
        t = np.concatenate([room.t[:n], noise.t])
        x = np.concatenate([room.x[:n], noise.x])
        y = np.concatenate([room.y[:n], noise.y])
        p = np.concatenate([room.p[:n], noise.p])
        key = t
        if self.model.resolution_us > 1:
            tick = t // self.model.resolution_us
            t = tick * self.model.resolution_us
            row = ((tick - self.t_us // self.model.resolution_us) * self.height + y) * 2 + p
            key = row * self.width + x
        order = np.argsort(key, kind="stable")
        self.t_us = t_us
        return EventBatch(t[order], x[order], y[order], p[order])

    def _new_state(self) -> PixelState:
        shape, model = (self.height, self.width), self.model

        def spread(threshold: float) -> NDArray[np.float32]:
            noise = self.rng.standard_normal(shape, np.float32) * np.float32(model.threshold_sigma)
            return np.maximum(np.float32(threshold) + noise, np.float32(_LEAST_THRESHOLD))

        # A leak differs from pixel to pixel, or all pixels of a still scene would fire at once.
        leak = self.rng.uniform(0.5, 1.5, shape) * model.leak_rate_hz * 1e-6
        return PixelState(
            np.zeros(shape, np.float32),
            np.zeros(shape, np.float32),
            np.zeros(shape, np.int64),
            np.full(shape, _LONG_AGO, np.int64),
            spread(model.threshold_on),
            spread(model.threshold_off),
            leak.astype(np.float32),
        )

    def _intensity(self, image: NDArray[Any]) -> NDArray[Any]:
        if image.shape not in ((self.height, self.width), (self.height, self.width, 3)):
            raise InputError(
                f"expected a picture of {self.width}x{self.height} pixels, grey or RGB, got {image.shape}"
            )
        return image @ LUMA_WEIGHTS if image.ndim == 3 else image

    def _low_passed(
        self, level: NDArray[np.float32], intensity: NDArray[Any], interval_us: int
    ) -> NDArray[np.float32]:
        assert self._filtered is not None
        low_pass_into(self._filtered, level, intensity, 2e-6 * np.pi * self.model.cutoff_hz * interval_us)
        return self._filtered

    def _noise(self, t0_us: int, t1_us: int) -> EventColumns:
        expected = self.model.noise_rate_hz * 1e-6 * (t1_us - t0_us) * self.width * self.height
        n = int(self.rng.poisson(expected)) if expected > 0 else 0
        return EventColumns(
            np.sort(self.rng.integers(t0_us, max(t1_us, t0_us + 1), n)),
            self.rng.integers(self.width, size=n, dtype=np.uint16),
            self.rng.integers(self.height, size=n, dtype=np.uint16),
            self.rng.integers(2, size=n, dtype=np.uint8),
        )


def _columns(n: int) -> tuple[NDArray[Any], ...]:
    batch = EventBatch.empty(n)
    return batch.t_us, batch.x, batch.y, batch.p
