"""Report of an export, and its acceptance: parity, accuracy, size and latency against limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from velora_edge.clock import time_in_turn
from velora_edge.doctor.host import system
from velora_edge.errors import EngineError
from velora_edge.manifest import Report, StepLatency
from velora_export.evaluation.parity import make_step, measure_parity, processor
from velora_export.evaluation.sessions import Sessions
from velora_export.precision.precisions import folder_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from velora_edge.manifest import Calibration, Manifest, Precision
    from velora_edge.model.velora import VELoRA
    from velora_export.evaluation.parity import Parity
    from velora_export.evaluation.sessions import Clips


ABSOLUTE = 1e-4
"""Largest difference of a logit that merging LoRA may make, and an fp32 export."""
RELATIVE = {"fp16": 2e-2, "bf16": 1e-1}
"""The same of other precisions, as a share of the largest logit. int8 and fp8 are judged by their labels."""
POINTS = 0.5
"""Percentage points of accuracy that an export may lose."""


def tolerance(precision: Precision) -> float:
    """What differences are held against, for the record; 0 where they are not."""
    return ABSOLUTE if precision == "fp32" else RELATIVE.get(precision, 0.0)


def check_model(parity: Parity, precision: Precision) -> None:
    """Refuse what is not the model, whatever the user says.

    Raises:
        EngineError: if merging, or an fp32 export, changes the logits; or if one is no number.
    """
    figures = {"merged": parity.merged}
    if precision == "fp32":
        figures |= {"onnx": parity.onnx, "streaming": parity.streaming}
    for name, difference in figures.items():
        if not difference <= ABSOLUTE:  # a NaN is refused too
            raise EngineError(
                f"the export is not the model: {name} logits are {difference:.2g} away on {parity.clips} "
                f"clips ({parity.source}), allowed {ABSOLUTE:.0e}; report it with the model"
            )
    if not parity.onnx + parity.streaming < float("inf"):
        wider = "bf16" if precision in ("fp16", "fp8") else "fp32"
        raise EngineError(
            f"{precision} logits are no numbers on {parity.clips} clips ({parity.source}): values leave "
            f"the range of {precision}; export with --precision {wider}"
        )


def find_objections(
    parity: Parity, precision: Precision, latency: StepLatency | None, *, trained: bool
) -> tuple[str, ...]:
    """Reasons not to keep an export, with their figures; the user may override them.

    Args:
        parity: of its logits.
        precision: of the export.
        latency: of a step, where it was measured.
        trained: False for random weights, whose labels mean nothing.
    """
    objections = [*_far_away(parity, precision)]
    if precision != "fp32" and trained and parity.is_real:
        objections += _lost_labels(parity, precision)
    if latency is not None and latency.p50_ms >= (latency.fp32_p50_ms or float("inf")):
        objections.append(
            f"{precision} is no faster here: a step takes {latency.p50_ms:.1f} ms, in fp32 "
            f"{latency.fp32_p50_ms:.1f} ms ({latency.machine})"
        )
    return tuple(objections)


def check_objections(objections: tuple[str, ...], *, force: bool) -> None:
    """Refuse an export that there are objections to, unless the user wants it all the same.

    Raises:
        EngineError: with the reasons.
    """
    if objections and not force:
        raise EngineError(f"{'; '.join(objections)}; --force exports it all the same")


def _far_away(parity: Parity, precision: Precision) -> list[str]:
    allowed = RELATIVE.get(precision)
    if allowed is None or max(parity.onnx, parity.streaming) <= allowed * parity.largest:
        return []
    share = max(parity.onnx, parity.streaming) / max(parity.largest, 1e-12)
    return [
        f"{precision} logits are {share:.2g} of the largest one away from torch's on {parity.clips} clips "
        f"({parity.source}), allowed {allowed:.0e}"
    ]


def _lost_labels(parity: Parity, precision: Precision) -> list[str]:
    if parity.accuracy is not None:
        told = parity.accuracy
        lost = (told.torch - told.exported) * 100
        if lost <= POINTS + 1e-9:
            return []
        return [
            f"{precision} loses {lost:.1f} points of accuracy: {told.exported:.1%} of {told.clips} clips are "
            f"told right, in fp32 {told.torch:.1%} ({parity.source}); allowed {POINTS} points"
        ]
    changed = (1 - parity.top1_agreement) * 100
    if changed <= POINTS + 1e-9:
        return []
    return [
        f"{precision} tells another label for {changed:.1f} % of {parity.clips} clips without labels "
        f"({parity.source}); allowed {POINTS} %"
    ]


STEP_SECONDS, BESIDE_SECONDS = 2.0, 8.0
"""Streaming steps are timed for so long; longer beside fp32, where times decide whether int8 is kept."""


@dataclass(frozen=True)
class Measured:
    """Measured values of an export.

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
    has_halves = calibration is not None and calibration.floats != "fp32"
    is_bf16 = "bf16" in (precision, calibration.floats if calibration is not None else "")
    is_for_others = precision in ("bf16", "fp8") or has_halves  # ONNX Runtime has no such kernels for a CPU
    latency = None if is_for_others else measure_latency(measured, sessions)
    objections = find_objections(parity, precision, latency, trained=manifest.weights.trained)
    check_objections(objections, force=force)
    return Report(
        source=parity.source,
        clips=parity.clips,
        runtime=sessions.runtime + (", rounded to bf16 after each operator" if is_bf16 else ""),
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
    times = time_in_turn(steps, STEP_SECONDS if len(steps) == 1 else BESIDE_SECONDS)
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
