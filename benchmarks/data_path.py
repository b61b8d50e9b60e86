"""What a training step's clips cost to read: our store beside PNG files, packed each time, and by workers.

    python benchmarks/data_path.py
    python benchmarks/data_path.py --clips 400 --json data_path.json
    python benchmarks/data_path.py --check

Clips of 8 pairs of both cameras, 224x224, drawn at random from recordings of the synthetic set, pictures with
the noise of a camera; one thread, by its processor time. The store is what `velora dataset build` writes. PNG
files, one an image, are what published sets of this kind come as; that they hold the same images is checked.
Packing, from events and pictures in memory, is what a set costs that was not built. Files are in the page
cache; the ways take turns.

Then what training does with the store: clips read, varied and made batches of, by no worker, one and two,
beside the clips that a training step of ViT-Ti takes in the same time. `--check` fails (exit code 1) unless
the store gives 4 times the clips of PNG files and two workers more than the step takes.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from train_step import run_apart
from turns import percentiles, take_turns

from velora_edge.data.clips.augment import AugmentConfig
from velora_edge.data.clips.clips import ClipSpec, Pairs
from velora_edge.data.clips.store import ClipStore, ClipStoreWriter
from velora_edge.data.synthetic.synthetic import RenderedSet, SyntheticSet, pack_clip
from velora_edge.train.batches import ClipDataset, ClipLoader, Share, TrainSampler, Variety

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

SIZE, T = (224, 224), 8
BATCH, WORKERS = 4, (0, 1, 2)
AUGMENT = AugmentConfig(shift=0.045, rotate_deg=5, scale=0.1, brightness=0.1, contrast=0.1)
WANTED = 4.0
"""Times the clips of PNG files."""


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


def add_noise(pairs: Pairs, spread: float, seed: int) -> Pairs:
    """The pairs with noise in the pictures: rendered ones are so smooth that any codec is fast with them."""
    assert pairs.rgb is not None
    drawn = np.random.default_rng(seed).normal(0, spread, pairs.rgb.shape)
    return Pairs(np.clip(pairs.rgb + drawn, 0, 255).astype(np.uint8), pairs.event)


def load_rates(store: ClipStore, batches: int, rounds: int) -> dict[int, float]:
    """Clips a second by workers, as training reads them: varied, in batches; the median of the rounds."""
    dataset = ClipDataset(store, Variety(AUGMENT, 0.1, 0.1, seed=0))
    members = np.arange(len(store), dtype=np.int64).repeat(-(-batches * BATCH // len(store)))
    keys = TrainSampler(members, BATCH, 0, Share()).batches(0)[:batches]
    loaders = {workers: ClipLoader(dataset, workers) for workers in WORKERS}

    def read_all(loader: ClipLoader) -> None:
        for _ in loader.read(keys):
            pass

    for loader in loaders.values():
        read_all(loader)  # its workers begin
    ways = {workers: (functools.partial(read_all, loader), 1) for workers, loader in loaders.items()}
    times = take_turns(ways, rounds)
    for loader in loaders.values():
        loader.close()
    return {workers: 1e3 * len(keys) * BATCH / statistics.median(taken) for workers, taken in times.items()}


def step_rate(device: str, steps: int) -> float:
    """Clips a second that training of ViT-Ti with LoRA takes on this machine."""
    options = argparse.Namespace(
        backbone="vit_tiny_patch16_224", clips=BATCH, frames=T, steps=steps, device=device,
        threads=os.cpu_count() or 1,
    )  # fmt: skip
    way = "ours-bf16" if device == "cuda" else "ours"
    return BATCH / statistics.median(run_apart(options, way)["seconds"])


def read_arguments() -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--recordings", type=int, default=24)
    parser.add_argument("--pairs", type=int, default=24, help="of a recording")
    parser.add_argument("--noise", type=float, default=3.0, help="of the pictures, levels of 255")
    parser.add_argument("--clips", type=int, default=100, help="read by each way in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="of training, measured")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="that trains")
    parser.add_argument("--check", action="store_true", help="fail unless the store is fast enough")
    parser.add_argument("--json", type=Path, help="write all times to this file")
    return parser.parse_args()


def write_files(given: argparse.Namespace, folder: Path) -> tuple[ClipStore, PngFolder]:
    """The same recordings as a store and as PNG files."""
    spec = ClipSpec(given.pairs, SIZE, "stride")
    made, png = RenderedSet(spec), PngFolder(folder / "png")
    with ClipStoreWriter(folder / "store.h5", made.labels, made.cameras, spec, "synthetic") as writer:
        for index in range(given.recordings):
            pairs = add_noise(made.read(index, np.arange(given.pairs)), given.noise, index)
            writer.add(made.items[index], pairs)
            png.write(index, pairs)
        writer.finish()
    return ClipStore(folder / "store.h5", replace(spec, length=T)), png


def check_same(store: ClipStore, png: PngFolder, clips: list[tuple[int, NDArray[np.int64]]]) -> None:
    """Make sure that both hold the same images."""
    for index, which in clips:
        theirs, ours = png.read(index, which), store.read(index, which)
        assert ours.rgb is not None
        assert ours.event is not None
        if not (np.array_equal(ours.rgb, theirs[0]) and np.array_equal(ours.event, theirs[1])):
            raise SystemExit(f"recording {index}: store and PNG files hold other images")


def show_reads(times: dict[str, list[float]], sizes: dict[str, int]) -> float:
    """Print the first table; returns how many times the clips of PNG files the store gives."""
    print("| way | clips/s | a clip, p50 ms | p99 ms | on disk |\n|---|---|---|---|---|")
    for way, taken in times.items():
        p50, p99 = percentiles(taken)
        disk = f"{sizes[way] / 1e6:.1f} MB" if way in sizes else "-"
        print(f"| {way} | {1e3 / p50:.0f} | {p50:.2f} | {p99:.2f} | {disk} |")
    gain = percentiles(times["PNG files"])[0] / percentiles(times["store"])[0]
    print(f"\nThe store gives {gain:.1f} times the clips of PNG files.\n")
    return gain


def show_loaded(loaded: dict[int, float], step: float, device: str) -> None:
    """Print the second table."""
    print("| reads, varies, makes batches | clips/s | times a step of ViT-Ti |\n|---|---|---|")
    for workers, rate in loaded.items():
        print(f"| {workers or 'no'} worker{'s' * (workers != 1)} | {rate:.0f} | {rate / step:.1f} |")
    print(f"\nA training step of ViT-Ti with LoRA ({device}) takes {step:.2f} clips/s.")


def main() -> None:
    given = read_arguments()
    clips = draw_clips(given.clips, given.recordings, given.pairs)
    with tempfile.TemporaryDirectory() as name:
        store, png = write_files(given, Path(name))
        check_same(store, png, clips[:8])
        packed = SyntheticSet(1, 0, "train", pairs=T)[0]
        ways = {
            "store": (each(clips, store.read), given.clips),
            "PNG files": (each(clips, png.read), given.clips),
            "packed each time": (lambda: pack_clip(packed, store.spec), given.clips),
        }
        times = take_turns(ways, given.rounds, clock=time.process_time)
        loaded = load_rates(store, max(1, given.clips // BATCH), given.rounds)
        sizes = {"store": store.path.stat().st_size, "PNG files": png.bytes()}
        store.close()
    step = step_rate(given.device, given.steps)
    raw_mb = given.recordings * given.pairs * 2 * SIZE[0] * SIZE[1] * 3 / 1e6
    print(f"{given.recordings} recordings of {given.pairs} pairs, {raw_mb:.0f} MB of pixels\n")
    gain = show_reads(times, sizes)
    show_loaded(loaded, step, given.device)
    if given.json:
        found = {"times_ms": times, "loaded": loaded, "step": step}
        given.json.write_text(json.dumps(found, indent=1) + "\n")
    if given.check and not (gain >= WANTED and loaded[2] > step):
        sys.exit(f"expected {WANTED:g} times the clips of PNG files, and two workers faster than a step")


if __name__ == "__main__":
    main()
