from __future__ import annotations

import cv2
import numpy as np
import pytest

from velora_edge.events.geometry.calibration import Lens

RADTAN = (-0.283, 0.074, 0.0002, 0.00002)
RATIONAL = (0.2, -0.1, 0.001, -0.002, 0.05, 0.3, 0.02, 0.01)
FISHEYE = (0.02, -0.01, 0.003, -0.001)
K = np.array([[90.0, 0, 64.3], [0, 91, 36.2], [0, 0, 1]])


def lens(model="radtan", coefficients=()):
    return Lens((128, 72), (90.0, 91.0), (64.3, 36.2), model, coefficients)


def pixels():
    y, x = np.indices((72, 128), np.float64)
    return np.column_stack((x.ravel(), y.ravel()))


def points():
    return np.random.default_rng(5).normal((0, 0, 5), size=(200, 3))


def test_a_perfect_lens_by_hand():
    perfect = Lens((100, 100), (50.0, 25.0), (50.0, 40.0))
    assert perfect.rays(np.array([[50.0, 40.0], [100.0, 15.0]])).tolist() == [[0, 0, 1], [1, -1, 1]]
    assert perfect.project(np.array([[2.0, -2.0, 2.0]])).tolist() == [[100.0, 15.0]]


@pytest.mark.parametrize("coefficients", [RADTAN, RATIONAL, (*RADTAN, 0.01)])
def test_radtan_projects_as_opencv_does(coefficients):
    theirs, _ = cv2.projectPoints(points(), np.zeros(3), np.zeros(3), K, np.array(coefficients))
    np.testing.assert_allclose(lens("radtan", coefficients).project(points()), theirs[:, 0], atol=1e-9)


def test_equidistant_projects_as_opencv_does():
    no = np.zeros(3)
    theirs, _ = cv2.fisheye.projectPoints(points()[:, None], no, no, K, np.array(FISHEYE))
    np.testing.assert_allclose(lens("equidistant", FISHEYE).project(points()), theirs[:, 0], atol=1e-9)


@pytest.mark.parametrize(
    ("model", "coefficients"),
    [("radtan", ()), ("radtan", RADTAN), ("radtan", RATIONAL), ("equidistant", ()), ("equidistant", FISHEYE)],
)
def test_a_ray_falls_on_the_pixel_that_it_came_from(model, coefficients):
    camera = lens(model, coefficients)
    np.testing.assert_allclose(camera.project(camera.rays(pixels())), pixels(), atol=1e-4)


def test_a_lens_has_no_ray_where_its_model_turns_round():
    # r (1 - r^2) rises up to r = 0.577, where it is 0.385: further out, no ray arrives.
    camera = Lens((200, 10), (100.0, 100.0), (100.0, 5.0), "radtan", (-1.0, 0.0, 0.0, 0.0))
    rays = camera.rays(np.array([[100.0, 5.0], [138.0, 5.0], [139.0, 5.0], [60.0, 5.0]]))
    assert np.isnan(rays[:, 0]).tolist() == [False, False, True, True]


def test_what_no_lens_sees_is_not_folded_into_the_picture():
    camera = Lens((200, 10), (100.0, 100.0), (100.0, 5.0), "radtan", (-1.0, 0.0, 0.0, 0.0))
    seen = camera.project(np.array([[0.5, 0.0, 1.0], [1.0, 0.0, 1.0], [0.0, 0.0, -1.0]]))
    assert np.isnan(seen[:, 0]).tolist() == [False, True, True]


def test_a_fisheye_lens_sees_behind_itself_and_a_flat_one_does_not():
    behind = np.array([[1.0, 0.0, -0.1]])
    assert np.isfinite(lens("equidistant").project(behind)).all()
    assert np.isnan(lens("radtan").project(behind)).all()
