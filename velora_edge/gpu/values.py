"""Arrays to and from the types that an engine's tensors have; NumPy has no bfloat16 of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def to_raw(array: NDArray[Any], dtype: str) -> NDArray[np.uint8]:
    """The bytes of `array` as the type `dtype`, uint8[size]; bfloat16 is rounded to nearest, ties to even."""
    if dtype == "bfloat16":
        bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
        rounded = bits + 0x7FFF + ((bits >> 16) & 1)
        converted: NDArray[Any] = (rounded >> 16).astype(np.uint16)
    else:
        converted = np.ascontiguousarray(array, np.dtype(dtype))
    return converted.reshape(-1).view(np.uint8)


def from_raw(raw: NDArray[np.uint8], dtype: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Bytes of the type `dtype` as float32 of that shape; a view where they are float32, else a copy."""
    if dtype == "bfloat16":
        return (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(shape)
    return raw.view(np.dtype(dtype)).astype(np.float32, copy=False).reshape(shape)
