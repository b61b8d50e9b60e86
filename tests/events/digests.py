"""Digests of events, as the manifest of the real recordings gives them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from velora_edge.datatypes import EventBatch


def digests(batch: EventBatch) -> dict[str, str]:
    """First 16 hex digits of the SHA-256 of each little-endian column."""
    return {
        name: hashlib.sha256(np.ascontiguousarray(column, dtype).tobytes()).hexdigest()[:16]
        for name, column, dtype in (
            ("t", batch.t_us, "<i8"),
            ("x", batch.x, "<u2"),
            ("y", batch.y, "<u2"),
            ("p", batch.p, "u1"),
        )
    }
