from __future__ import annotations

import numpy as np
import pytest

from velora_edge.datatypes import EventBatch
from velora_edge.errors import InputError
from velora_edge.events.simulator import (
    EventColumns,
    EventSimulator,
    PixelState,
    SensorModel,
    log_intensity,
    low_pass_into,
    sample_region,
)

PLAIN = SensorModel(
    threshold_on=0.2, threshold_off=0.2, threshold_sigma=0, refractory_us=0, noise_rate_hz=0, leak_rate_hz=0,
    starts_charged=False,
)  # fmt: skip


def uniform(level: float, width: int = 1, height: int = 1) -> np.ndarray:
    """A picture whose log intensity is that of 100, and `level` more."""
    return np.full((height, width), 100 * np.exp(level), np.float32)


def columns(batch: EventBatch) -> list[tuple[int, int, int, int]]:
    return list(zip(batch.t_us.tolist(), batch.x.tolist(), batch.y.tolist(), batch.p.tolist(), strict=True))


def changed(model: SensorModel, **fields: float) -> SensorModel:
    from dataclasses import replace

    return replace(model, **fields)


def watch(simulator: EventSimulator, levels: list[float], step_us: int = 1000) -> EventBatch:
    shape = (simulator.width, simulator.height)
    return EventBatch.concatenate(
        [simulator.push(uniform(level, *shape), i * step_us) for i, level in enumerate(levels)]
    )


def test_first_picture_gives_no_events():
    assert len(EventSimulator(1, 1, PLAIN).push(uniform(0.0), 5)) == 0


def test_rise_gives_an_on_event_at_each_threshold_at_its_time():
    # 0.45 in 1000 us crosses 0.2 at 444 us and 0.4 at 888 us.
    events = watch(EventSimulator(1, 1, PLAIN), [0.0, 0.45])
    assert columns(events) == [(444, 0, 0, 1), (888, 0, 0, 1)]


def test_fall_gives_off_events():
    events = watch(EventSimulator(1, 1, changed(PLAIN, threshold_off=0.3)), [0.0, -0.45])
    assert columns(events) == [(666, 0, 0, 0)]


def test_small_changes_add_up_over_pictures():
    # 0.09 + 0.09 + 0.09: the threshold is crossed in the third, 2/9 of the way.
    events = watch(EventSimulator(1, 1, PLAIN), [0.0, 0.09, 0.18, 0.27])
    assert columns(events) == [(2222, 0, 0, 1)]


def test_reference_stays_where_it_was_crossed():
    # Up to 0.25 crosses 0.2; back to 0.0 crosses 0.0 only if the reference is 0.2 and not 0.25.
    events = watch(EventSimulator(1, 1, PLAIN), [0.0, 0.25, -0.01])
    assert [p for *_, p in columns(events)] == [1, 0]


def test_more_pictures_of_the_same_ramp_give_the_same_events():
    ramp = np.linspace(0, 1.5, 31)
    fine = watch(EventSimulator(1, 1, PLAIN), list(ramp), step_us=1000)
    coarse = watch(EventSimulator(1, 1, PLAIN), [0.0, 1.5], step_us=30_000)
    assert fine.p.tolist() == coarse.p.tolist() == [1] * 7
    assert np.abs(fine.t_us - coarse.t_us).max() <= 1


def test_events_of_several_pixels_come_in_time_order():
    simulator = EventSimulator(3, 2, PLAIN)
    simulator.push(uniform(0.0, 3, 2), 0)
    rises = np.array([[0.45, 0.0, -0.23], [0.9, 0.23, 0.0]], np.float32)
    events = simulator.push(100 * np.exp(rises), 1000)
    assert columns(events) == [
        (222, 0, 1, 1), (444, 0, 0, 1), (444, 0, 1, 1), (666, 0, 1, 1), (869, 2, 0, 0), (869, 1, 1, 1),
        (888, 0, 0, 1), (888, 0, 1, 1),
    ]  # fmt: skip


def test_events_lie_before_the_picture_that_they_end_at():
    # The threshold is reached exactly at the second picture.
    simulator = EventSimulator(1, 1, changed(PLAIN, threshold_on=0.25))
    simulator.push(np.float32([[1.0]]) * 40, 10)
    events = simulator.push(np.float32([[40 * np.exp(0.2500001)]]), 20)
    assert columns(events) == [(19, 0, 0, 1)]


def test_refractory_pixel_is_silent_but_goes_on_following():
    # 444 and 888 us, 300 us apart at the most: the second is lost, and nothing makes up for it later.
    events = watch(EventSimulator(1, 1, changed(PLAIN, refractory_us=500)), [0.0, 0.45, 0.45, 0.45])
    assert columns(events) == [(444, 0, 0, 1)]


def test_same_seed_gives_the_same_events_and_another_does_not():
    model = SensorModel(noise_rate_hz=200)
    levels = [0.0, 0.5, 0.1, 0.7]

    def run(seed: int) -> list[tuple[int, int, int, int]]:
        return columns(watch(EventSimulator(4, 4, model, seed), levels))

    assert run(3) == run(3)
    assert run(3) != run(4)


def test_noise_comes_at_its_rate_in_both_polarities_over_the_whole_sensor():
    simulator = EventSimulator(20, 10, changed(PLAIN, noise_rate_hz=50))
    events = watch(simulator, [0.0] * 11, step_us=100_000)  # 200 pixels, 1 s: 10,000 expected
    assert len(events) == pytest.approx(10_000, rel=0.05)
    assert events.p.mean() == pytest.approx(0.5, abs=0.03)
    assert (np.bincount(events.y * 20 + events.x, minlength=200) > 0).all()
    assert (np.diff(events.t_us) >= 0).all()
    assert events.t_us.min() >= 0
    assert events.t_us.max() < 1_000_000


def test_leak_gives_on_events_in_constant_light():
    simulator = EventSimulator(10, 10, changed(PLAIN, leak_rate_hz=5))
    events = watch(simulator, [0.0] * 101, step_us=100_000)  # 100 pixels, 10 s: 5,000 expected
    assert len(events) == pytest.approx(5_000, rel=0.05)
    assert events.p.all()


def test_thresholds_differ_between_pixels_by_their_sigma():
    state = EventSimulator(100, 100, SensorModel(0.3, 0.4, threshold_sigma=0.05)).state
    assert state.threshold_on.mean() == pytest.approx(0.3, abs=0.003)
    assert state.threshold_off.mean() == pytest.approx(0.4, abs=0.003)
    assert state.threshold_on.std() == pytest.approx(0.05, abs=0.003)
    assert state.threshold_on.min() >= 0.01


def test_charged_start_spreads_the_first_events_over_time():
    simulator = EventSimulator(50, 50, changed(PLAIN, starts_charged=True))
    events = watch(simulator, [0.0, 0.2])
    # A rise of one threshold takes half of the references, spread over two thresholds, across one.
    assert len(events) == pytest.approx(1250, rel=0.1)
    assert np.percentile(events.t_us, 90) - np.percentile(events.t_us, 10) > 700


def test_rgb_picture_counts_by_its_luminance():
    grey, rgb = EventSimulator(1, 1, PLAIN), EventSimulator(1, 1, PLAIN)
    for t_us, (red, green, blue) in enumerate([(50, 60, 70), (200, 100, 90)]):
        luma = 0.299 * red + 0.587 * green + 0.114 * blue
        a = grey.push(np.float32([[luma]]), 1000 * t_us)
        b = rgb.push(np.uint8([[[red, green, blue]]]), 1000 * t_us)
    assert columns(a) == columns(b)
    assert len(a) == 3


def test_finite_bandwidth_thins_out_a_flicker():
    flicker = [0.0, 0.5] * 50
    fast = watch(EventSimulator(1, 1, PLAIN), flicker)
    slow = watch(EventSimulator(1, 1, changed(PLAIN, cutoff_hz=20)), flicker)
    assert len(fast) > 100
    assert len(slow) < 10


def test_log_intensity_is_continuous_and_never_falls():
    levels = log_intensity(np.arange(0, 256, 0.25))
    steps = np.diff(levels)
    assert (steps > 0).all()
    assert levels[0] == 0
    assert levels[80] == pytest.approx(np.log(20))  # where the linear part ends
    assert levels[-1] == pytest.approx(np.log(255.75))
    assert steps.max() < 0.25 * np.log(20) / 20 + 1e-5


def test_readout_rounds_times_down_and_goes_row_by_row():
    model = changed(SensorModel(noise_rate_hz=2000), resolution_us=500)
    events = watch(EventSimulator(8, 8, model), [0.0, 0.6, 0.2])
    assert (events.t_us % 500 == 0).all()
    rows = list(zip(events.t_us, events.y, events.p, events.x, strict=True))
    assert rows == sorted(rows)
    assert len(set(events.t_us.tolist())) == 4


@pytest.mark.parametrize("shape", [(2, 3), (3, 2, 4), (6,)])
def test_picture_of_another_size_is_refused(shape):
    with pytest.raises(InputError, match="expected a picture of 2x3 pixels"):
        EventSimulator(2, 3, PLAIN).push(np.zeros(shape, np.uint8), 0)


def test_picture_that_is_not_later_is_refused():
    simulator = EventSimulator(1, 1, PLAIN)
    simulator.push(uniform(0.0), 100)
    with pytest.raises(InputError, match="later than 100 us, got one at 100 us"):
        simulator.push(uniform(0.0), 100)


@pytest.mark.parametrize(
    ("field", "value"),
    [("threshold_on", 0.0), ("threshold_off", -1), ("noise_rate_hz", -1), ("resolution_us", 0)],
)
def test_impossible_sensor_is_refused_by_name(field, value):
    with pytest.raises(InputError, match=field):
        changed(PLAIN, **{field: value})


def _state(shape: tuple[int, int]) -> PixelState:
    rng = np.random.default_rng(0)
    return PixelState(
        np.full(shape, 4.0, np.float32), np.full(shape, 4.0, np.float32), np.zeros(shape, np.int64),
        np.full(shape, -(1 << 60), np.int64), rng.uniform(0.1, 0.3, shape).astype(np.float32),
        rng.uniform(0.1, 0.3, shape).astype(np.float32), np.full(shape, 1e-6, np.float32),
    )  # fmt: skip


@pytest.mark.parametrize("region", [(0, 5, 0, 7), (1, 3, 2, 7), (2, 2, 0, 7)])
def test_compiled_kernel_gives_what_the_uncompiled_one_does(region):
    image = np.random.default_rng(1).normal(4.0, 0.6, (5, 7)).astype(np.float32)
    results = []
    for kernel in (sample_region, sample_region.py_func):
        state = _state((5, 7))
        room = EventColumns(*[np.zeros(400, kind) for kind in (np.int64, np.uint16, np.uint16, np.uint8)])
        events, n = kernel(state, image, np.float32(0.1), region, 1000, 100, room, 0)
        results.append(([column[:n].tolist() for column in events], state.reference, state.level))
    (compiled, *rest), (plain, *plain_rest) = results
    assert compiled[1:] == plain[1:]
    assert (
        np.abs(np.subtract(compiled[0], plain[0])).max(initial=0) <= 1
    )  # float32 in one, float64 in the other
    for a, b in zip(rest, plain_rest, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    y0, y1, x0, x1 = region
    assert all(y0 <= y < y1 and x0 <= x < x1 for x, y in zip(compiled[1], compiled[2], strict=True))


def test_room_for_events_grows_and_keeps_what_it_holds():
    image = np.full((5, 7), 6.0, np.float32)
    room = EventColumns(*[np.zeros(1, kind) for kind in (np.int64, np.uint16, np.uint16, np.uint8)])
    wide = EventColumns(*[np.zeros(999, kind) for kind in (np.int64, np.uint16, np.uint16, np.uint8)])
    grown, n = sample_region(_state((5, 7)), image, np.float32(0), (0, 5, 0, 7), 1000, 0, room, 0)
    expected, m = sample_region(_state((5, 7)), image, np.float32(0), (0, 5, 0, 7), 1000, 0, wide, 0)
    assert n == m > 35 * 6
    for a, b in zip(grown, expected, strict=True):
        assert a[:n].tolist() == b[:m].tolist()


def test_low_pass_is_slower_in_the_dark():
    level = np.zeros((1, 2), np.float32)
    low_pass_into(level, np.ones((1, 2), np.float32), np.float32([[0.0, 255.0]]), 0.5)
    np.testing.assert_allclose(level, [[0.05, 0.5]], rtol=1e-6)
