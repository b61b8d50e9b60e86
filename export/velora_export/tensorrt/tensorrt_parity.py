"""Parity of an engine with ONNX Runtime on the same graph and the same clips."""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge.datatypes import MODALITIES
from velora_edge.errors import EngineError, InputError
from velora_edge.events.accumulate.active_patches import PATCHES, list_lengths
from velora_edge.gpu.engine import EngineRunner
from velora_export.evaluation.sessions import Sessions, clip_runs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from velora_edge.bundle import Manifest
    from velora_edge.gpu.cuda import Cuda
    from velora_edge.gpu.engine import LoadedEngine

Arrays = dict[str, "NDArray[Any]"]

TOLERANCE = {"fp32": 1e-3, "fp16": 2e-2, "bf16": 1e-1, "int8": 2e-1, "fp8": 2e-1}
"""Largest difference that an engine is allowed, as a share of the largest value of ONNX Runtime's output."""


@dataclass(frozen=True, slots=True)
class Clips:
    """Clips for the comparison.

    Attributes:
        rgb: uint8[B, T, H, W, 3].
        event: uint8[B, T, H, W, 3].
        source: where they come from.
    """

    rgb: NDArray[np.uint8]
    event: NDArray[np.uint8]
    source: str


def noise_clips(manifest: Manifest, count: int = 2, seed: int = 0) -> Clips:
    """Clips of noise in patches of 4 pixels, every frame another."""
    height, width = manifest.image_size
    shape = (2, count, manifest.clip_length, -(-height // 4), -(-width // 4), 3)
    coarse = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    images = np.ascontiguousarray(coarse.repeat(4, axis=3).repeat(4, axis=4)[:, :, :, :height, :width])
    return Clips(images[0], images[1], f"noise, seed {seed}")


def read_clips(path: Path, manifest: Manifest) -> Clips:
    """Clips out of an .npz file with the arrays `rgb` and `event`, uint8[B, T, H, W, 3] each.

    Raises:
        InputError: if the file is not one, or if its clips are not of the model's size.
    """
    remedy = "give an .npz file with the arrays rgb and event, uint8[B, T, H, W, 3]"
    try:
        with np.load(path, allow_pickle=False) as file:
            rgb, event = np.asarray(file["rgb"]), np.asarray(file["event"])
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"no clips: {error}", path=path, remedy=remedy) from error
    expected = (manifest.clip_length, *manifest.image_size, 3)
    for name, array in (("rgb", rgb), ("event", event)):
        if array.dtype != np.uint8 or array.ndim != 5 or array.shape[1:] != expected or len(array) == 0:
            problem = f"expected uint8 clips of {expected}, got {array.dtype} {array.shape}"
            raise InputError(problem, path=path, place=name, remedy=remedy)
    if len(rgb) != len(event):
        problem = f"{len(rgb)} clips of rgb, but {len(event)} of event"
        raise InputError(problem, path=path, remedy=remedy)
    return Clips(rgb, event, path.name)


@dataclass(frozen=True, slots=True)
class EngineParity:
    """Differences between an engine and ONNX Runtime.

    Attributes:
        source: of the clips.
        runs: how often both ran.
        max_abs: largest absolute difference.
        relative: the same as a share of ONNX Runtime's largest value.
        top1_agreement: share of runs with the same best label; None for tokens.
        tolerance: what `relative` had to keep below.
    """

    source: str
    runs: int
    max_abs: float
    relative: float
    top1_agreement: float | None
    tolerance: float

    def as_dict(self) -> dict[str, Any]:
        """For the manifest: figures rounded to what they can say."""
        rounded = {
            key: float(f"{value:.3g}") if isinstance(value, float) else value
            for key, value in asdict(self).items()
        }
        return {key: value for key, value in rounded.items() if value is not None}


class Comparison:
    """Runs graphs in ONNX Runtime on clips, and engines on the same inputs.

    Args:
        folder: the bundle's, where the graphs lie.
        manifest: the bundle's.
        clips: to compare on.
    """

    def __init__(self, folder: Path, manifest: Manifest, clips: Clips) -> None:
        self._sessions = Sessions(folder)
        self._manifest, self._clips = manifest, clips

    def compare(self, graph: str, runner: ProfileRunner) -> EngineParity:
        """Differences of one graph's engine.

        Raises:
            EngineError: if the engine fails, or gives values that are no numbers.
        """
        given, expected = [], []
        for arrays in self._inputs(graph):
            inputs = _as_halves(arrays, runner)
            (output,) = runner.run(inputs).values()
            if not np.isfinite(output).all():
                raise EngineError(
                    f"the {graph} engine gives values that are no numbers on {self._clips.source}"
                )
            given.append(output)
            expected.append(self._sessions.run(graph, inputs))
        difference = np.abs(np.stack(given) - np.stack(expected)).max()
        largest = max(float(np.abs(np.stack(expected)).max()), 1e-12)
        return EngineParity(
            source=self._clips.source,
            runs=len(given),
            max_abs=float(difference),
            relative=float(difference) / largest,
            top1_agreement=_agreement(given, expected) if graph in ("head", "clip") else None,
            tolerance=TOLERANCE[self._manifest.precision],
        )

    def _inputs(self, graph: str) -> Iterator[Arrays]:
        for rgb, event in zip(self._clips.rgb, self._clips.event, strict=True):
            if graph == "clip":
                flags = {f"{name}_present": np.ones((1, len(rgb)), np.float32) for name in ("rgb", "event")}
                yield {"rgb": rgb[None], "event": event[None], **flags}
            elif graph == "head":
                yield from self._rings(rgb, event)
            else:
                yield from (inputs for name, inputs in self._runs(rgb, event) if name == graph)

    def _runs(self, rgb: NDArray[np.uint8], event: NDArray[np.uint8]) -> Iterator[tuple[str, Arrays]]:
        """The towers' runs over a clip; lists of patches are of each length of the engines in turn."""
        finder = self._sessions.finder
        flags = {f"{name}_present": np.ones((1, len(rgb)), np.float32) for name in ("rgb", "event")}
        lengths = itertools.cycle(() if finder is None else list_lengths(finder.patches))
        for name, inputs in clip_runs(rgb, event, flags, finder):
            listed = {PATCHES: np.arange(next(lengths))[None]} if PATCHES in inputs else {}
            yield name, {**inputs, **listed}

    def _rings(self, rgb: NDArray[np.uint8], event: NDArray[np.uint8]) -> Iterator[Arrays]:
        """The head's inputs, tokens by ONNX Runtime: all present, then each camera alone."""
        rings: dict[str, list[NDArray[np.float32]]] = defaultdict(list)
        for name, inputs in self._runs(rgb, event):
            rings[name].append(self._sessions.run(name, inputs)[0])
        tokens = {name: np.stack(rings[name])[None] for name in MODALITIES}
        for absent in ("", "rgb", "event"):
            flags = {
                f"{name}_present": np.full((1, len(rings[name])), name != absent, np.float32)
                for name in MODALITIES
            }
            yield {**tokens, **flags}


class ProfileRunner:
    """Runs an engine on host arrays, each run on the profile that has the shape of its list of patches.

    Single-threaded.

    Args:
        cuda: the device; memory goes back with it.
        engine: with one profile, or one for each length of a list.
    """

    def __init__(self, cuda: Cuda, engine: LoadedEngine) -> None:
        self._engines = [engine]
        self._runners: dict[int, EngineRunner] = {}
        for profile in range(engine.profiles):
            if profile:
                self._engines.append(engine.with_profile(cuda, profile))
            self._runners[_list_length(self._engines[-1])] = EngineRunner(cuda, self._engines[-1])

    def dtype(self, name: str) -> str:
        """The type of an input: NumPy's name, or bfloat16; empty where there is no such input."""
        return next(iter(self._runners.values())).dtype(name)

    def run(self, inputs: Arrays) -> dict[str, NDArray[np.float32]]:
        """The outputs by name, as float32.

        Raises:
            EngineError: if the inputs are not the engine's, or if it fails.
        """
        length = inputs[PATCHES].shape[1] if PATCHES in inputs else 0
        if length not in self._runners:
            raise EngineError(f"{self._engines[0].name!r} has no shapes for {length} patches; build it again")
        return self._runners[length].run(inputs)

    def close(self) -> None:
        """Free the contexts; the engine goes with the first."""
        for engine in reversed(self._engines):
            engine.close()


def _list_length(engine: LoadedEngine) -> int:
    return engine.inputs[PATCHES].shape[1] if PATCHES in engine.inputs else 0


def _as_halves(arrays: Arrays, runner: ProfileRunner) -> Arrays:
    """The same inputs, tokens as float16 where the graph takes them so: ONNX Runtime does not convert."""
    halves = {name for name in arrays if runner.dtype(name) == "float16"}
    return {name: array.astype(np.float16) if name in halves else array for name, array in arrays.items()}


def check_parity(graph: str, parity: EngineParity) -> None:
    """Refuse an engine that does not compute its graph.

    Raises:
        EngineError: with the figures, if it is further away than the tolerance.
    """
    if not parity.relative <= parity.tolerance:  # a NaN is refused too
        raise EngineError(
            f"the {graph} engine is not its graph: its output is {parity.relative:.2g} of the largest value "
            f"away from ONNX Runtime's on {parity.runs} runs ({parity.source}), "
            f"allowed {parity.tolerance:.0e}; --force keeps it all the same"
        )


def _agreement(given: list[NDArray[np.float32]], expected: list[NDArray[np.float32]]) -> float:
    same = [int(a.argmax()) == int(b.argmax()) for a, b in zip(given, expected, strict=True)]
    return float(np.mean(same))
