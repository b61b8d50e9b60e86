"""OpenVINO on CPUs, Intel graphics and NPUs: graphs write their tokens straight into the rings' memory."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge.datatypes import MODALITIES
from velora_edge.errors import BundleError, install_line
from velora_runtime.engines.openvino_graphs import (
    LOG,
    BlobCache,
    Compiled,
    Request,
    load_core,
    share,
    why_not_precise,
)
from velora_runtime.engines.ort import CPU_STEP, INPUTS, GraphEngine, PatchLists
from velora_runtime.engines.ring import Presence, Slot, TokenMemory

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from velora_edge.bundle import Bundle, Manifest
    from velora_runtime.engines.base import EngineOptions

DEVICES = {"auto": "CPU", "cpu": "CPU", "gpu": "GPU", "npu": "NPU"}
"""OpenVINO's names; its own AUTO would start on the CPU and go over to another device by itself."""
TITLES = {"CPU": "the CPU", "GPU": "Intel graphics", "NPU": "the NPU"}


def why_not(bundle: Bundle, options: EngineOptions) -> str | None:
    """Why it cannot run here as asked, or None."""
    if importlib.util.find_spec("openvino") is None:
        return f"openvino is not installed ({install_line('openvino')})"
    if options.device not in DEVICES:
        return "this backend computes on CPUs, Intel graphics and NPUs (--device cpu, gpu or npu)"
    device, core = DEVICES[options.device], load_core()
    found = core.available_devices
    if device not in {name.partition(".")[0] for name in found}:
        return (
            f"openvino finds no {device} here, only {', '.join(found) or 'nothing'}; is its driver installed?"
        )
    return why_not_precise(
        bundle.manifest, TITLES[device], core.get_property(device, "OPTIMIZATION_CAPABILITIES")
    )


def open_engine(bundle: Bundle, options: EngineOptions) -> OpenVinoEngine:
    """The bundle's graphs, compiled by OpenVINO.

    Raises:
        EngineError: if OpenVINO cannot compile them in the bundle's precision.
        BundleError: if a graph cannot be loaded or has other inputs than a bundle's graphs have.
    """
    return OpenVinoEngine(bundle, options)


class OpenVinoEngine(GraphEngine):
    """The streaming graphs in OpenVINO; see `velora_runtime.engines.base.Engine`.

    Single-threaded: the inference thread only.

    Attributes:
        name: backend and device.
        graphs: the compiled graphs by name.
        memory: the rings' tokens.
    """

    def __init__(self, bundle: Bundle, options: EngineOptions) -> None:
        manifest, device = bundle.manifest, DEVICES[options.device]
        self.name = f"openvino on {TITLES[device]}"
        core, cache = load_core(), BlobCache.for_bundle(bundle)
        self.graphs = {name: Compiled(core, bundle, name, device, options, cache) for name in INPUTS}
        if device == "CPU":
            _tell_fallbacks(self.graphs, manifest)
        sizes = (manifest.stride, manifest.clip_length, manifest.tokens, manifest.token_size)
        self.memory = TokenMemory(*sizes, _token_type(self.graphs, bundle))
        self._manifest = manifest
        self._lists = PatchLists(manifest, CPU_STEP)
        towers = {name: self.graphs[name] for name in MODALITIES}
        if manifest.precision == "int8":  # without a length, scales are multiplied apart: 10 % of a tower
            for name in filter(self._lists.takes, MODALITIES):
                every = self._lists.lengths[-1]
                towers[self._lists.key(name, every)] = Compiled(
                    core, bundle, name, device, options, cache, length=every
                )
        self._presence = Presence.none(manifest.clip_length)
        self._logits = np.zeros(len(manifest.labels), np.float32)
        self._runners = {key: graph.request() for key, graph in towers.items()}
        self._slots = {
            key: [[share(slot) for slot in ring] for ring in getattr(self.memory, graph.name)]
            for key, graph in towers.items()
        }
        self._heads = [self._bind_head(phase) for phase in range(manifest.stride)]
        self._out = share(self._logits)

    def _key(self, modality: str, length: int) -> str:
        """A graph takes lists of any length; where all patches have one of their own, it is taken."""
        key = self._lists.key(modality, length)
        return key if key in self._runners else modality

    def decide(self, phase: int, presence: Presence) -> NDArray[np.float32]:
        """The logits of one ring's clip, float32[K]; valid until the next call."""
        self._presence.rgb[:], self._presence.event[:] = presence.rgb, presence.event
        self._presence.diff[:] = presence.diff
        self._heads[phase].run(self._out)
        return self._logits

    def warm_up(self) -> None:
        """Run every graph once and leave the rings empty."""
        blank = np.zeros((*self._manifest.image_size, 3), np.uint8)
        for modality in MODALITIES:
            for length in self._lists.lengths if self._lists.takes(modality) else (0,):
                self.encode(modality, [blank] * len(INPUTS[modality]), Slot(0, 0, 0), np.arange(length))
        for head in self._heads:
            head.run(self._out)
        self.memory.clear()

    def close(self) -> None:
        """Let go of requests and compiled graphs, in that order."""
        for held in (self._slots, self._heads, self._runners, self.graphs):
            held.clear()

    def _bind_head(self, phase: int) -> Request:
        """A request on one phase's rings, bound once: they lie in the same memory for ever."""
        present = self._presence
        arrays = (
            *(tokens[phase] for tokens in (self.memory.rgb, self.memory.event, self.memory.diff)),
            *(present.rgb, present.event, present.diff),
        )
        head = self.graphs["head"].request()
        for name, array in zip(INPUTS["head"], arrays, strict=True):
            head.feed(name, array)
        return head


def _tell_fallbacks(graphs: dict[str, Compiled], manifest: Manifest) -> None:
    """Say so where int8 layers were compiled to floats."""
    calibration = None if manifest.report is None else manifest.report.calibration
    if manifest.precision != "int8" or calibration is None:
        return
    found = sum(graph.count_int8() for graph in graphs.values())
    if found < calibration.layers:
        LOG.warning(
            "openvino computes %d of %d int8 layers in floats", calibration.layers - found, calibration.layers
        )


def _token_type(graphs: dict[str, Compiled], bundle: Bundle) -> np.dtype[Any]:
    """The type of tokens that the towers give and the head takes.

    Raises:
        BundleError: if they do not agree.
    """
    given = {graphs[name].token_type for name in MODALITIES}
    taken = {np.dtype(graphs["head"].model.input(name).element_type.to_dtype()) for name in MODALITIES}
    if len(given | taken) != 1:
        raise BundleError(
            f"towers give tokens of {', '.join(sorted(map(str, given)))}, "
            f"the head takes {', '.join(sorted(map(str, taken)))}",
            path=bundle.path,
            place="head.onnx",
            remedy="export the model again",
        )
    return given.pop()
