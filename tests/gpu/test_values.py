"""Arrays to and from an engine's types."""

from __future__ import annotations

import numpy as np
import pytest

from velora_edge.gpu.engine import from_raw, to_raw


@pytest.mark.parametrize(
    ("value", "bits"),
    [
        (1.0, 0x3F80),
        (-2.5, 0xC020),
        (1.00390625, 0x3F80),  # half way between two: to the even one below
        (1.01171875, 0x3F82),  # half way: to the even one above
        (1.005, 0x3F81),
        (float("inf"), 0x7F80),
    ],
)
def test_bfloat16_is_rounded_to_nearest_ties_to_even(value: float, bits: int) -> None:
    raw = to_raw(np.array([value], np.float32), "bfloat16")
    assert raw.view(np.uint16).tolist() == [bits]


def test_bfloat16_comes_back_as_float32() -> None:
    raw = np.array([0x3F80, 0xC020, 0x7FC0], np.uint16).view(np.uint8)
    assert from_raw(raw, "bfloat16", (3,))[:2].tolist() == [1.0, -2.5]
    assert np.isnan(from_raw(raw, "bfloat16", (3,))[2])


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "int32", "bool"])
def test_other_types_are_numpys(dtype: str) -> None:
    values = np.array([[0, 1], [1, 0]], np.float32)
    raw = to_raw(values, dtype)
    assert raw.size == 4 * np.dtype(dtype).itemsize
    assert from_raw(raw, dtype, (2, 2)).tolist() == values.tolist()


def test_a_view_of_every_other_column_is_packed() -> None:
    values = np.arange(8, dtype=np.float32).reshape(2, 4)[:, ::2]
    assert from_raw(to_raw(values, "float32"), "float32", (2, 2)).tolist() == [[0, 2], [4, 6]]
