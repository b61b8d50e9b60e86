from __future__ import annotations

import numpy as np
import pytest

from velora_edge.errors import InputError
from velora_edge.events.filters.event_preprocessing import EventPreprocessing
from velora_edge.events.geometry.calibration_files import write_mask
from velora_edge.events.kernels._frame_kernels import FullMap, SeparableMap

SENSOR = (4, 3)


@pytest.fixture
def hot(tmp_path) -> str:
    mask = np.zeros((3, 4), np.bool_)
    mask[1, 2] = True
    write_mask(tmp_path / "hot.npy", mask)
    return str(tmp_path / "hot.npy")


def names(chain) -> list[str]:
    return [one.name for one in chain.filters]


def test_a_camera_of_which_nothing_is_said_sees_as_it_is():
    settings = EventPreprocessing()
    assert isinstance(settings.view(SENSOR).registration((3, 4), "crop").table, SeparableMap)
    assert names(settings.filter_chain(SENSOR)) == []
    chain, size = settings.rewriting_chain(SENSOR)
    assert (names(chain), size) == ([], (4, 3))


def test_hot_pixels_alone_cost_no_filter_where_a_view_leaves_them_out(hot):
    settings = EventPreprocessing(hot_pixels=hot)
    view = settings.view(SENSOR)
    assert isinstance(view.registration((3, 4), "stretch").table, FullMap)
    assert view.registration((3, 4), "stretch").as_table()[1].tolist() == [4, 5, -1, 7]
    assert names(settings.filter_chain(SENSOR)) == []
    assert names(settings.rewriting_chain(SENSOR)[0]) == ["hot pixels"]


def test_hot_pixels_come_before_filters_and_the_view_after_the_cap(hot):
    settings = EventPreprocessing(
        hot_pixels=hot, rotate=90, filters=("refractory", "background=7"), rate_cap="5k"
    )
    assert names(settings.filter_chain(SENSOR)) == ["hot pixels", "refractory", "background", "rate cap"]
    chain, size = settings.rewriting_chain(SENSOR)
    assert names(chain) == ["hot pixels", "refractory", "background", "rate cap", "calibration"]
    assert size == (3, 4)


def test_a_calibration_is_flipped_and_then_rotated(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("homography: [1, 0, 1, 0, 1, 0, 0, 0, 1]\nresolution: [6, 3]\n")
    view = EventPreprocessing(str(path), flip="horizontal", rotate=180).view(SENSOR)
    assert view.view_hw == (3, 6)
    assert view.is_rgb
    # Column 0 goes to 1, then to 4, then to 1; row 0 stays and then goes to 2.
    assert view.registration((3, 6), "stretch").as_table()[0].tolist() == [13, 14, 15, 16]


def test_a_mask_for_another_sensor_is_refused_by_all(hot):
    settings = EventPreprocessing(hot_pixels=hot, filters=("background",))
    for use in (settings.view, settings.filter_chain, settings.rewriting_chain):
        with pytest.raises(InputError, match="expected a mask for the sensor of 8x8, got one for 4x3"):
            use((8, 8))
