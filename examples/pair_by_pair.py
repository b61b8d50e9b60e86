"""Recognition inside a program that has pictures and events itself: no cameras, no threads of ours.

    python examples/pair_by_pair.py recording.raw video.mp4

Here they come from a recording; in your program, from whatever you read already.
"""

from __future__ import annotations

import sys

import numpy as np
from velora_runtime import Recogniser

import velora_edge


def main(recording: str, video: str) -> None:
    """Print the label of every tenth pair."""
    with velora_edge.open_events(recording) as reader:
        events, sensor = reader.read(), (reader.width, reader.height)
    with Recogniser("demo", sensor) as recogniser:
        for pair in velora_edge.pairs(recording, video):
            window = None
            if pair.event is not None:
                first, last = np.searchsorted(events.t_us, [pair.event.t0_us, pair.event.t1_us])
                window = events[first:last]
            prediction = recogniser.see(pair.rgb.image, window, pair.t_us)
            if prediction is not None and prediction.seq % 10 == 0:
                print(f"{prediction.t_us / 1e6:8.2f} s  {prediction.label}  {prediction.score:.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
