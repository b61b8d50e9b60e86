"""What a training step's clips cost to read: our store beside PNG files, and packed each time.

    python benchmarks/data_path.py
    python benchmarks/data_path.py --clips 400 --json data_path.json

Clips of 8 pairs of both cameras, 224x224, drawn at random from recordings of the synthetic set; one
process. The store is what `velora dataset build` writes. PNG files, one an image, are what published sets
of this kind come as; they hold the same images, which is checked first. Packing, from events and pictures
in memory, is what a set costs that was not built. Files are in the page cache; the ways take turns.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from turns import percentiles, take_turns

from velora_edge.data.clips.clips import ClipSpec
from velora_edge.data.clips.store import ClipStore, ClipStoreWriter
from velora_edge.data.synthetic.synthetic import RenderedSet, SyntheticSet, pack_clip

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from velora_edge.data.clips.clips import Pairs

SIZE, T = (224, 224), 8


class PngFolder:
    """Pairs as files: RECORDING/rgb/00007.png, RECORDING/event/00007.png."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, index: int, pairs: Pairs) -> None:
        """All pairs of a recording."""
        for camera, images in (("rgb", pairs.rgb), ("event", pairs.event)):
            assert images is not None
            folder = self._folder / f"{index:03}" / camera
            folder.mkdir(parents=True)
            for number, image in enumerate(images):
                cv2.imwrite(str(folder / f"{number:05}.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))

    def read(self, index: int, which: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Some pairs of a recording."""
        rgb, event = (
            np.stack([self._image(index, camera, number) for number in which.tolist()])
            for camera in ("rgb", "event")
        )
        return rgb, event

    def bytes(self) -> int:
        """Of all files."""
        return sum(path.stat().st_size for path in self._folder.rglob("*.png"))

    def _image(self, index: int, camera: str, number: int) -> NDArray[np.uint8]:
        read = cv2.imread(str(self._folder / f"{index:03}" / camera / f"{number:05}.png"))
        assert read is not None
        return np.asarray(cv2.cvtColor(read, cv2.COLOR_BGR2RGB), np.uint8)


def draw_clips(count: int, recordings: int, pairs: int) -> list[tuple[int, NDArray[np.int64]]]:
    """Recordings and places of their pairs, the same each time."""
    rng = np.random.default_rng(0)
    return [
        (int(rng.integers(recordings)), np.sort(rng.choice(pairs, T, replace=False)).astype(np.int64))
        for _ in range(count)
    ]


def each(
    clips: list[tuple[int, NDArray[np.int64]]], read: Callable[[int, NDArray[np.int64]], object]
) -> Callable[[], None]:
    """Reads the next clip at each call, over and over."""
    pending = itertools.cycle(clips)

    def read_next() -> None:
        read(*next(pending))

    return read_next


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--recordings", type=int, default=24)
    parser.add_argument("--pairs", type=int, default=24, help="of a recording")
    parser.add_argument("--clips", type=int, default=100, help="read by each way in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write all times to this file")
    given = parser.parse_args()
    spec = ClipSpec(given.pairs, SIZE, "stride")
    made = RenderedSet(spec)
    clips = draw_clips(given.clips, given.recordings, given.pairs)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        png, everything = PngFolder(folder / "png"), np.arange(given.pairs)
        with ClipStoreWriter(folder / "store.h5", made.labels, made.cameras, spec, "synthetic") as writer:
            for index in range(given.recordings):
                pairs = made.read(index, everything)
                writer.add(made.items[index], pairs)
                png.write(index, pairs)
            writer.finish()
        store = ClipStore(folder / "store.h5", replace(spec, length=T))
        for index, which in clips[:8]:
            theirs, ours = png.read(index, which), store.read(index, which)
            assert ours.rgb is not None
            assert ours.event is not None
            if not (np.array_equal(ours.rgb, theirs[0]) and np.array_equal(ours.event, theirs[1])):
                raise SystemExit(f"recording {index}: store and PNG files hold other images")
        packed = SyntheticSet(1, 0, "train", pairs=T)[0]
        times = take_turns(
            {
                "store": (each(clips, store.read), given.clips),
                "PNG files": (each(clips, png.read), given.clips),
                "packed each time": (lambda: pack_clip(packed, replace(spec, length=T)), given.clips),
            },
            given.rounds,
        )
        sizes = {"store": (folder / "store.h5").stat().st_size, "PNG files": png.bytes()}
    raw_mb = given.recordings * given.pairs * 2 * SIZE[0] * SIZE[1] * 3 / 1e6
    print(f"{given.recordings} recordings of {given.pairs} pairs, {raw_mb:.0f} MB of pixels\n")
    print("| way | clips/s | a clip, p50 ms | p99 ms | on disk |\n|---|---|---|---|---|")
    for way, taken in times.items():
        p50, p99 = percentiles(taken)
        disk = f"{sizes[way] / 1e6:.1f} MB" if way in sizes else "-"
        print(f"| {way} | {1e3 / p50:.0f} | {p50:.2f} | {p99:.2f} | {disk} |")
    if given.json:
        given.json.write_text(json.dumps(times, indent=1) + "\n")


if __name__ == "__main__":
    main()
