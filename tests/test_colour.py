"""Pictures of any number of channels become RGB."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from velora_edge.vision import bgr_to_rgb, decode_picture


def test_bgr_becomes_rgb() -> None:
    assert bgr_to_rgb(np.array([[[1, 2, 3]]], np.uint8)).tolist() == [[[3, 2, 1]]]


def test_grey_is_repeated() -> None:
    assert bgr_to_rgb(np.array([[7, 9]], np.uint8)).tolist() == [[[7, 7, 7], [9, 9, 9]]]


def test_alpha_is_left_out() -> None:
    assert bgr_to_rgb(np.array([[[1, 2, 3, 200]]], np.uint8)).tolist() == [[[3, 2, 1]]]


def test_sixteen_bits_are_scaled_to_eight() -> None:
    assert bgr_to_rgb(np.array([[65535, 256, 255]], np.uint16)).tolist() == [[[255] * 3, [1] * 3, [0] * 3]]


def test_floats_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected uint8 or uint16 .* got float64 \(1, 1\)"):
        bgr_to_rgb(np.zeros((1, 1)))


def test_png_bytes_are_decoded_as_rgb() -> None:
    _, png = cv2.imencode(".png", np.array([[[1, 2, 3]]], np.uint8))
    picture = decode_picture(png.tobytes())
    assert picture is not None
    assert picture.tolist() == [[[3, 2, 1]]]


@pytest.mark.parametrize("data", [b"", b"not a picture"])
def test_bytes_without_a_picture_give_none(data: bytes) -> None:
    assert decode_picture(data) is None


@pytest.mark.parametrize("version", [4, 5])
def test_opencv_is_silent_while_it_decodes_and_logs_as_before_after_it(
    monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    """OpenCV 4 has setLogLevel in its root, OpenCV 5 in cv2.utils.logging."""
    levels = [3]

    def set_level(level: int) -> int:
        levels.append(level)
        return levels[-2]

    if version == 4:
        monkeypatch.setattr(cv2, "setLogLevel", set_level, raising=False)
        monkeypatch.setattr(cv2, "utils", SimpleNamespace())
    else:
        monkeypatch.delattr(cv2, "setLogLevel", raising=False)
        monkeypatch.setattr(cv2, "utils", SimpleNamespace(logging=SimpleNamespace(setLogLevel=set_level)))
    _, png = cv2.imencode(".png", np.array([[[1, 2, 3]]], np.uint8))
    picture = decode_picture(png.tobytes())
    assert picture is not None
    assert picture.tolist() == [[[3, 2, 1]]]
    assert levels == [3, 0, 3]
