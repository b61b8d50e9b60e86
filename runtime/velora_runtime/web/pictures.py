"""Pictures for viewers: compressed once for all of them, at a capped rate, when somebody asks."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import cv2

from velora_runtime.web.latest import PICTURES_HZ

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from velora_runtime.web.latest import Latest

Camera = Literal["rgb", "event"]
LARGEST_PX = 960
SMALLEST_PX = 448
"""Event frames are as small as the model takes them; enlarged, their pixels survive the compression."""
QUALITY = 80


@dataclass(frozen=True, slots=True)
class Jpeg:
    """A compressed picture.

    Attributes:
        number: of its scene.
        data: the JPEG.
    """

    number: int
    data: bytes


class Pictures:
    """Single-threaded: the server's thread."""

    def __init__(self, latest: Latest) -> None:
        self._latest = latest
        self._made: dict[Camera, tuple[float, Jpeg]] = {}

    def get(self, camera: Camera) -> Jpeg | None:
        """The newest picture, at most 1/15 s older than it could be; None where the camera is absent.

        The first after a second without viewers may be a second old: nobody had it copied.
        """
        scene = self._latest.scene
        image = scene.rgb if camera == "rgb" else scene.event
        self._latest.watched_s = now_s = time.monotonic()
        if image is None:
            return None
        made_s, jpeg = self._made.get(camera, (float("-inf"), None))
        if jpeg is not None and (jpeg.number == scene.number or now_s - made_s < 1 / PICTURES_HZ):
            return jpeg
        jpeg = Jpeg(scene.number, compress(image))
        self._made[camera] = now_s, jpeg
        return jpeg


def compress(image: NDArray[np.uint8]) -> bytes:
    """A JPEG of the picture, uint8[H, W, 3] RGB, its longer side brought to 448 to 960 pixels."""
    longer = max(image.shape[:2])
    if longer > LARGEST_PX:
        size = [round(side * LARGEST_PX / longer) for side in image.shape[1::-1]]
        image = cv2.resize(image, (max(size[0], 1), max(size[1], 1)), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    elif longer < SMALLEST_PX:
        times = -(-SMALLEST_PX // longer)
        image = image.repeat(times, axis=0).repeat(times, axis=1)
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
