"""Whether an export is good enough: what may never be, and what the user may decide to keep all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from velora_edge.errors import EngineError

if TYPE_CHECKING:
    from velora_edge.manifest import Precision, StepLatency
    from velora_export.report.parity import Parity

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
