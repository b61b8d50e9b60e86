"""What flows into the linear layers of a model's streaming graphs while they see real clips."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from velora_edge.datatypes import MODALITIES
from velora_edge.ort import open_session, session_options
from velora_export.cpu_run.streaming import clip_runs, head_inputs
from velora_export.precision.histograms import AbsHistogram
from velora_export.precision.linear_layers import LayerKey, linear_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

    from velora_export.cpu_run.clips import Clips

Histograms = dict[LayerKey, AbsHistogram]


def observe(folder: Path, clips: Clips, tick: Callable[[], None], *, threads: int = 0) -> Histograms:
    """Histograms of the input of every linear layer of the streaming graphs.

    Args:
        folder: of fp32 graphs.
        clips: real ones.
        tick: called after each clip.
        threads: for the arithmetic; 0: all cores.
    """
    watched = {graph: _Watched(folder, graph, threads) for graph in (*MODALITIES, "head")}
    for rgb, event in zip(clips.rgb, clips.event, strict=True):
        flags = clips.flags()
        tokens: dict[str, list[NDArray[np.float32]]] = defaultdict(list)
        for graph, inputs in clip_runs(rgb, event, flags):
            tokens[graph].append(watched[graph].run(inputs))
        watched["head"].run(head_inputs(tokens, flags))
        tick()
    return {key: found for graph in watched.values() for key, found in graph.histograms().items()}


class _Watched:
    """One graph with its layers' inputs among its outputs."""

    def __init__(self, folder: Path, graph: str, threads: int) -> None:
        model = ir.load(folder / f"{graph}.onnx")
        self._layers = {layer.key: layer.activation for layer in linear_layers(model.graph, graph)}
        names = dict.fromkeys(str(value.name) for value in self._layers.values())
        shown = dict.fromkeys(self._layers.values())
        model.graph.outputs.extend(value for value in shown if not value.is_graph_output())
        proto = ir.to_proto(model).SerializeToString()
        self._session = open_session(proto, session_options(threads), weights=folder)
        self._names = [self._session.get_outputs()[0].name, *names]
        self._found = {name: AbsHistogram() for name in names}

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """The graph's own output; counts what flowed."""
        output, *seen = self._session.run(self._names, dict(inputs))
        for histogram, values in zip(self._found.values(), seen, strict=True):
            histogram.add(values)
        return np.asarray(output, np.float32)

    def histograms(self) -> Histograms:
        return {key: self._found[str(value.name)] for key, value in self._layers.items()}
