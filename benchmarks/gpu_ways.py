"""Backends of the GPU check, each opened on a bundle: a streaming step, a whole clip, and the host's share.

What a step is: the newest pair's images in host memory, through three towers and the head, to logits in host
memory. Production's own engines run it; the clip graph, which production does not run live, goes beside them.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from velora_runtime.engines import ort_cuda
from velora_runtime.engines.base import EngineOptions
from velora_runtime.engines.ort_cuda import DEVICE, Place, allocate
from velora_runtime.engines.ring import ClipRing
from velora_runtime.engines.tensorrt import TensorRTEngine
from velora_runtime.engines.tensorrt_lane import Lane, Target

from velora_edge import ort
from velora_edge.errors import EngineError
from velora_edge.gpu.engine import KernelCache, kernel_cache_path
from velora_edge.gpu.kinds import RTX, TENSORRT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray
    from velora_runtime.engines.ort import GraphEngine

    from velora_edge.bundle import Bundle
    from velora_edge.gpu.cuda import Cuda
    from velora_edge.gpu.engine import EngineLoader, LoadedEngine
    from velora_edge.gpu.kinds import Kind
    from velora_edge.gpu.matching import Machine


@dataclass(frozen=True)
class Pairs:
    """The images that every backend is given: rgb and event, uint8[T, H, W, 3]."""

    rgb: NDArray[np.uint8]
    event: NDArray[np.uint8]

    def clip(self) -> dict[str, NDArray[Any]]:
        """Inputs of the clip graph, batch 1."""
        flags = np.ones((1, len(self.rgb)), np.float32)
        images = {"rgb": self.rgb[None], "event": self.event[None]}
        return {**images, "rgb_present": flags, "event_present": flags}


@dataclass(frozen=True)
class Plan:
    """An engine's bytes and how they are loaded.

    Attributes:
        data: the plan.
        name: what the engine must be called.
        host_code: it brings code for the CPU along.
    """

    data: bytes
    name: str
    host_code: bool = False


class Stream:
    """Pairs into a production engine, one after the other, round and round; single-threaded.

    Args:
        engine: warmed up.
        pairs: stride 1.
    """

    def __init__(self, engine: GraphEngine, pairs: Pairs) -> None:
        self._engine, self._pairs = engine, pairs
        self._ring = ClipRing(len(pairs.rgb))

    def step(self) -> NDArray[np.float32]:
        """The logits after the next pair; of the pairs' own clip after the last of the first round."""
        rgb, event = self._pairs.rgb, self._pairs.event
        new, old = self._ring.pairs % len(rgb), (self._ring.pairs - 1) % len(rgb)
        entry = self._ring.enter(rgb=True, event=True)
        self._engine.encode("rgb", (rgb[new],), entry.slot)
        self._engine.encode("event", (event[new],), entry.slot)
        if entry.rgb_moved or entry.event_moved:
            self._engine.encode("diff", (rgb[new], rgb[old], event[new], event[old]), entry.slot)
        return self._decide(entry.slot.phase)

    def first_clip(self) -> NDArray[np.float32]:
        """The logits when the first clip is full."""
        for _ in self._pairs.rgb[1:]:
            self.step()
        return self.step().copy()

    def _decide(self, phase: int) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = self._engine.decide(phase, self._ring.presence[phase])  # type: ignore[attr-defined]
        return logits


class CheckedEngine(TensorRTEngine):
    """Production's engine with the clip's beside it, on plans that the caller chose.

    Args:
        bundle: the model.
        kind: TensorRT, or TensorRT for RTX.
        cuda_graph: replay runs as CUDA graphs.
        plans: gives the plans of all five graphs for a machine.
    """

    def __init__(
        self, bundle: Bundle, kind: Kind, plans: Callable[[Machine], Mapping[str, Plan]], *, cuda_graph: bool
    ) -> None:
        self._plans = plans
        super().__init__(bundle, EngineOptions(device="cuda", cuda_graph=cuda_graph), kind)
        self.waits = Waits(self._cuda)
        self.clip = Lane(self._cuda, self._clip, tuple(self._clip.inputs))
        self._clip_target = Target(self._cuda.allocate(self.clip.output.size_bytes))

    def _load(self, bundle: Bundle, loader: EngineLoader, machine: Machine) -> dict[str, LoadedEngine]:
        engines = {
            graph: loader.load(
                plan.data, plan.name, host_code=plan.host_code, cache=_kernels(machine, plan.data)
            )
            for graph, plan in self._plans(machine).items()
        }
        self._clip = engines.pop("clip")
        return engines

    def warm_clip(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        """Feed and run the clip once, recorded where CUDA graphs are wanted.

        Raises:
            EngineError: if it cannot be recorded.
        """
        for name, array in inputs.items():
            self.clip.feed(name, array)
        if self._wants_graphs:
            self.clip.record(self._clip_target)
        else:
            self.clip.check(self._clip_target)

    def run_clip(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """The clip's logits [K]."""
        for name, array in inputs.items():
            self.clip.feed(name, array)
        self.clip.run(self._clip_target)
        return self.clip.read(self._clip_target)[0]

    def close(self) -> None:
        """Let go of the clip's engine, then of the others."""
        self.clip.close()
        super().close()


def _kernels(machine: Machine, plan: bytes) -> KernelCache | None:
    digest = hashlib.sha256(plan).hexdigest()
    return KernelCache(kernel_cache_path(machine, digest)) if machine.kind is RTX else None


class Waits:
    """Time that the host spends in a `Cuda`'s blocking calls.

    Attributes:
        seconds: so far.
    """

    def __init__(self, cuda: Cuda) -> None:
        self.seconds = 0.0
        for name in ("synchronize", "synchronize_event"):
            setattr(cuda, name, self._timed(getattr(cuda, name)))

    def _timed(self, call: Callable[[int], None]) -> Callable[[int], None]:
        def timed(handle: int) -> None:
            start = time.perf_counter()
            call(handle)
            self.seconds += time.perf_counter() - start

        return timed


class TensorRTWay:
    """A bundle on TensorRT or TensorRT for RTX.

    Attributes:
        note: what is to be known of it.
    """

    def __init__(
        self,
        bundle: Bundle,
        pairs: Pairs,
        plans: Callable[[Machine], Mapping[str, Plan]],
        *,
        cuda_graph: bool,
        kind: Kind = TENSORRT,
    ) -> None:
        self._engine = CheckedEngine(bundle, kind, plans, cuda_graph=cuda_graph)
        self._engine.warm_up()
        self._stream, self._inputs = Stream(self._engine, pairs), pairs.clip()
        self.has_graphs, self.step = self._engine.has_graphs, self._stream.step
        self.note = "" if self.has_graphs is cuda_graph else "CUDA graphs could not be recorded"
        self.first_clip = self._stream.first_clip

    def warm_clip(self) -> None:
        """Make the clip ready."""
        self._engine.warm_clip(self._inputs)

    def clip(self) -> NDArray[np.float32]:
        """The clip's logits [K]."""
        return self._engine.run_clip(self._inputs)

    def host_ms(self, run: Callable[[], object], runs: int) -> float:
        """Median of the time in which the host did not wait for the GPU in a run."""
        waits, taken = self._engine.waits, []
        for _ in range(runs):
            waits.seconds, start = 0.0, time.perf_counter()
            run()
            taken.append(time.perf_counter() - start - waits.seconds)
        return float(np.median(taken)) * 1e3

    def close(self) -> None:
        """Give the GPU's memory back."""
        self._engine.close()


class OrtWay:
    """A bundle on ONNX Runtime's CUDA provider; every node on the GPU, or it does not open."""

    def __init__(self, bundle: Bundle, pairs: Pairs, *, cuda_graph: bool) -> None:
        options = EngineOptions(device="cuda", cuda_graph=cuda_graph)
        reason = ort_cuda.why_not(bundle, options)
        if reason is not None:
            raise EngineError(reason)
        self._bundle, self._pairs = bundle, pairs
        self._engine = ort_cuda.open_engine(bundle, options)
        self._engine.warm_up()
        self._stream = Stream(self._engine, pairs)
        self.has_graphs, self.step = self._engine.has_graphs, self._stream.step
        self.note = "" if self.has_graphs is cuda_graph else "CUDA graphs could not be recorded"
        self.first_clip = self._stream.first_clip

    def warm_clip(self) -> None:
        """Open the clip's graph and run it; with CUDA graphs a second time, which replays."""
        self._clip = OrtClip(self._bundle, self._pairs.clip(), cuda_graph=self.has_graphs)
        self._clip.run()
        self._clip.run()

    def clip(self) -> NDArray[np.float32]:
        """The clip's logits [K]."""
        return self._clip.run()

    def host_ms(self, run: Callable[[], object], runs: int) -> float | None:
        """Not told: ONNX Runtime waits for the GPU inside each call."""
        return None

    def close(self) -> None:
        """Give the GPU's memory back."""
        self._engine.close()


class OrtClip:
    """The clip graph on ONNX Runtime's CUDA provider, all addresses bound; inputs are copied at each run."""

    def __init__(self, bundle: Bundle, inputs: Mapping[str, NDArray[Any]], *, cuda_graph: bool) -> None:
        options = ort.session_options()
        options.add_free_dimension_override_by_name("batch", 1)
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        providers = ort_cuda.cuda_providers(bundle.manifest, cuda_graph=cuda_graph)
        self._session = ort.open_session(bundle.graph("clip"), options, providers)
        self._arrays = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        self._values = {name: allocate(array.shape, array.dtype) for name, array in inputs.items()}
        self._place = Place(allocate((1, len(bundle.manifest.labels)), np.float32), np.dtype(np.float32))
        self._binding = self._session.io_binding()
        for name, value in self._values.items():
            self._binding.bind_ortvalue_input(name, value)
        place, output = self._place, self._session.get_outputs()[0].name
        self._binding.bind_output(output, DEVICE, 0, place.dtype.type, place.shape, place.address)
        self._options = ort.load_runtime("inference").RunOptions()
        self._options.add_run_config_entry("gpu_graph_id", "1" if cuda_graph else "-1")

    def run(self) -> NDArray[np.float32]:
        """The logits [K]."""
        for name, array in self._arrays.items():
            self._values[name].update_inplace(array)
        self._session.run_with_iobinding(self._binding, self._options)
        logits: NDArray[np.float32] = self._place.read()[0]
        return logits
