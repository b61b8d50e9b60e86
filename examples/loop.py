"""A loop over predictions: of attached cameras, or of a recording.

python examples/loop.py                                        # the attached cameras
python examples/loop.py recording.raw video.mp4                # a recording, as fast as it goes
"""

from __future__ import annotations

import sys

import velora_runtime


def main(sources: list[str]) -> None:
    """Print each change of the label."""
    events, rgb = (*sources, None, None)[:2]
    pace = "max" if sources else "realtime"
    before = None
    with velora_runtime.live("demo", events, rgb, pace=pace) as run:
        for prediction in run:
            if prediction.label != before:
                print(f"{prediction.t_us / 1e6:8.2f} s  {prediction.label}  {prediction.score:.2f}")
            before = prediction.label
    print(f"{run.report.predictions} predictions")


if __name__ == "__main__":
    main(sys.argv[1:])
