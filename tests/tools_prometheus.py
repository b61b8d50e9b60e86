"""Prometheus' own parser, made easy to ask."""

from __future__ import annotations

from typing import Any


def parse(text: str) -> dict[tuple[Any, ...], float]:
    """Value by name and labels: (name, label, value, label, value, ...), labels in alphabetical order."""
    from prometheus_client.parser import text_string_to_metric_families

    return {
        (sample.name, *(part for pair in sorted(sample.labels.items()) for part in pair)): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
