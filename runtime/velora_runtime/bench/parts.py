"""Parts by themselves, warm, in turn: decoding, packing, each tower, the head, a streaming step, a clip."""

from __future__ import annotations

import contextlib
import functools
import itertools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from velora_edge.clock import SystemClock
from velora_edge.datatypes import EventBatch
from velora_edge.errors import EngineError, VeloraError
from velora_edge.events.registry import open_events
from velora_edge.events.writers import open_writer
from velora_edge.ort import load_graph, open_session, session_options
from velora_edge.preprocessing.packer import Packer, Pair
from velora_edge.preprocessing.registry import open_event_source
from velora_edge.preprocessing.windows import WindowRule
from velora_edge.vision import Resizer
from velora_runtime.bench.figures import Part
from velora_runtime.engines.registry import BACKENDS, named_backends
from velora_runtime.engines.ring import Presence, Slot

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from velora_edge.bundle import Bundle, Manifest
    from velora_runtime.engines.base import Backend, Engine, EngineOptions

WARM_UP, LEAST, MOST = 3, 10, 2000
"""Runs that are not timed, and the fewest and the most that are."""
STRETCHES = 5
FORMATS = {
    "decode EVT2": ("EVT2", ".raw"),
    "decode EVT3": ("EVT3", ".raw"),
    "read arrays (HDF5)": ("HDF5", ".h5"),
}
TOWERS = ("rgb", "event", "diff")


class Candidate(Protocol):
    """Something that is run in turn with others."""

    @property
    def entries(self) -> Mapping[str, Entry]:
        """What each time of a run is of."""

    def run(self) -> Mapping[str, float]:
        """Run once; milliseconds by name."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a time is of: the facts of a `Part`, and how many of its unit a run gets through."""

    unit: str
    per_run: float = 1.0
    model: str | None = None
    backend: str | None = None
    precision: str | None = None


class Host:
    """Something on the host, timed as a whole.

    Args:
        name: what it is.
        work: is timed.
        entry: what a run gets through.
        share: of the time that is told: 1 / n where `work` does n of them.
    """

    def __init__(self, name: str, work: Callable[[], object], entry: Entry, share: float = 1.0) -> None:
        self.entries = {name: entry}
        self._name, self._work, self._share = name, work, share

    def run(self) -> Mapping[str, float]:
        """Run once."""
        start = time.perf_counter()
        self._work()
        return {self._name: (time.perf_counter() - start) * 1e3 * self._share}


class Step:
    """A streaming step of an engine: three towers and the head, each timed, and all of them.

    Args:
        engine: warmed up.
        manifest: the model's.
    """

    def __init__(self, engine: Engine, manifest: Manifest) -> None:
        facts = {"model": manifest.name, "backend": engine.name, "precision": manifest.precision}
        self.entries = {f"{name} tower": Entry("images", 1, **facts) for name in TOWERS}
        self.entries |= {"head": Entry("clips", 1, **facts), "streaming step": Entry("decisions", 1, **facts)}
        draw = np.random.default_rng(0)
        self._rgb, self._event = draw.integers(0, 256, (2, *manifest.image_size, 3), np.uint8)
        sizes = (manifest.clip_length, manifest.clip_length, manifest.clip_length - 1)
        self._presence = Presence(*(np.ones(size, np.float32) for size in sizes))
        self._slot, self._engine = Slot(0, 0, 0), engine

    def run(self) -> Mapping[str, float]:
        """Run once; the parts and their sum."""
        engine, slot, rgb, event = self._engine, self._slot, self._rgb, self._event
        at = [time.perf_counter()]
        engine.encode("rgb", (rgb,), slot)
        at.append(time.perf_counter())
        engine.encode("event", (event,), slot)
        at.append(time.perf_counter())
        engine.encode("diff", (rgb, event, event, rgb), slot)
        at.append(time.perf_counter())
        engine.decide(0, self._presence)
        at.append(time.perf_counter())
        times = [(b - a) * 1e3 for a, b in itertools.pairwise(at)]
        return dict(zip(self.entries, [*times, (at[-1] - at[0]) * 1e3], strict=True))


def time_in_turn(candidates: Sequence[Candidate], seconds: float, least: int = LEAST) -> list[Part]:
    """Run each in turn, so that all see the same machine.

    Args:
        candidates: what is run.
        seconds: after so long no more than `least` runs are made.
        least: of each.
    """
    times: list[dict[str, list[float]]] = [{name: [] for name in each.entries} for each in candidates]
    for candidate in candidates:
        for _ in range(WARM_UP):
            candidate.run()
    begun, turns = time.perf_counter(), 0
    while turns < least or (turns < MOST and time.perf_counter() - begun < seconds):
        for candidate, taken in zip(candidates, times, strict=True):
            for name, value_ms in candidate.run().items():
                taken[name].append(value_ms)
        turns += 1
    return [
        _part(name, candidate.entries[name], taken)
        for candidate, by_name in zip(candidates, times, strict=True)
        for name, taken in by_name.items()
    ]


def _part(name: str, entry: Entry, taken: Sequence[float]) -> Part:
    p50, p99 = np.percentile(taken, (50, 99), method="higher").tolist()
    stretches = [stretch for stretch in np.array_split(np.asarray(taken), STRETCHES) if len(stretch)]
    return Part(
        name=name,
        model=entry.model,
        backend=entry.backend,
        precision=entry.precision,
        n=len(taken),
        p50_ms=round(p50, 4),
        p99_ms=round(p99, 4),
        rounds_ms=[round(float(np.median(stretch)), 4) for stretch in stretches],
        per_s=float(f"{entry.per_run / p50 * 1e3:.4g}"),
        unit=entry.unit,
    )


def host_parts(
    recording: str, manifest: Manifest, events: int, picture_px: tuple[int, int], folder: Path
) -> list[Candidate]:
    """Decoding of each format, packing and the resizing of a picture.

    Args:
        recording: whose first events are written in each format.
        manifest: the model's: windows, representation, image size.
        events: how many are decoded in a run.
        picture_px: width and height of a picture.
        folder: for the files.
    """
    found: list[Candidate] = []
    batch, width, height = _first_events(recording, events)
    for title, (name, ending) in FORMATS.items():
        path = folder / f"{name}{ending}"
        with open_writer(path, name, width=width, height=height) as writer:
            writer.write(batch)
        found.append(Host(title, functools.partial(_decode, path), Entry("events", len(batch))))
    packs = _Packing(folder / "EVT3.raw", manifest)
    found.append(Host("pack a window's events", packs.run, Entry("windows"), 1 / packs.windows))
    picture = np.random.default_rng(0).integers(0, 256, (picture_px[1], picture_px[0], 3), np.uint8)
    resizer = Resizer(picture.shape[:2], manifest.image_size, manifest.rgb.fit, manifest.rgb.resample)
    small = np.empty((*manifest.image_size, 3), np.uint8)
    found.append(Host("resize a picture", lambda: resizer.resize_into(picture, small), Entry("pictures")))
    return found


def _first_events(recording: str, events: int) -> tuple[EventBatch, int, int]:
    batches, n = [], 0
    with contextlib.closing(open_events(recording)) as reader:
        for batch in reader:
            batches.append(batch)
            n += len(batch)
            if n >= events:
                break
        return EventBatch.concatenate(batches)[:events], reader.width, reader.height


def _decode(path: Path) -> int:
    with contextlib.closing(open_events(path)) as reader:
        return sum(len(batch) for batch in reader)


class _Packing:
    """Packs all windows of a recording, by the packer of the runtime, from its first event on."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self._path, self._manifest = path, manifest
        self._packed = Pair.empty(manifest.image_size)
        self.windows = 1
        self.windows = max(self.run(), 1)

    def run(self) -> int:
        """Pack them; gives how many there were."""
        reader = open_event_source(str(self._path))
        assert reader is not None
        window_us, n = self._manifest.event.window_us, 0
        with contextlib.closing(reader), reader.stream() as stream:
            packer = Packer(self._manifest, stream, WindowRule(window_us), SystemClock())
            t_us = (stream.t_next_us or 0) + window_us
            while not packer.is_exhausted:
                packer.pack_into(self._packed, t_us, None, 0)
                t_us += window_us
                n += 1
        return n


class Engines:
    """The engines of several bundles by every backend that runs here. Use it in a `with` block.

    Args:
        bundles: opened, by the path that was given.
        backend: one, or auto for all.
        options: what they run on.

    Attributes:
        candidates: a step of each.
        passed_over: backends that could not be had, each with the model and the reason.
    """

    def __init__(self, bundles: Mapping[str, Bundle], backend: str, options: EngineOptions) -> None:
        self.candidates: list[Candidate] = []
        self.passed_over: list[str] = []
        self._bundles = bundles
        self._backend, self._options = backend, options
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> Engines:
        try:
            for bundle in self._bundles.values():
                self._open(bundle)
        except BaseException:
            self._closing.close()
            raise
        if not self.candidates:
            raise EngineError(f"no backend runs the model here: {'; '.join(self.passed_over)}")
        return self

    def __exit__(self, *error: object) -> None:
        self._closing.close()

    def _open(self, bundle: Bundle) -> None:
        chosen = BACKENDS.all() if self._backend == "auto" else named_backends(self._backend)
        manifest = bundle.manifest
        for one in chosen:
            backend = cast("Backend", one.load())
            reason = backend.why_not(bundle, self._options)
            if reason is not None:
                self.passed_over.append(f"{manifest.name}, {one.help}: {reason}")
                continue
            try:
                engine = backend.open_engine(bundle, self._options)
            except VeloraError as error:
                self.passed_over.append(f"{manifest.name}, {one.help}: {error}")
                continue
            self._closing.callback(engine.close)
            engine.warm_up()
            self.candidates.append(Step(engine, manifest))
            if one.name == "onnxruntime":
                self.candidates.append(_clip(bundle, engine.name, self._options))


def _clip(bundle: Bundle, backend: str, options: EngineOptions) -> Candidate:
    """A whole clip by ONNX Runtime on the CPU, as evaluation runs it; no engine of the runtime has clips."""
    manifest = bundle.manifest
    session: Any = open_session(load_graph(bundle, "clip"), session_options(options.threads))
    shape = (2, 1, manifest.clip_length, *manifest.image_size, 3)
    rgb, event = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    present = np.ones((1, manifest.clip_length), np.float32)
    inputs = {"rgb": rgb, "event": event, "rgb_present": present, "event_present": present}
    entry = Entry("clips", 1, manifest.name, backend, manifest.precision)
    return Host("clip", lambda: session.run(None, inputs), entry)
