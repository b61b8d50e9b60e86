"""Live recognition, from camera bytes to predictions; imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["Recogniser", "live"]

if TYPE_CHECKING:
    from velora_runtime.app.api import Recogniser, live


def __getattr__(name: str) -> Any:
    """The public names, imported when first asked for."""
    if name in __all__:
        from velora_runtime.app import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
