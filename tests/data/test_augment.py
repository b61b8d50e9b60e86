from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from velora_edge.data.clips.augment import AugmentConfig, Variation, apply, deform, draw, draw_corruption
from velora_edge.data.clips.clips import Pairs
from velora_edge.data.clips.corruptions import Corruption

BLANK = (255, 255, 255)


def marked(y: int, x: int, background: int) -> np.ndarray:
    """Two 9x9 images that differ from their background in one pixel."""
    images = np.full((2, 9, 9, 3), background, np.uint8)
    images[:, y, x] = 7
    return images


def place(image: np.ndarray) -> tuple[int, int]:
    y, x = np.argwhere(image[..., 0] == 7)[0]
    return int(y), int(x)


def test_the_default_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    pairs = Pairs(*(rng.integers(0, 256, (2, 9, 9, 3), np.uint8) for _ in range(2)))
    for _ in range(10):
        varied = apply(pairs, draw(AugmentConfig(), (9, 9), rng), BLANK)
        np.testing.assert_array_equal(varied.rgb, pairs.rgb)
        np.testing.assert_array_equal(varied.event, pairs.event)


def test_both_cameras_and_all_pairs_move_alike() -> None:
    rng = np.random.default_rng(1)
    config = AugmentConfig(shift=0.3, flip=True)
    seen = set()
    for _ in range(40):
        varied = apply(Pairs(marked(4, 3, 0), marked(4, 3, 255)), draw(config, (9, 9), rng), BLANK)
        assert varied.rgb is not None
        assert varied.event is not None
        places = {place(image) for image in (*varied.rgb, *varied.event)}
        assert len(places) == 1
        seen |= places
    assert len(seen) > 20


def test_a_flip_mirrors_left_to_right() -> None:
    rng = np.random.default_rng(0)
    event = np.arange(9 * 9 * 3, dtype=np.uint8).reshape(1, 9, 9, 3)
    found = [
        apply(Pairs(None, event), draw(AugmentConfig(flip=True), (9, 9), rng), BLANK).event for _ in range(20)
    ]
    flipped = sum(np.array_equal(image, event[:, :, ::-1]) for image in found)
    same = sum(np.array_equal(image, event) for image in found)
    assert flipped + same == 20
    assert min(flipped, same) > 3


def test_a_shift_fills_events_with_blank_and_repeats_the_pictures_border() -> None:
    move = Variation(np.array([[1.0, 0, 3], [0, 1, 0]]), 1.0, 0.0)
    varied = apply(Pairs(marked(4, 0, 9), marked(4, 0, 100)), move, BLANK)
    assert varied.rgb is not None
    assert varied.event is not None
    assert varied.rgb[0, 4, :, 0].tolist() == [7, 7, 7, 7, 9, 9, 9, 9, 9]
    assert varied.event[0, 4, :, 0].tolist() == [255, 255, 255, 7, 100, 100, 100, 100, 100]


def test_rotation_about_the_centre_keeps_the_centre() -> None:
    rng = np.random.default_rng(3)
    config = AugmentConfig(rotate_deg=30, scale=0.1)
    for _ in range(10):
        varied = apply(Pairs(None, marked(4, 4, 255)), draw(config, (9, 9), rng), BLANK)
        assert varied.event is not None
        assert varied.event[0, 4, 4, 0] == 7


def test_events_take_no_colours_that_they_did_not_have() -> None:
    rng = np.random.default_rng(4)
    event = rng.choice(np.array([0, 255], np.uint8), (2, 9, 9, 3))
    varied = apply(
        Pairs(None, event), draw(AugmentConfig(rotate_deg=45, scale=0.3, brightness=1), (9, 9), rng), BLANK
    )
    assert varied.event is not None
    assert set(np.unique(varied.event)) <= {0, 255}


def test_light_changes_pictures_alone_and_saturates() -> None:
    light = Variation(np.array([[1.0, 0, 0], [0, 1, 0]]), 2.0, 10.0)
    rgb = np.array([0, 100, 127, 128, 200], np.uint8).reshape(1, 1, 5, 1).repeat(3, axis=3)
    varied = apply(Pairs(rgb, rgb.copy()), light, BLANK)
    assert varied.rgb is not None
    assert varied.rgb[0, 0, :, 0].tolist() == [0, 82, 136, 138, 255]
    np.testing.assert_array_equal(varied.event, rgb)


def test_the_callers_images_are_not_changed() -> None:
    pairs = Pairs(marked(4, 3, 0), marked(4, 3, 255))
    apply(pairs, Variation(np.array([[1.0, 0, 1], [0, 1, 1]]), 1.5, 20.0), BLANK)
    np.testing.assert_array_equal(pairs.rgb, marked(4, 3, 0))
    np.testing.assert_array_equal(pairs.event, marked(4, 3, 255))


@pytest.mark.parametrize("config", [AugmentConfig(), AugmentConfig(flip=True, shift=0.1, contrast=0.5)])
def test_a_draw_takes_the_same_number_of_random_values_whatever_the_configuration(
    config: AugmentConfig,
) -> None:
    rng, plain = np.random.default_rng(5), np.random.default_rng(5)
    draw(config, (9, 9), rng)
    draw(AugmentConfig(), (9, 9), plain)
    assert rng.random() == plain.random()


STILL = Variation(np.array([[1.0, 0, 0], [0, 1, 0]]), 1.0, 0.0)


def test_without_shear_and_elastic_nothing_is_drawn() -> None:
    rng, plain = np.random.default_rng(5), np.random.default_rng(5)
    assert deform(STILL, AugmentConfig(rotate_deg=30), (9, 9), rng) is STILL
    assert rng.random() == plain.random()


def test_a_shear_keeps_rows_and_moves_them_against_each_other() -> None:
    varied = deform(STILL, AugmentConfig(shear=0.5), (9, 9), np.random.default_rng(0))
    shear = varied.matrix[0, 1]
    assert 0 < abs(shear) <= 0.5
    np.testing.assert_allclose(varied.matrix, [[1, shear, -4 * shear], [0, 1, 0]])
    assert varied.field is None


def test_a_field_says_where_pixels_look() -> None:
    field = np.zeros((9, 9, 2))
    field[4, 5] = (-2, 0)
    varied = apply(Pairs(marked(4, 3, 0), marked(4, 3, 100)), replace(STILL, field=field), BLANK)
    for images, rest in ((varied.rgb, 0), (varied.event, 100)):
        assert images is not None
        assert images[0, 4, :, 0].tolist() == [rest, rest, rest, 7, rest, 7, rest, rest, rest]


def test_a_field_of_zeros_is_the_affine_map() -> None:
    rng = np.random.default_rng(2)
    event = rng.integers(0, 256, (2, 9, 9, 3), np.uint8)
    move = Variation(np.array([[0.0, -1, 8], [1, 0, 1]]), 1.0, 0.0)
    plain = apply(Pairs(None, event), move, BLANK)
    varied = apply(Pairs(None, event), replace(move, field=np.zeros((9, 9, 2))), BLANK)
    np.testing.assert_array_equal(varied.event, plain.event)


def test_an_elastic_deformation_is_smooth_and_as_large_as_asked_for() -> None:
    fields = [
        deform(STILL, AugmentConfig(elastic=0.1), (32, 24), np.random.default_rng(seed)).field
        for seed in range(200)
    ]
    assert fields[0] is not None
    assert fields[0].shape == (32, 24, 2)
    assert np.abs(np.diff(fields[0], axis=0)).max() < 0.5 * np.abs(fields[0]).max()
    width, height = np.sqrt(np.mean(np.square(np.array(fields)), axis=(0, 1, 2)))
    largest = np.sqrt(1 / 3) * 0.1  # root mean square of a spread drawn from nothing to 0.1
    assert 0.6 * largest < width / 24 < largest  # between its points the field is a mean, so smaller
    assert 0.6 * largest < height / 32 < largest


HARSH = AugmentConfig(
    noise=0.1,
    drop_events=0.5,
    hot_pixels=0.01,
    rgb_noise=0.2,
    stale_rgb=0.5,
    delay_pairs=2,
    window=1.0,
    warp=0.5,
)


def test_no_corruption_is_drawn_by_default_and_as_many_random_values_as_by_any() -> None:
    dice, plain = np.random.default_rng(5), np.random.default_rng(5)
    draw_corruption(HARSH, 8, dice)
    assert draw_corruption(AugmentConfig(), 8, plain) == Corruption()
    assert dice.random() == plain.random()


def test_corruptions_fill_their_ranges() -> None:
    dice = np.random.default_rng(0)
    drawn = [draw_corruption(HARSH, 8, dice) for _ in range(400)]
    for name, low, high in (
        ("noise", 0, 0.1), ("drop_events", 0, 0.5), ("hot_pixels", 0, 0.01), ("rgb_noise", 0, 0.2),
        ("window", 0.5, 2),
    ):  # fmt: skip
        values = [getattr(one, name) for one in drawn]
        assert low <= min(values) < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < max(values) <= high
    assert {one.delay_pairs for one in drawn} == {-2, -1, 0, 1, 2}
    stalls = [one.stale for one in drawn if one.stale != (0, 0)]
    assert 150 < len(stalls) < 250
    assert all(1 <= first < end <= 8 for first, end in stalls)
