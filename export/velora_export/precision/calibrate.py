"""Ranges of a quantised model's activations: observed on real clips, by the method that costs least."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from velora_export.cpu_run.sessions import Sessions
from velora_export.cpu_run.streaming import stream_clip
from velora_export.precision.observe import observe
from velora_export.precision.precisions import FORMATS, STREAMING, convert

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from velora_edge.bundle import Precision
    from velora_export.cpu_run.clips import Clips
    from velora_export.precision.histograms import Method
    from velora_export.precision.linear_layers import LayerKey
    from velora_export.precision.observe import Histograms

COMPARED = 8
"""Clips that the methods are tried on."""


@dataclass(frozen=True)
class Ranges:
    """What eight bits are to cover.

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
