"""Older manifests brought up to date: one step a schema version, as many as it takes.

A step takes the object that `manifest.json` holds and gives the one of the next version. It is one function,
and one line in `STEPS`; it never looks at other files, and never changes once its version was released.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from velora_edge.manifest import SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable

Raw = dict[str, Any]


def migrate(raw: Raw) -> Raw:
    """A manifest of the present version made from one of any version from 1 on; `raw` is not changed."""
    version = int(raw["schema_version"])
    while version < SCHEMA_VERSION:
        raw = STEPS[version]({**raw})
        version += 1
        raw["schema_version"] = version
    return raw


def _reports_are_typed(raw: Raw) -> Raw:
    """1 to 2: figures of one precision's parity, in a table without a form, became a report."""
    parity = raw.pop("parity", None)
    figures = parity.get(raw.get("precision", "fp32")) if isinstance(parity, dict) else None
    if figures:
        raw["report"] = {"runtime": "ONNX Runtime on the CPU", **figures}
    return raw


def _engines_have_kinds(raw: Raw) -> Raw:
    """2 to 3: engines may be of TensorRT for RTX and tell of their layers; none did before."""
    return raw


STEPS: dict[int, Callable[[Raw], Raw]] = {1: _reports_are_typed, 2: _engines_have_kinds}
"""By the version that a step starts from."""
