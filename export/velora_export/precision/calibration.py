"""Calibration of a quantised model: ranges of activations from histograms of its linear layers' inputs."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import onnx_ir as ir

from velora_edge.datatypes import MODALITIES
from velora_edge.ort import open_session, session_options
from velora_export.evaluation.sessions import Sessions, clip_runs, head_inputs, stream_clip
from velora_export.precision.linear_layers import LayerKey, linear_layers
from velora_export.precision.precisions import FORMATS, STREAMING, convert
from velora_export.precision.quantization import AbsHistogram

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from numpy.typing import NDArray

    from velora_edge.bundle import Precision
    from velora_export.evaluation.sessions import Clips
    from velora_export.precision.quantization import Method


Histograms = dict[LayerKey, AbsHistogram]


def observe(folder: Path, clips: Clips, tick: Callable[[], None], *, threads: int = 0) -> Histograms:
    """Histograms of the input of every linear layer of the streaming graphs.

    Args:
        folder: of fp32 graphs.
        clips: real ones.
        tick: called after each clip.
        threads: for the arithmetic; 0: all cores.
    """
    finder = Sessions(folder).finder
    watched = {graph: _Watched(folder, graph, threads) for graph in (*MODALITIES, "head")}
    for rgb, event in zip(clips.rgb, clips.event, strict=True):
        flags = clips.flags()
        tokens: dict[str, list[NDArray[np.float32]]] = defaultdict(list)
        for graph, inputs in clip_runs(rgb, event, flags, finder):
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


COMPARED = 8
"""Clips that the methods are tried on."""


@dataclass(frozen=True)
class Ranges:
    """Ranges that eight bits cover.

    Attributes:
        method: that chose them.
        thresholds: by layer, the absolute activation that becomes the largest number.
    """

    method: Method
    thresholds: dict[LayerKey, float]


def calibrate(
    staged: Path,
    clips: Clips,
    method: Literal["auto"] | Method,
    tick: Callable[[], None] = lambda: None,
    *,
    precision: Precision = "int8",
) -> Ranges:
    """Observe a model and choose its ranges.

    Args:
        staged: folder of its fp32 graphs.
        clips: real ones.
        method: `auto` quantises by each of the format's methods, and takes the one whose logits are nearest
            those of fp32.
        tick: called after each clip.
        precision: int8 or fp8.
    """
    histograms = observe(staged, clips, tick)
    if method != "auto":
        return _ranges(histograms, method)
    few = clips.first(COMPARED)
    wanted = _logits(staged, few)
    tried = [_ranges(histograms, each) for each in FORMATS[precision].methods]
    return min(tried, key=lambda ranges: _distance(staged, precision, ranges, few, wanted))


def _ranges(histograms: Histograms, method: Method) -> Ranges:
    return Ranges(method, {key: found.threshold(method) for key, found in histograms.items()})


def _distance(
    staged: Path, precision: Precision, ranges: Ranges, clips: Clips, wanted: NDArray[np.float32]
) -> float:
    """Root mean square of the logits' differences to fp32; the other layers compute in fp32 too."""
    with tempfile.TemporaryDirectory(dir=staged) as name:
        folder, thresholds = Path(name), ranges.thresholds
        convert(staged, folder, precision, {}, thresholds=thresholds, floats="fp32", graphs=STREAMING)
        given = _logits(folder, clips)
    return float(np.sqrt(np.square(given - wanted).mean()))


def _logits(folder: Path, clips: Clips) -> NDArray[np.float32]:
    sessions = Sessions(folder)
    pairs = zip(clips.rgb, clips.event, strict=True)
    return np.concatenate([stream_clip(sessions, rgb, event, clips.flags()) for rgb, event in pairs])
