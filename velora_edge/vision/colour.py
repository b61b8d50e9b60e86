"""Pictures of any number of channels as RGB."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def decode_picture(data: bytes) -> NDArray[np.uint8] | None:
    """The picture in an image file's bytes (PNG, JPEG, BMP, TIFF ...), or None if they hold none.

    Returns:
        uint8[H, W, 3], RGB; grey is repeated, 16 bits are scaled to 8, alpha is left out.
    """
    if not data:
        return None
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return None if decoded is None else bgr_to_rgb(decoded)


def bgr_to_rgb(picture: NDArray[Any]) -> NDArray[np.uint8]:
    """A picture as OpenCV reads it, as RGB.

    Args:
        picture: uint8 or uint16; [H, W] grey, [H, W, 3] BGR or [H, W, 4] BGRA; not modified.

    Returns:
        uint8[H, W, 3], RGB; a new array.

    Raises:
        ValueError: for any other type or number of channels.
    """
    if picture.dtype == np.uint16:
        picture = (picture >> 8).astype(np.uint8)
    channels = picture.shape[2] if picture.ndim == 3 else 1
    codes = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}
    if picture.dtype != np.uint8 or channels not in codes:
        raise ValueError(
            f"expected uint8 or uint16 with 1, 3 or 4 channels, got {picture.dtype} {picture.shape}"
        )
    return np.asarray(cv2.cvtColor(picture, codes[channels]), np.uint8)
