"""What a decision costs on a still scene beside a busy one, where `--idle-below` computes nothing for it.

    python benchmarks/still_scene.py                # the demo model
    python benchmarks/still_scene.py demo vit-s.velora

Pictures and events of the demo's recording go to the model pair by pair, a second as they are and a second
with the last picture and no events, in turns. CPU time is the process's, all threads of it; pictures and
events are brought to the model's size in both. A still pair counts once the gate has closed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

from velora_runtime import Recogniser

import velora_edge
from velora_edge.datatypes import EventBatch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ASSETS = Path(velora_edge.__file__).parent / "assets"
SENSOR = (640, 480)
TURN = 30


def read_pairs(below: int) -> list[tuple[NDArray[np.uint8], EventBatch]]:
    """Pictures of the demo with the events before them, those with fewer than `below` left out."""
    batch = velora_edge.open_events(ASSETS / "demo.raw").read()
    pairs, begin = [], 0
    for pair in velora_edge.pairs(ASSETS / "demo.raw", ASSETS / "demo.mp4"):
        end = int(batch.t_us.searchsorted(pair.t_us))
        if pair.rgb is not None and end - begin >= below:
            pairs.append((pair.rgb.image, batch[begin:end]))
        begin = end
    return pairs


def run(model: str, below: int, turns: int) -> tuple[list[float], list[float], int]:
    """CPU milliseconds of each busy decision, of each still one; movements that were not answered at once."""
    pairs = read_pairs(below)
    busy, still, late = [], [], 0
    with Recogniser(model, SENSOR, idle_below=below) as recogniser:
        for turn in range(turns):
            for k in range(TURN):
                rgb, events = pairs[(turn * TURN + k) % len(pairs)]
                begun_s = time.process_time()
                prediction = recogniser.see(rgb, events)
                taken_ms = 1e3 * (time.process_time() - begun_s)
                if prediction is not None:
                    busy.append(taken_ms)
                    late += prediction.is_idle
            for _ in range(TURN):
                begun_s = time.process_time()
                prediction = recogniser.see(rgb, EventBatch.empty())
                taken_ms = 1e3 * (time.process_time() - begun_s)
                if prediction is not None and prediction.is_idle:
                    still.append(taken_ms)
    return busy, still, late


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("models", nargs="*", default=["demo"], help="bundles' folders")
    parser.add_argument("--below", type=int, default=100, metavar="N", help="events of a pair that is still")
    parser.add_argument("--turns", type=int, default=10)
    given = parser.parse_args()
    print("| model | scene | decisions | CPU ms a decision, median | share | moved, not computed |")
    print("|---|---|---|---|---|---|")
    for model in given.models:
        busy, still, late = run(model, given.below, given.turns)
        whole = statistics.median(busy)
        for name, taken in (("busy", busy), ("still", still)):
            middle = statistics.median(taken)
            figures = f"{len(taken)} | {middle:.2f} | {middle / whole:.1%} | {late if name == 'busy' else ''}"
            print(f"| {Path(model).stem} | {name} | {figures} |")


if __name__ == "__main__":
    main()
