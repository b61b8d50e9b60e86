"""What a step costs where towers compute active patches alone, beside the same model that computes all.

    python benchmarks/vit_bundles.py bundles --sizes vit-s
    python benchmarks/vit_bundles.py bundles --sizes vit-s --active-patches
    python benchmarks/active_step.py bundles/vit-s-fp32.velora bundles/vit-s-active-fp32.velora

The event windows of real recordings, 33 ms each, as they are and behind the filter of background activity,
and pictures of noise go pair by pair to both models, which take turns: the runtime's own engine and
recogniser, lists of patches included. A step is all three towers and the head. With `--published` the model
of `streaming_step.py` is a third: torch, every image of the clip computed for each decision, as the published
code does it.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # torch's threads must not spin while others work

import numpy as np
from active_patches import DATA, RECORDINGS, SIDE, WINDOW_US, windows_of
from velora_runtime.engines.base import EngineOptions
from velora_runtime.engines.registry import open_engine
from velora_runtime.inference.recogniser import PairRecogniser

import velora_edge
from velora_edge.bundle import EventInput, open_bundle
from velora_edge.clock import SystemClock
from velora_edge.datatypes import EventFrame, FramePair, RGBFrame
from velora_edge.events.accumulate.active_patches import PatchFinder
from velora_edge.events.accumulate.representations import RegistrationMap, make_accumulator
from velora_edge.events.filters.event_preprocessing import FilteredStream
from velora_edge.events.filters.filters import FilterChain, make_filter
from velora_edge.preprocessing.packer import Pair

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from velora_edge.bundle import Bundle

CHOSEN = (
    "DVS128, mug in a hand",
    "DVS128, scissors in a hand",
    "EVT2 (expelliarmus)",
    "EVT3 with triggers (event_camera_py)",
    "EVT3, dense (expelliarmus)",
)
PUBLISHED_EVERY = 8
"""Pairs from one decision of the published way to the next."""
Images = list["NDArray[np.uint8]"]


def read_images(path: Path, count: int, filters: Sequence[str]) -> Images:
    """Event images of a recording's windows, so many, from its middle; of a short one again and again."""
    with velora_edge.open_events(path) as reader, reader.stream() as events:
        sensor = reader.width, reader.height
        chain = FilterChain([make_filter(text, sensor) for text in filters])
        stream = FilteredStream(events, chain) if filters else events
        registration = RegistrationMap.from_fit(sensor[::-1], (SIDE, SIDE), "crop")
        frame = make_accumulator(EventInput(window_us=WINDOW_US), registration)
        images = []
        for filled in windows_of(stream, frame):
            image = np.empty((SIDE, SIDE, 3), np.uint8)
            filled.render_into(image)
            images.append(image)
    start = max(0, (len(images) - count) // 2)
    return list(itertools.islice(itertools.cycle(images[start : start + count]), count))


class Model:
    """A bundle's engine, with the time that each tower and the head took.

    Args:
        bundle: the model.
        backend: of the runtime.
        threads: of the engine.
    """

    def __init__(self, bundle: Bundle, backend: str, threads: int) -> None:
        self._bundle = bundle
        self._engine = open_engine(bundle, backend, EngineOptions(device="cpu", threads=threads)).engine
        self._engine.warm_up()
        self.begin()

    def begin(self) -> None:
        """Forget what was measured, and the last recording's pairs."""
        self.parts_ms: dict[str, list[float]] = {"rgb": [], "event": [], "diff": [], "step": []}
        self._recogniser = PairRecogniser(self._bundle.manifest, self._timed(), SystemClock())

    def _timed(self) -> object:
        engine, parts = self._engine, self.parts_ms

        class Timed:
            name = engine.name

            def encode(self, modality: str, *given: object) -> None:
                start = time.perf_counter()
                engine.encode(modality, *given)  # type: ignore[arg-type]
                parts[modality].append(1e3 * (time.perf_counter() - start))

            decide = staticmethod(engine.decide)

        return Timed()

    def see(self, pair: Pair) -> None:
        """One step."""
        start = time.perf_counter()
        logits = self._recogniser.see(pair)
        if logits is not None:
            self.parts_ms["step"].append(1e3 * (time.perf_counter() - start))

    def close(self) -> None:
        """Free the engine."""
        self._engine.close()


def make_pair(number: int, rgb: NDArray[np.uint8], event: NDArray[np.uint8]) -> Pair:
    """A pair as the packer gives it."""
    pair = Pair(rgb.copy(), event.copy())
    t_us = number * WINDOW_US
    frames = RGBFrame(pair.rgb_image, t_us, number), EventFrame(pair.event_image, t_us - WINDOW_US, t_us, 1)
    pair.frames = FramePair(number, t_us, *frames)
    return pair


def measure(models: dict[str, Model], images: Images, rest: Callable[[], None]) -> None:
    """Let each model see the same pairs, in turn; `rest` comes after each turn."""
    draw = np.random.default_rng(0)
    for model in models.values():
        model.begin()
    for number, image in enumerate(images):
        rgb = draw.integers(0, 256, image.shape, np.uint8)
        for model in models.values():
            model.see(make_pair(number, rgb, image))
        rest()


def published(threads: int, taken_ms: list[float], every: int) -> Callable[[], None]:
    """A turn of the published way, ViT-B in torch, each `every` calls."""
    import torch
    from streaming_models import VIT_B, make_model, vit_config
    from streaming_step import InTorch
    from velora_export.evaluation.sessions import random_clips

    torch.set_num_threads(threads)
    model = make_model(vit_config(VIT_B))
    whole, calls = InTorch(model, random_clips(model.config, count=1)).whole, itertools.count()

    def turn() -> None:
        if next(calls) % every:
            return
        start = time.perf_counter()
        whole()
        taken_ms.append(1e3 * (time.perf_counter() - start))

    return turn


def shares(images: Images, finder: PatchFinder) -> tuple[float, float]:
    """Median shares of active patches, of the event images and of the differences."""
    active = [finder.find(image) for image in images]
    either = [now | before for now, before in zip(active[1:], active, strict=False)]
    return tuple(100 * statistics.median(map(np.mean, found)) for found in (active, either))  # type: ignore[return-value]


def row(name: str, models: dict[str, Model], images: Images, finder: PatchFinder) -> str:
    """The recording's line of the table."""
    dense, active = models.values()
    median = {
        part: [statistics.median(model.parts_ms[part]) for model in (dense, active)]
        for part in dense.parts_ms
    }
    towers = [median["event"][k] + median["diff"][k] for k in (0, 1)]
    cells = [
        f"{before:.1f} / {after:.1f} ms, {before / after:.2f}x"
        for before, after in (median["event"], median["diff"], towers, median["step"])
    ]
    of_event, of_diff = shares(images, finder)
    return f"| {name} | {len(images)} | {of_event:.0f} / {of_diff:.0f} % | {' | '.join(cells)} |"


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("dense", type=Path, help="a bundle that computes all patches")
    parser.add_argument("active", type=Path, help="the same model with active patches")
    parser.add_argument("--backend", default="onnxruntime", help="onnxruntime or openvino")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the event files")
    parser.add_argument("--pairs", type=int, default=40, help="of each recording")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--published", action="store_true", help="measure the published way, ViT-B, beside")
    given = parser.parse_args()
    bundles = {"all": open_bundle(given.dense), "active": open_bundle(given.active)}
    form = bundles["active"].manifest.active_patches
    if form is None or bundles["all"].manifest.active_patches is not None:
        raise SystemExit("give a bundle without active patches, then one with them")
    models = {name: Model(bundle, given.backend, given.threads) for name, bundle in bundles.items()}
    finder, whole_ms = PatchFinder(form, (SIDE, SIDE)), list[float]()
    rest = published(given.threads, whole_ms, every=PUBLISHED_EVERY) if given.published else lambda: None
    print(f"{given.dense.stem}, {given.backend}, {given.threads} threads; all patches / active ones\n")
    print("| recording | pairs | active: events / differences | event tower | diff tower | both | step |")
    print("|---" * 7 + "|")
    ratios, since = {}, 0
    for name, filters in itertools.product(CHOSEN, ((), ("background",))):
        images = read_images(given.data / RECORDINGS[name], given.pairs, filters)
        measure(models, images, rest)
        shown = ", ".join((name, *(f"{text} filter" for text in filters)))
        print(row(shown, models, images, finder), flush=True)
        if len(whole_ms) > since:
            whole, since = statistics.median(whole_ms[since:]), len(whole_ms)
            ratios[shown] = [whole / statistics.median(model.parts_ms["step"]) for model in models.values()]
    for model in models.values():
        model.close()
    if ratios:
        told = f"{len(whole_ms)} decisions between the pairs: {statistics.median(whole_ms):.0f} ms"
        print(f"\nThe published way, {told}; a step against those of its own recording:\n")
        for name, (dense, active) in ratios.items():
            print(f"- {name}: {dense:.1f} times (all patches), {active:.1f} times (active ones)")


if __name__ == "__main__":
    main()
