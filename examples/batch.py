"""Frames and pairs of a recording as arrays, for a program that trains or analyses with its own code.

python examples/batch.py recording.raw video.mp4 pairs.npz
"""

from __future__ import annotations

import sys

import numpy as np

import velora_edge

SIZE = (112, 112)


def main(recording: str, video: str, out: str) -> None:
    """Write all whole pairs: rgb and event uint8[N, H, W, 3], t_us int64[N]."""
    whole = [
        (pair.rgb.image, pair.event.image, pair.t_us)
        for pair in velora_edge.pairs(recording, video, SIZE, representation="voxel_grid")
        if pair.rgb is not None and pair.event is not None
    ]
    rgb, event, t_us = (np.stack(column) for column in zip(*whole, strict=True))
    np.savez_compressed(out, rgb=rgb, event=event, t_us=t_us)
    print(f"{len(t_us)} pairs, {rgb.shape[1:]} each")
    busiest = max(velora_edge.frames(recording, 10_000, "histogram"), key=lambda frame: frame.events)
    print(f"busiest 10 ms: from {busiest.t0_us} us, {busiest.events} events")


if __name__ == "__main__":
    main(*sys.argv[1:4])
