"""Engines that the GPU check runs: built here by TensorRT, prepared or built here by TensorRT for RTX."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Any

from gpu_prepare import build_engine
from gpu_ways import Plan
from velora_export.tensorrt.tensorrt_builder import BuildOptions, BuildProgress, PlanBuilder
from velora_export.tensorrt.tensorrt_engines import BundleBuilder, this_gpu
from velora_export.tensorrt.tensorrt_layers import judge_layers, parse_builder_list, read_stated_types
from velora_export.tensorrt.tensorrt_parity import noise_clips

from velora_edge.bundle import GRAPHS, open_bundle
from velora_edge.errors import EngineError
from velora_edge.gpu.kinds import RTX, TENSORRT, Messages, version_of, why_not_rtx
from velora_edge.gpu.matching import choose_engines, find_machine, network_name, read_engine, why_no_tensorrt
from velora_edge.gpu.signing import TRUST_VARIABLE, find_signer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from velora_edge.bundle import Bundle, EngineFile
    from velora_edge.gpu.matching import Machine
    from velora_edge.manifest import CompiledLayers


class TensorRTPlans:
    """Engines by TensorRT, built where they are not there yet: minutes for a large model.

    Attributes:
        note: what is to be known of them.
        layers: what they compute in.

    Raises:
        EngineError: if there is no GPU, no TensorRT, or if it refuses.
    """

    def __init__(self, bundle: Bundle) -> None:
        reason = why_no_tensorrt()
        if reason is not None:
            raise EngineError(reason)
        clips = noise_clips(bundle.manifest, count=1)
        with BundleBuilder(bundle, BuildOptions(), clips, this_gpu()) as builder:
            for graph in GRAPHS:
                build_engine(builder, graph)
        self._bundle = open_bundle(bundle.path)
        self.note = ""
        self._entries = choose_engines(self._bundle, find_machine(kind=TENSORRT), GRAPHS)
        self.layers = describe_layers(entry.compiled for entry in self._entries.values())

    def __call__(self, machine: Machine) -> Mapping[str, Plan]:
        """The plans by graph."""
        return _read(self._bundle, self._entries)


class RtxPlans:
    """Engines by TensorRT for RTX: the prepared ones where they are for this GPU.

    On a GPU that production refuses they are built for what is here (the target CURRENT), and where that is
    refused, those of the nearest target below are tried: what happens is what this is about.

    Attributes:
        note: what is to be known of them, such as that production refuses the GPU.
        layers: what they compute in.

    Raises:
        EngineError: if there is no GPU, no TensorRT for RTX, or if it refuses everything.
    """

    def __init__(self, bundle: Bundle) -> None:
        reason = why_no_tensorrt(kind=RTX)
        if reason is not None:
            raise EngineError(reason)
        trust(bundle)
        machine = find_machine(kind=RTX)
        refusal = why_not_rtx(machine.compute_capability)
        self.note, entries = f"production says: {refusal}; " if refusal else "", {}
        if not refusal:
            try:
                entries = choose_engines(bundle, machine, GRAPHS)
            except EngineError:  # none was prepared for this GPU and version: one is built here
                self.note = "none prepared; "
        if entries:
            self.layers = describe_layers(entry.compiled for entry in entries.values())
            self._plans = _read(bundle, entries)
        else:
            self._try_here(bundle, machine)

    def __call__(self, machine: Machine) -> Mapping[str, Plan]:
        """The plans by graph."""
        return self._plans

    def _try_here(self, bundle: Bundle, machine: Machine) -> None:
        try:
            self._plans, compiled = build_current(bundle)
        except EngineError as error:
            nearest, entries = _nearest(bundle, machine)
            if not entries:
                raise EngineError(f"{self.note}built for CURRENT: {error}") from error
            self.note += f"built for CURRENT: {error}; so the engines for {nearest} are tried"
            self._plans = _read(bundle, entries)
            self.layers = describe_layers(entry.compiled for entry in entries.values())
        else:
            self.note += "built for CURRENT"
            self.layers = describe_layers(compiled)


class _CurrentBuilder(PlanBuilder):
    """Builds for the GPU that is here, by whatever name TensorRT for RTX has for it."""

    def _set_targets(self, config: Any) -> None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(self._trt.ComputeCapability.CURRENT, 0)


def build_current(bundle: Bundle) -> tuple[dict[str, Plan], list[CompiledLayers]]:
    """Plans of all graphs for this GPU, and what their layers compute in.

    Raises:
        EngineError: in the words of TensorRT for RTX.
    """
    messages, precision = Messages(), bundle.manifest.precision
    builder = _CurrentBuilder(BuildOptions(), messages, kind=RTX, targets=("CURRENT",))
    plans, compiled = {}, []
    for graph in GRAPHS:
        name = network_name(graph, precision, "")
        plans[graph] = Plan(builder.build(bundle.graph(graph), name, precision, BuildProgress()), name)
        layers = parse_builder_list(messages.take_layers())
        if layers:
            compiled.append(judge_layers(layers, read_stated_types(bundle.graph(graph))))
    return plans, compiled


def _nearest(bundle: Bundle, machine: Machine) -> tuple[str, dict[str, EngineFile]]:
    """The prepared engines with the highest target that is not above the machine's, and that target."""
    here = version_of(machine.compute_capability)
    best, entries = "", {}
    for entry in bundle.manifest.engines:
        below = [target for target in entry.targets if version_of(target) <= here]
        if entry.kind == RTX.name and below:
            best = max(below, key=version_of)
            entries[entry.graph] = entry
    return best, entries if set(entries) == set(GRAPHS) else {}


def _read(bundle: Bundle, entries: Mapping[str, EngineFile]) -> dict[str, Plan]:
    precision = bundle.manifest.precision
    return {
        graph: Plan(
            read_engine(bundle.path, entry),
            network_name(graph, precision, entry.model),
            entry.version_compatible,
        )
        for graph, entry in entries.items()
    }


def trust(bundle: Bundle) -> None:
    """Trust the keys that signed the bundle's engines, in this process: who names a folder trusts it."""
    keys = {signer for entry in bundle.manifest.engines if (signer := find_signer(entry)) is not None}
    known = os.environ.get(TRUST_VARIABLE, "").split(",")
    os.environ[TRUST_VARIABLE] = ",".join(sorted(keys | {key for key in known if key}))


def describe_layers(compiled: Iterable[CompiledLayers | None]) -> str:
    """One line of all graphs: types of products, attention fused, what fell back to a wider type."""
    found = [layers for layers in compiled if layers is not None]
    if not found:
        return "not told"
    products: Counter[str] = Counter()
    for layers in found:
        products.update(layers.products)
    told = ", ".join(f"{count} {dtype}" for dtype, count in products.most_common())
    fused, attention = (sum(getattr(layers, name) for layers in found) for name in ("fused", "attention"))
    fallbacks = sum(len(layers.fallbacks) for layers in found)
    return f"products {told}; attention fused {fused}/{attention}; {fallbacks} fell back"
