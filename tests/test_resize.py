"""Pictures land where the geometry says, and so where events land."""

from __future__ import annotations

import numpy as np
import pytest

from velora_edge.datatypes import fit
from velora_edge.events.accumulate.representations import RegistrationMap
from velora_edge.vision import Resizer, _resample_columns, _resample_rows, _weigh

SIZES = [
    ((480, 640), (224, 224)),
    ((720, 1280), (224, 224)),
    ((260, 346), (224, 224)),
    ((261, 346), (64, 96)),
    ((101, 77), (32, 32)),
]
MODES = ["crop", "letterbox", "stretch"]


def resized(picture: np.ndarray, target_hw: tuple[int, int], mode: str) -> np.ndarray:
    image = np.full((*target_hw, 3), 77, np.uint8)
    Resizer(picture.shape[:2], target_hw, mode).resize_into(picture, image)
    return image


def grey(values: list[list[int]]) -> np.ndarray:
    return np.repeat(np.array(values, np.uint8)[..., None], 3, axis=2)


def test_halving_averages_each_two_by_two_block() -> None:
    picture = grey([[0, 40, 8, 8], [80, 40, 8, 8]])
    assert resized(picture, (1, 2), "stretch").tolist() == grey([[40, 8]]).tolist()


def test_crop_cuts_both_sides_evenly() -> None:
    picture = grey([[9, 1, 2, 9], [9, 3, 4, 9]])
    assert resized(picture, (2, 2), "crop").tolist() == grey([[1, 2], [3, 4]]).tolist()


def test_letterbox_leaves_black_margins() -> None:
    picture = grey([[1, 2, 3, 4], [5, 6, 7, 8]])
    expected = grey([[0, 0, 0, 0], [1, 2, 3, 4], [5, 6, 7, 8], [0, 0, 0, 0]])
    assert resized(picture, (4, 4), "letterbox").tolist() == expected.tolist()


def test_crop_through_the_middle_of_pixels_takes_half_of_each() -> None:
    picture = grey([[0, 100, 200], [0, 100, 200]])
    assert resized(picture, (2, 2), "crop").tolist() == grey([[50, 150], [50, 150]]).tolist()


def test_channels_keep_their_order() -> None:
    picture = np.zeros((4, 4, 3), np.uint8)
    picture[:] = (10, 20, 30)
    assert resized(picture, (2, 2), "crop").tolist() == [[[10, 20, 30]] * 2] * 2


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("source_hw", "target_hw"), SIZES)
def test_each_spot_lands_where_the_geometry_says(
    source_hw: tuple[int, int], target_hw: tuple[int, int], mode: str
) -> None:
    to = fit(source_hw, target_hw, mode)
    rng = np.random.default_rng(3)
    half = int(np.ceil(2 / min(to.scale_x, to.scale_y)))
    for _ in range(20):
        u, v = rng.uniform(4, target_hw[1] - 4), rng.uniform(4, target_hw[0] - 4)
        x, y = int((u - to.offset_x) / to.scale_x), int((v - to.offset_y) / to.scale_y)
        if not (half <= x < source_hw[1] - half and half <= y < source_hw[0] - half):
            continue
        picture = np.zeros((*source_hw, 3), np.uint8)
        picture[y - half : y + half + 1, x - half : x + half + 1] = 255
        image = resized(picture, target_hw, mode)[..., 0].astype(float)
        rows, columns = np.mgrid[: target_hw[0], : target_hw[1]] + 0.5
        expected = ((x + 0.5) * to.scale_x + to.offset_x, (y + 0.5) * to.scale_y + to.offset_y)
        found = ((columns * image).sum() / image.sum(), (rows * image).sum() / image.sum())
        assert found == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("source_hw", "target_hw"), SIZES)
def test_a_lit_block_and_events_on_it_land_on_the_same_pixel(
    source_hw: tuple[int, int], target_hw: tuple[int, int], mode: str
) -> None:
    table = RegistrationMap.from_fit(source_hw, target_hw, mode).as_table()
    rng = np.random.default_rng(5)
    for cell in rng.choice(np.unique(table[table >= 0]), 20):
        picture = np.zeros((*source_hw, 3), np.uint8)
        picture[table == cell] = 255
        image = resized(picture, target_hw, mode)[..., 0]
        assert int(image.argmax()) == cell


def test_flat_grey_stays_flat_in_every_size_and_mode() -> None:
    for source_hw, target_hw in SIZES:
        picture = np.full((*source_hw, 3), 123, np.uint8)
        assert np.unique(resized(picture, target_hw, "crop")).tolist() == [123]
        assert np.unique(resized(picture, target_hw, "stretch")).tolist() == [123]


def test_another_shape_is_refused_by_name() -> None:
    resizer = Resizer((4, 4), (2, 2), "crop")
    with pytest.raises(ValueError, match=r"expected picture uint8 \(4, 4, 3\), got uint8 \(4, 5, 3\)"):
        resizer.resize_into(np.zeros((4, 5, 3), np.uint8), np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(ValueError, match=r"expected image uint8 \(2, 2, 3\), got float32"):
        resizer.resize_into(np.zeros((4, 4, 3), np.uint8), np.zeros((2, 2, 3), np.float32))


@pytest.mark.parametrize("target_hw", [(224, 224), (64, 96), (500, 33), (301, 401), (260, 346)])
def test_bilinear_is_what_torchvision_makes_of_a_picture_that_pillow_read(target_hw: tuple[int, int]) -> None:
    image = pytest.importorskip("PIL.Image", reason="the peer is Pillow")
    transforms = pytest.importorskip("torchvision.transforms", reason="the peer is torchvision")
    picture = np.random.default_rng(1).integers(0, 256, (260, 346, 3), np.uint8)
    expected = np.asarray(transforms.Resize(target_hw)(image.fromarray(picture)))
    ours = np.empty((*target_hw, 3), np.uint8)
    Resizer((260, 346), target_hw, "stretch", "bilinear").resize_into(picture, ours)
    np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("target_hw", [(224, 224), (64, 96)])
def test_bilinear_crop_is_pillow_s_resize_of_that_box(target_hw: tuple[int, int]) -> None:
    image = pytest.importorskip("PIL.Image", reason="the peer is Pillow")
    picture = np.random.default_rng(2).integers(0, 256, (261, 347, 3), np.uint8)
    to = fit((261, 347), target_hw, "crop")
    box = (
        -to.offset_x / to.scale_x,
        -to.offset_y / to.scale_y,
        (target_hw[1] - to.offset_x) / to.scale_x,
        (target_hw[0] - to.offset_y) / to.scale_y,
    )
    expected = image.fromarray(picture).resize(target_hw[::-1], image.Resampling.BILINEAR, box=box)
    ours = np.empty((*target_hw, 3), np.uint8)
    Resizer((261, 347), target_hw, "crop", "bilinear").resize_into(picture, ours)
    np.testing.assert_array_equal(ours, np.asarray(expected))


def test_bilinear_letterbox_leaves_black_margins() -> None:
    picture = grey([[1, 2, 3, 4], [5, 6, 7, 8]])
    ours = np.full((4, 4, 3), 77, np.uint8)
    Resizer((2, 4), (4, 4), "letterbox", "bilinear").resize_into(picture, ours)
    assert ours.tolist() == grey([[0, 0, 0, 0], [1, 2, 3, 4], [5, 6, 7, 8], [0, 0, 0, 0]]).tolist()


def test_resampling_kernels_give_the_same_uncompiled() -> None:
    picture = np.random.default_rng(3).integers(0, 256, (5, 7, 3), np.uint8)
    _, columns = _weigh(7, 4, 4 / 7, 0.0)
    _, rows = _weigh(5, 8, 8 / 5, 0.0)
    for kernel, weights, shape in (
        (_resample_rows, columns, (5, 4, 3)),
        (_resample_columns, rows, (8, 7, 3)),
    ):
        compiled, plain = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
        kernel(picture, *weights, compiled)
        kernel.py_func(picture, *weights, plain)
        np.testing.assert_array_equal(compiled, plain)
        assert compiled.any()
