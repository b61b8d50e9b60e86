from __future__ import annotations

import numpy as np
import pytest

from velora_edge.errors import InputError
from velora_edge.events.geometry.calibration_files import find_hot_pixels, read_mask, write_mask

SECOND = 1_000_000


@pytest.mark.parametrize("place", [(0, 0), (0, 7), (5, 0), (5, 7), (3, 4)])
def test_a_pixel_far_busier_than_those_around_it_is_hot(place):
    counts = np.full((6, 8), 3)
    counts[place] = 31
    hot = find_hot_pixels(counts, SECOND)
    assert np.argwhere(hot).tolist() == [list(place)]


def test_ten_times_as_busy_is_not_yet_hot():
    counts = np.full((6, 8), 3)
    counts[3, 3] = 30
    assert not find_hot_pixels(counts, SECOND).any()


def test_few_events_make_no_pixel_hot_and_neither_does_a_low_rate():
    counts = np.zeros((6, 8), np.int64)
    counts[3, 3] = 19
    assert not find_hot_pixels(counts, SECOND).any()
    counts[3, 3] = 49
    assert not find_hot_pixels(counts, 10 * SECOND).any()
    counts[3, 3] = 50
    assert find_hot_pixels(counts, 10 * SECOND).sum() == 1


def test_a_group_of_hot_pixels_is_found_and_an_edge_that_moves_is_not():
    counts = np.full((20, 20), 2)
    counts[4:7, 4:8] = 500
    counts[:, 14:17] = 400  # a wide edge that went to and fro
    counts[:, 13] = counts[:, 17] = 60
    expected = np.zeros((20, 20), np.bool_)
    expected[4:7, 4:8] = True
    np.testing.assert_array_equal(find_hot_pixels(counts, SECOND), expected)


def test_counts_beyond_16_bits_are_compared_right():
    counts = np.full((6, 8), 10_000_000)
    counts[2, 2] = 200_000_000
    assert find_hot_pixels(counts, SECOND).sum() == 1


@pytest.mark.parametrize("name", ["mask.npy", "mask.json"])
def test_a_mask_is_kept(tmp_path, name):
    mask = np.array([[False, True, False], [True, False, False]])
    write_mask(tmp_path / name, mask)
    kept = read_mask(tmp_path / name)
    assert (kept.tolist(), kept.dtype) == (mask.tolist(), np.bool_)


def test_json_can_be_read_by_people(tmp_path):
    write_mask(tmp_path / "mask.json", np.array([[False, True, False], [True, False, False]]))
    text = (tmp_path / "mask.json").read_text()
    assert text == '{"sensor": [3, 2], "hot_pixels": [[1, 0], [0, 1]]}\n'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "{", "expected a mask of hot pixels"),
        ("a.json", "[1]", "expected a mask of hot pixels"),
        (
            "a.json",
            '{"sensor": [3, 2], "hot_pixels": [[3, 0]]}',
            r"pixel \(3, 0\) lies outside the sensor of 3x2",
        ),
        ("a.json", '{"sensor": [0, 2], "hot_pixels": []}', "a sensor of 0x2"),
        ("a.npy", "", "expected a mask of hot pixels"),
        ("a.npy", "not an array", "expected a mask of hot pixels"),
    ],
)
def test_what_is_no_mask_is_told_in_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read_mask(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_arrays_of_other_shapes_are_no_masks(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(InputError, match=r"got float64 \(3,\)"):
        read_mask(tmp_path / "a.npy")


def test_a_mask_needs_a_known_ending_and_a_folder(tmp_path):
    with pytest.raises(InputError, match=r"ends in \.npy or \.json"):
        write_mask(tmp_path / "mask.png", np.zeros((1, 1), np.bool_))
    with pytest.raises(InputError, match="cannot be written"):
        write_mask(tmp_path / "nowhere" / "mask.npy", np.zeros((1, 1), np.bool_))
