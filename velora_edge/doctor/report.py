"""The doctor's findings as text to paste into a bug report, and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import velora_edge

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from velora_edge.doctor.advice import Advice
    from velora_edge.doctor.probes import Finding

SCHEMA_VERSION = 1


def as_json(findings: Mapping[str, Finding], advice: Sequence[Advice]) -> dict[str, Any]:
    """Everything, for programs."""
    return {
        "v": SCHEMA_VERSION,
        "velora": velora_edge.__version__,
        "probes": {name: finding.as_dict() for name, finding in findings.items()},
        "advice": [asdict(one) for one in advice],
    }


def as_text(findings: Mapping[str, Finding], advice: Sequence[Advice]) -> str:
    """Everything, for people: a paragraph for each probe, then what to do."""
    lines = [f"velora doctor {velora_edge.__version__}"]
    for name, finding in findings.items():
        lines.append(f"\n{name}")
        if finding.problem is not None:
            lines.append(f"  probe failed: {finding.problem}")
        lines += [f"  {line}" for line in _lines(finding.facts)]
    lines.append("\nwhat to do" if advice else "\nnothing to do")
    lines += [f"  {one.level}: {one.text}\n    {one.command}" for one in advice]
    return "\n".join(lines)


def _lines(facts: Mapping[str, Any]) -> Iterator[str]:
    for key, value in facts.items():
        if isinstance(value, dict):
            yield f"{key}: {_flat(value) or 'none'}"
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            yield f"{key}:"
            yield from (f"  {_flat(item)}" for item in value)
        elif value is not None:
            yield f"{key}: {_say(value)}"


def _flat(value: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_say(item)}" for key, item in value.items() if item is not None)


def _say(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(str(item) for item in value) or "none"
    return str(value)
