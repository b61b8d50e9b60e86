"""VELoRA-edge: recognition from an RGB camera and an event camera, live."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "frames", "load_model", "open_bundle", "open_events", "pairs"]

if TYPE_CHECKING:
    from velora_edge.bundle import open_bundle
    from velora_edge.events.accumulate.frames import frames
    from velora_edge.events.registry import open_events
    from velora_edge.model.checkpoint import load_model
    from velora_edge.preprocessing.pairs import pairs

_HOMES = {
    "frames": "velora_edge.events.accumulate.frames",
    "open_events": "velora_edge.events.registry",
    "open_bundle": "velora_edge.bundle",
    "load_model": "velora_edge.model.checkpoint",
    "pairs": "velora_edge.preprocessing.pairs",
}


def __getattr__(name: str) -> Any:
    """The public functions, imported when first asked for: `import velora_edge` alone loads nothing heavy."""
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
