from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from velora_edge.data.synthetic.synthetic import Action, SceneModel, SyntheticSet, make_clip, render_actions
from velora_edge.data.synthetic.synthetic_scene import (
    COLOURS,
    DIRECTIONS,
    LABELS,
    Light,
    draw_colour,
    draw_flights,
    draw_ground,
    draw_log,
    draw_sprite,
    light_at,
)
from velora_edge.errors import InputError
from velora_edge.events.simulator import LUMA_WEIGHTS

SCENE = SceneModel()


def columns(clip):
    return [getattr(clip.events, name).tolist() for name in ("t_us", "x", "y", "p")]


def window(clip, k):
    """The polarity image of pair k: -1, 0, 1."""
    start, end = np.searchsorted(clip.events.t_us, [clip.t_us[k] - clip.period_us, clip.t_us[k]])
    events = clip.events[slice(start, end)]
    image = np.zeros(clip.rgb.shape[1:3], np.int8)
    image[events.y, events.x] = np.where(events.p == 1, 1, -1)
    return image


def guess_direction(clip) -> str:
    """The trivial look at polarity: the side of the ON head where its OFF trail is not."""
    votes = dict.fromkeys(DIRECTIONS, 0.0)
    for k in range(len(clip.t_us)):
        image = window(clip, k)
        head = cv2.GaussianBlur((image > 0).astype(np.float32), (0, 0), 2) ** 3
        trail = cv2.GaussianBlur((image < 0).astype(np.float32), (0, 0), 2)
        for name, (dx, dy) in DIRECTIONS.items():
            behind = np.roll(head, (-14 * dy, -14 * dx), (0, 1))
            votes[name] += float((behind * trail).sum())
    return max(votes, key=votes.__getitem__)


def object_at(clip) -> np.ndarray:
    """Where the object is in each picture: float[T, 2], column and row from the middle of the view."""
    side = clip.rgb.shape[1]
    ground = np.median(clip.rgb.astype(np.float32), 0)
    places = []
    for image in clip.rgb:
        rows, cols = np.nonzero(np.abs(image - ground).max(-1) > 60)
        places.append((cols.mean() + 0.5 - side / 2, rows.mean() + 0.5 - side / 2))
    return np.array(places)


def test_labels_are_colours_times_directions():
    assert len(LABELS) == 12
    assert (LABELS[0], LABELS[3], LABELS[11]) == ("red-left", "red-down", "blue-down")


def test_a_clip_is_pictures_events_and_times_in_step():
    clip = make_clip(1, pairs=5)
    assert (clip.rgb.shape, clip.rgb.dtype) == ((5, 96, 96, 3), np.uint8)
    assert clip.t_us.tolist() == [33_333, 66_666, 99_999, 133_332, 166_665]
    assert clip.name == LABELS[clip.label]
    t_us = clip.events.t_us
    assert (np.diff(t_us) >= 0).all()
    assert t_us[0] >= 0
    assert t_us[-1] < 166_665
    assert all(np.abs(window(clip, k)).sum() > 300 for k in range(5))


def test_the_same_seed_gives_the_same_clip_and_another_does_not():
    first, again, other = make_clip(5), make_clip(5), make_clip(6)
    assert columns(first) == columns(again)
    assert (first.rgb == again.rgb).all()
    assert columns(first) != columns(other)


def test_events_are_the_same_whatever_the_colour():
    clips = [make_clip(3, label=LABELS.index(f"{colour}-up")) for colour in COLOURS]
    assert columns(clips[0]) == columns(clips[1]) == columns(clips[2])


def test_shades_of_all_colours_have_the_same_luminance():
    rng = np.random.default_rng(0)
    shades = np.array([draw_colour(name, rng) for name in COLOURS for _ in range(20)])
    np.testing.assert_allclose(shades @ LUMA_WEIGHTS, 1, rtol=1e-6)


def test_the_object_is_brighter_than_any_ground_by_a_threshold():
    ground, ground_rgb = draw_ground(SCENE, np.random.default_rng(0))
    np.testing.assert_allclose([ground.min(), ground.max()], SCENE.ground_luma, rtol=1e-6)
    np.testing.assert_allclose(ground_rgb @ LUMA_WEIGHTS, ground, rtol=1e-5)
    contrast = np.log(SCENE.object_luma[0] / SCENE.ground_luma[1])
    assert contrast > SCENE.sensor.threshold_on + 5 * SCENE.sensor.threshold_sigma


def test_a_direction_only_turns_the_view():
    t_us = 33_333 * np.arange(1, 9)
    turns = {"right": (1, 0), "left": (-1, 0), "down": (0, 1), "up": (0, -1)}
    centres = {}
    for name in DIRECTIONS:
        sprite = draw_sprite(SCENE, np.random.default_rng(1))
        flights = draw_flights(SCENE, name, t_us, sprite, 0, np.random.default_rng(2))
        passed = t_us - flights.start_us
        x = flights.x + flights.vx * passed - 48
        y = flights.y + flights.vy * passed - 48
        dx, dy = turns[name]
        centres[name] = np.stack([dx * x + dy * y, dx * y - dy * x])
        across = dx * flights.vx + dy * flights.vy
        assert (across * 1000 > 6).all()  # pixels a millisecond, along the label's direction
        assert (flights.start_us[1:] > flights.end_us[:-1]).all()
    for name in DIRECTIONS:  # turned back, all are one; times are whole microseconds, hence the tolerance
        np.testing.assert_allclose(centres[name], centres["right"], atol=0.02)


def test_places_in_the_pictures_fill_the_same_square_along_and_beside_the_way():
    flights = draw_flights(
        SCENE, "right", 33_333 * np.arange(1, 5001), draw_sprite(SCENE, np.random.default_rng(1)), 0,
        np.random.default_rng(0),
    )  # fmt: skip
    passed = 33_333 * np.arange(1, 5001) - flights.start_us
    x, y = flights.x + flights.vx * passed - 48, flights.y + flights.vy * passed - 48
    half = 48 - SCENE.object_px[1] / 2
    for values in (x, y):
        assert values.min() == pytest.approx(-half, abs=0.2)
        assert values.max() == pytest.approx(half, abs=0.2)
        assert values.mean() == pytest.approx(0, abs=1.2)
        assert values.std() == pytest.approx(half / np.sqrt(3), abs=0.6)
        assert abs(np.corrcoef(values[1:], values[:-1])[0, 1]) < 0.05  # pictures are independent
    assert abs(np.corrcoef(x, y)[0, 1]) < 0.05


def test_a_trivial_look_at_polarity_tells_the_direction():
    clips = list(SyntheticSet(36, seed=11))
    assert sum(guess_direction(clip) == clip.name.partition("-")[2] for clip in clips) >= 35


def test_the_pictures_tell_the_colour():
    for clip in SyntheticSet(12, seed=12):
        ground = np.median(clip.rgb.astype(np.float32), 0)
        strongest = (clip.rgb - ground).reshape(-1, 3).max(0)
        assert list(COLOURS)[int(strongest.argmax())] == clip.name.partition("-")[0]


@pytest.mark.slow
def test_pictures_do_not_tell_the_direction_and_its_places_are_alike():
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, directions, places = [], [], []
    for i in range(600):
        clip = make_clip((99, i), label=i % 12)
        small = np.stack([cv2.resize(f, (12, 12), interpolation=cv2.INTER_AREA) for f in clip.rgb]).astype(
            float
        )
        brightness = clip.rgb.max(-1).astype(np.float32)
        steps = [np.abs(np.diff(brightness, axis=axis)) for axis in (1, 2)]
        blur = [np.mean(step**power) for power in (1, 2, 3) for step in steps]
        features.append(
            np.concatenate([small.mean(0).ravel(), np.abs(np.diff(small, axis=0)).mean(0).ravel(), blur])
        )
        directions.append(clip.label % 4)
        places.append(object_at(clip))
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=100, tol=0.01))
    # Chance is 1/4 (and 1/2 for the axis); its deviation over 600 clips is 0.018 (0.020).
    assert cross_val_score(model, np.array(features), directions, cv=4).mean() < 0.25 + 3.5 * 0.018
    axes = np.array(directions) // 2
    assert cross_val_score(model, np.array(features), axes, cv=4).mean() < 0.5 + 3.5 * 0.020
    places = np.array(places)  # [clips, T, 2]
    for pick in (places[:, 0], places[:, -1], places.mean(1)):  # start, end, mean
        for direction in range(4):
            mine = pick[np.array(directions) == direction]
            error = pick.std(0) / np.sqrt(len(mine))
            assert (np.abs(mine.mean(0) - pick.mean(0)) < 4 * error).all()
            assert (np.abs(mine.std(0) / pick.std(0) - 1) < 0.25).all()


def test_splits_and_indices_give_clips_of_their_own():
    clips = [SyntheticSet(3, seed=7, split=split)[i] for split in ("train", "val", "test") for i in range(3)]
    assert len({len(clip.events) for clip in clips}) == 9
    assert columns(SyntheticSet(100, seed=7, split="val")[2]) == columns(clips[5])


def test_labels_take_turns_and_are_known_without_rendering():
    clips = SyntheticSet(26, seed=1, pairs=1)
    assert [clips.label(i) for i in range(26)] == [*range(12), *range(12), 0, 1]
    assert clips[13].label == 1
    assert len(clips) == 26


def test_set_ends_where_it_ends_and_has_three_splits():
    with pytest.raises(IndexError):
        SyntheticSet(2)[2]
    with pytest.raises(InputError, match="one of train, val, test, got 'dev'"):
        SyntheticSet(2, split="dev")


def test_actions_follow_each_other_with_an_empty_view_between():
    scene = replace(
        SCENE, noise_rate_hz=(0.0, 0.0), light_swing=(0.0, 0.0), sensor=replace(SCENE.sensor, leak_rate_hz=0)
    )
    t_us = 50 + 33_333 * np.arange(24)
    actions = [Action("red-left", 0, 250_000), Action("blue-down", 520_000, 800_000)]
    images, events = render_actions(actions, t_us, 3, scene)
    assert images.shape == (24, 96, 96, 3)
    seen = np.abs(images.astype(int) - np.median(images, 0)).max((1, 2, 3)) > 60
    assert seen.tolist() == [True] * 8 + [False] * 8 + [True] * 8
    assert images[0].max((0, 1)).argmax() == 0
    assert images[-1].max((0, 1)).argmax() == 2
    counts = np.histogram(events.t_us, [0, 260_000, 480_000, 800_000])[0]
    assert counts[1] == 0
    assert counts.min() == 0 < counts[0]
    assert events.t_us[-1] < t_us[-1] + SCENE.exposure_us


def test_an_object_that_moved_on_leaves_no_trace_on_the_canvas():
    rng = np.random.default_rng(0)
    ground, _ = draw_ground(SCENE, rng)
    sprites, ground_log = draw_sprite(SCENE, rng)[None], np.log(ground)
    flights = draw_flights(SCENE, "right", np.array([33_333]), sprites[0], 0, rng)
    for draw in (draw_log, draw_log.py_func):
        canvas, step_us = ground_log.copy(), int(SCENE.step_px / np.hypot(flights.vx[0], flights.vy[0]))
        touched = np.zeros(canvas.shape, bool)
        for t_us in range(int(flights.start_us[0]), int(flights.end_us[0]) + 1, step_us):
            draw(canvas, ground, ground_log, sprites, flights, 0, t_us)
            touched |= canvas != ground_log
        assert touched.any(0).all()
        assert (canvas == ground_log).all()
        if draw is draw_log:
            compiled = touched
    assert (compiled == touched).all()


def test_light_is_the_sum_of_its_waves():
    light = Light(np.array([0.1, 0.2]), np.array([0.0, np.pi / 2]), np.array([np.pi / 2, 0.0]))
    for function in (light_at, light_at.py_func):
        assert function(light, 1) == pytest.approx(0.3)
        assert function(light, 2) == pytest.approx(0.1)
