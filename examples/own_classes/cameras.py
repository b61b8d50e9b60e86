"""Two live cameras that look at a rendered scene: raw EVT3 over TCP, and motion JPEG over HTTP, in real time.

python examples/own_classes/cameras.py SCENE.raw SCENE.npz

The scene comes round for ever. The line that is printed first tells both addresses; the cameras end with
standard input.
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

import cv2
import numpy as np
from scenes import LOOP_US, PICTURES
from velora_runtime.bench.cameras import EventCamera, RGBCamera, make_cycle, serve

if TYPE_CHECKING:
    from collections.abc import Iterator

PERIOD_NS = LOOP_US * 1000 // PICTURES


class SceneCamera(RGBCamera):
    """Sends the pictures of a scene in step with its event camera.

    Args:
        jpegs: of one loop.
        events: the event camera, whose time counts from its first client on.
    """

    def __init__(self, jpegs: list[bytes], events: EventCamera) -> None:
        super().__init__(jpegs, 1e9 / PERIOD_NS)
        self._loop, self._events = jpegs, events

    def parts(self) -> Iterator[bytes]:
        """Parts of a motion JPEG, each when it is due."""
        began_ns = time.monotonic_ns()
        while True:
            zero_ns = self._events.began_ns or began_ns
            number = (time.monotonic_ns() - zero_ns) // PERIOD_NS + 1
            time.sleep(max(0.0, (zero_ns + number * PERIOD_NS - time.monotonic_ns()) / 1e9))
            jpeg = self._loop[number % len(self._loop)]
            head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            yield head.encode() + jpeg + b"\r\n"


def main(events: str, pictures: str) -> None:
    """Serve both cameras until standard input ends."""
    with np.load(pictures) as scene:
        images, count = scene["pictures"], int(scene["events"])
    # A little under the recording's rate, so that rounding leaves no block out.
    camera = EventCamera(make_cycle(events, count / (LOOP_US / 1e6) * (1 - 1e-9)))
    jpegs = [
        cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()
        for image in images
    ]
    port = serve(SceneCamera(jpegs, camera), camera)
    address = "127.0.0.1"
    print(
        json.dumps({"events": f"tcp://{address}:{camera.port}", "rgb": f"http://{address}:{port}/"}),
        flush=True,
    )
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
