"""A moment at which a pair is to be made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from velora_runtime.pipeline.shrinker import Shrunk

    from velora_edge.preprocessing.sync import Placed


@dataclass(frozen=True, slots=True)
class Instant:
    """When a pair is to be made.

    Attributes:
        t_us: the pair's time, event clock.
        placed: its RGB frame, or None.
        ready_us: when its data was there, on the pipeline's clock.
        shrunk: the frame at the model's size, soon; None where nobody makes it.
    """

    t_us: int
    placed: Placed | None
    ready_us: int
    shrunk: Shrunk | None = None
