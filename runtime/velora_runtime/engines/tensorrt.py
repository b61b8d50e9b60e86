"""TensorRT engines on a GPU: towers write tokens into rings on the device, where the head reads them.

Each engine has a stream of its own, so the three towers of a pair overlap; the head waits for them by events.
After warm-up every run is one CUDA graph, for each ring slot that an engine writes to; where recording fails,
runs are queued one by one as before.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from velora_edge.datatypes import MODALITIES
from velora_edge.errors import EngineError
from velora_edge.events.accumulate.active_patches import PATCHES
from velora_edge.gpu.cuda import Cuda
from velora_edge.gpu.engine import EngineLoader, KernelCache, kernel_cache_path
from velora_edge.gpu.kinds import RTX, TENSORRT
from velora_edge.gpu.matching import (
    choose_engines,
    find_machine,
    network_name,
    read_engine,
    this_machine,
    why_no_tensorrt,
)
from velora_runtime.engines.ort import HOST_INPUTS, GraphEngine, PatchLists
from velora_runtime.engines.tensorrt_lane import Lane, Target, expect_tensor

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from velora_edge.bundle import Bundle
    from velora_edge.gpu.engine import LoadedEngine
    from velora_edge.gpu.kinds import Kind
    from velora_edge.gpu.matching import Machine
    from velora_runtime.engines.base import EngineOptions
    from velora_runtime.engines.ring import Presence

LOG = logging.getLogger("velora.tensorrt")


def why_not(bundle: Bundle, options: EngineOptions) -> str | None:
    """Why the bundle cannot run on TensorRT here as asked, or None. Loads no engine."""
    return why_not_on(TENSORRT, bundle, options)


def why_not_on(kind: Kind, bundle: Bundle, options: EngineOptions) -> str | None:
    """The same of TensorRT or of TensorRT for RTX."""
    if options.device not in ("auto", "cuda"):
        return "this backend computes on an NVIDIA GPU only (--device cuda)"
    reason = why_no_tensorrt(kind=kind)
    if reason is not None:
        return reason
    try:
        choose_engines(bundle, find_machine(kind=kind))
    except EngineError as error:
        return str(error)
    return None


def open_engine(bundle: Bundle, options: EngineOptions) -> TensorRTEngine:
    """The bundle's engines for this machine, loaded.

    Raises:
        EngineError: if there is no GPU, no TensorRT, or no engine for this machine; or if one is not what
            the manifest says.
        BundleError: if a file is no engine.
    """
    return TensorRTEngine(bundle, options)


class TensorRTEngine(GraphEngine):
    """The streaming graphs on a GPU; see `velora_runtime.engines.base.Engine`.

    Single-threaded: the inference thread only.

    Args:
        bundle: the model, with engines for this machine.
        options: what the user asked for.
        kind: the library that runs them: TensorRT, or TensorRT for RTX.

    Attributes:
        name: the library's version and the GPU.
        has_graphs: runs are replayed as CUDA graphs; settled by `warm_up`.
    """

    def __init__(self, bundle: Bundle, options: EngineOptions, kind: Kind = TENSORRT) -> None:
        self.has_graphs = False
        self._wants_graphs = options.cuda_graph
        self._manifest = bundle.manifest
        self._lists = PatchLists(bundle.manifest)
        with contextlib.ExitStack() as undo:
            self._cuda = Cuda()
            undo.callback(self._cuda.close)
            machine = this_machine(self._cuda.describe(), kind)
            self.name = f"{kind.name} {machine.tensorrt} on {machine.gpu}"
            self._runners: dict[str, Lane] = {}
            self._loader: EngineLoader | None = EngineLoader(self._cuda, kind=kind)
            undo.callback(self._close_lanes)
            engines = self._load(bundle, self._loader, machine)
            self._check(engines)
            for graph, engine in engines.items():
                self._make_lanes(graph, engine)
            self._rings = {modality: self._make_ring(modality) for modality in MODALITIES}
            self._slots = {
                key: self._make_slots(modality, key)
                for modality in MODALITIES
                for key in self._lists.keys(modality)
            }
            self._heads = [self._make_head(phase) for phase in range(self._manifest.stride)]
            self._exit = undo.pop_all()

    def decide(self, phase: int, presence: Presence) -> NDArray[np.float32]:
        """The logits of one ring's clip, float32[K]; blocks until they are there."""
        head, target = self._runners["head"], self._heads[phase]
        self._feed_presence(presence)
        for key in self._slots:
            self._cuda.wait(head.stream, self._runners[key].done)
        head.run(target)
        return head.read(target)[0]

    def warm_up(self) -> None:
        """Run every engine on every slot, record what can be recorded, and leave the rings empty."""
        self._feed_pattern(self._manifest)
        runs = [
            (self._runners[key], target)
            for key, rings in self._slots.items()
            for ring in rings
            for target in ring
        ]
        runs += [(self._runners["head"], target) for target in self._heads]
        self.has_graphs = self._wants_graphs and self._record(runs)
        if not self.has_graphs:
            for lane, target in runs:
                target.graph = None
                lane.check(target)
        for lane in self._runners.values():
            lane.keep_kernels()
        self._empty_rings()

    def close(self) -> None:
        """Let go of engines, streams and memory, in that order."""
        self._exit.close()

    def _record(self, runs: list[tuple[Lane, Target]]) -> bool:
        """Whether every run could be recorded; the reason why not is logged."""
        try:
            for lane, target in runs:
                lane.record(target)
        except EngineError as error:
            LOG.warning("CUDA graphs are not used, which costs some latency: %s", error)
            return False
        return True

    def _load(self, bundle: Bundle, loader: EngineLoader, machine: Machine) -> dict[str, LoadedEngine]:
        precision = bundle.manifest.precision
        return {
            graph: loader.load(
                read_engine(bundle.path, entry),
                network_name(graph, precision, entry.model),
                host_code=entry.version_compatible,
                dla_core=entry.dla_core,
                cache=KernelCache(kernel_cache_path(machine, entry.sha256)) if machine.kind is RTX else None,
            )
            for graph, entry in choose_engines(bundle, machine).items()
        }

    def _make_lanes(self, graph: str, engine: LoadedEngine) -> None:
        """A lane for the engine; of one that takes lists of patches, one for each length."""
        for profile, (key, length) in enumerate(self._lists.keys(graph).items()):
            fed = HOST_INPUTS[graph] if length is None else (*HOST_INPUTS[graph], PATCHES)
            of_length = engine if profile == 0 else engine.with_profile(self._cuda, profile)
            self._runners[key] = Lane(self._cuda, of_length, fed)
            if length is not None:
                expect_tensor(of_length, of_length.inputs.get(PATCHES), (1, length))

    def _lane(self, modality: str) -> Lane:
        """One of a tower's lanes; their outputs are alike."""
        return self._runners[next(iter(self._lists.keys(modality)))]

    def _check(self, engines: Mapping[str, LoadedEngine]) -> None:
        """Make sure that towers and head fit each other and the manifest."""
        manifest, head = self._manifest, engines["head"]
        tokens = (manifest.tokens, manifest.token_size)
        for modality in MODALITIES:
            engine = engines[modality]
            (output,) = engine.outputs.values()
            expect_tensor(engine, output, (1, *tokens))
            for name in HOST_INPUTS[modality]:
                expect_tensor(engine, engine.inputs.get(name), (1, *manifest.image_size, 3))
            ring = head.inputs.get(modality)
            expect_tensor(head, ring, (1, self._pairs(modality), *tokens))
            if ring is None or ring.dtype != output.dtype:
                raise EngineError(
                    f"the {modality} engine gives {output.dtype} and the head takes another type; build again"
                )
        (logits,) = head.outputs.values()
        expect_tensor(head, logits, (1, len(manifest.labels)))

    def _pairs(self, modality: str) -> int:
        return self._manifest.clip_length - (modality == "diff")

    def _make_ring(self, modality: str) -> list[int]:
        """Addresses of the modality's rings, one a phase, each T slots in a row."""
        size = self._pairs(modality) * self._lane(modality).output.size_bytes
        return [self._cuda.allocate(size) for _ in range(self._manifest.stride)]

    def _make_slots(self, modality: str, key: str) -> list[list[Target]]:
        step = self._runners[key].output.size_bytes
        places = range(self._pairs(modality))
        return [[Target(ring + place * step) for place in places] for ring in self._rings[modality]]

    def _make_head(self, phase: int) -> Target:
        logits = self._cuda.allocate(self._runners["head"].output.size_bytes)
        return Target(logits, {modality: self._rings[modality][phase] for modality in MODALITIES})

    def _empty_rings(self) -> None:
        for modality in MODALITIES:
            lane = self._lane(modality)
            for ring in self._rings[modality]:
                size = self._pairs(modality) * lane.output.size_bytes
                self._cuda.fill(ring, 0, size, lane.stream)
            self._cuda.synchronize(lane.stream)

    def _close_lanes(self) -> None:
        for lane in reversed(self._runners.values()):
            lane.close()
        self._runners.clear()
        self._loader = None


class TensorRTForRTX:
    """TensorRT for RTX, for GeForce and RTX cards: the engines of `velora build --for rtx`."""

    def why_not(self, bundle: Bundle, options: EngineOptions) -> str | None:
        """Why the bundle cannot run on TensorRT for RTX here as asked, or None. Loads no engine."""
        return why_not_on(RTX, bundle, options)

    def open_engine(self, bundle: Bundle, options: EngineOptions) -> TensorRTEngine:
        """The bundle's engines for this GPU, loaded; their kernels are compiled when they first run.

        Raises:
            EngineError: if there is no GPU, no TensorRT for RTX, or no engine for this GPU; or if one is not
                what the manifest says.
            BundleError: if a file is no engine.
        """
        return TensorRTEngine(bundle, options, RTX)


RTX_BACKEND = TensorRTForRTX()
