"""What an export's report says: parity, accuracy, size and latency, and whether the export is to be kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from velora_edge.doctor.host import system
from velora_edge.manifest import Report, StepLatency
from velora_edge.turns import time_in_turn
from velora_export.cpu_run.sessions import Sessions
from velora_export.precision.precisions import folder_bytes
from velora_export.report.latency import make_step, processor
from velora_export.report.parity import measure_parity
from velora_export.report.verdict import check_model, check_objections, find_objections, tolerance

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from velora_edge.manifest import Calibration, Manifest
    from velora_edge.model.velora import VELoRA
    from velora_export.cpu_run.clips import Clips
    from velora_export.report.parity import Parity

STEP_SECONDS = 8.0
"""Streaming steps are timed for so long."""


@dataclass(frozen=True)
class Measured:
    """What is compared.

    Attributes:
        model: in torch, fp32, with its LoRA apart.
        merged: the same, merged, in the form that was traced.
        folder: of the exported graphs.
        staged: of the same graphs in fp32; the same folder, where that is what was exported.
        manifest: the bundle's, without its report.
    """

    model: VELoRA
    merged: VELoRA
    folder: Path
    staged: Path
    manifest: Manifest


def write_report(
    measured: Measured,
    clips: Clips,
    calibration: Calibration | None,
    say: Callable[[str], None],
    *,
    force: bool,
) -> Report:
    """Measure an export, refuse it where it is not the model or not worth keeping, and tell the figures.

    Raises:
        EngineError: if it is refused.
    """
    manifest, precision = measured.manifest, measured.manifest.precision
    say(f"parity with torch on {len(clips)} clips: {clips.source}")
    sessions = Sessions(measured.folder)
    parity = measure_parity(measured.model, measured.merged, sessions, clips)
    check_model(parity, precision)
    say("latency of a streaming step")
    has_halves = calibration is not None and calibration.floats == "fp16"
    for_gpu = precision in ("bf16", "fp8") or has_halves
    latency = None if for_gpu else measure_latency(measured, sessions)
    objections = find_objections(parity, precision, latency, trained=manifest.weights.trained)
    check_objections(objections, force=force)
    return Report(
        source=parity.source,
        clips=parity.clips,
        runtime=sessions.runtime + (", rounded to bf16 after each operator" if precision == "bf16" else ""),
        **_figures(parity),
        tolerance=tolerance(precision),
        accuracy=parity.accuracy,
        graph_bytes=folder_bytes(measured.folder),
        latency=latency,
        calibration=calibration,
        overridden=objections,
    )


def measure_latency(measured: Measured, sessions: Sessions) -> StepLatency:
    """Times of a streaming step here, int8 beside fp32."""
    manifest = measured.manifest
    steps = [make_step(sessions, manifest)]
    if manifest.precision == "int8":
        steps.append(make_step(Sessions(measured.staged), manifest))
    times = time_in_turn(steps, STEP_SECONDS)
    p50_ms, p99_ms = np.percentile(times[0], [50, 99])
    return StepLatency(
        runtime=sessions.runtime,
        machine=processor(),
        threads=sessions.threads or int(system()["cores"]),
        steps=len(times[0]),
        p50_ms=_rounded(p50_ms),
        p99_ms=_rounded(p99_ms),
        fp32_p50_ms=_rounded(np.percentile(times[1], 50)) if len(times) > 1 else None,
    )


def _figures(parity: Parity) -> dict[str, float]:
    share = parity.onnx / max(parity.largest, 1e-12)
    return {
        "merged": _rounded(parity.merged),
        "onnx": _rounded(parity.onnx),
        "relative": _rounded(share),
        "streaming": _rounded(parity.streaming),
        "top1_agreement": parity.top1_agreement,
    }


def _rounded(value: float) -> float:
    """To what a figure can say."""
    return float(f"{value:.3g}")
