"""An event representation of one's own: ON less OFF events of each pixel, as shades of grey.

    python examples/representation.py recording.raw balance.png

`@FIND_PLACE.when` and `@ADD_EVENT.when` become part of the kernels that decode a recording, so that there
is still one pass over its bytes. Name it in a training configuration (`clip.event.representation`) by making
it a plugin: examples/velora_plugin shows how.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import cv2
import numpy as np

import velora_edge
from velora_edge.events.accumulate.representations import REPRESENTATIONS
from velora_edge.events.kernels._frame_kernels import ADD_EVENT, FIND_PLACE
from velora_edge.extensions import Extension


class BalanceState(NamedTuple):
    """sums: int32[1 + pixels]; the first is of events that fall beside the image."""

    sums: Any


@FIND_PLACE.when(BalanceState)
def _find(state: Any, cell: Any, p: Any) -> Any:
    return np.int64(cell)


@ADD_EVENT.when(BalanceState)
def _add(state: Any, place: Any, t_us: Any, p: Any) -> None:
    state.sums[place] += 2 * np.int32(p) - 1


class Balance:
    """Grey 128 where as many events were ON as OFF; 16 shades an event."""

    uses_window = False

    def __init__(self, pixels: int, event_input: Any) -> None:
        self.state = BalanceState(np.zeros(1 + pixels, np.int32))

    def begin(self, t0_us: int, t1_us: int) -> None:
        """Empty the sums."""
        self.state.sums[:] = 0

    def render_into(self, pixels: Any) -> None:
        """Write the picture, uint8[H * W, 3]."""
        pixels[:] = np.clip(128 + 16 * self.state.sums[1:, None], 0, 255)


REPRESENTATIONS.add(Extension("balance", f"{__name__}:Balance", "ON less OFF events"))


def main(recording: str, out: str) -> None:
    """Write the picture of the busiest window."""
    frames = velora_edge.frames(recording, 33_333, "balance", (240, 320))
    busiest = max(frames, key=lambda frame: frame.events)
    cv2.imwrite(out, busiest.image)
    print(f"{out}: {busiest.events} events from {busiest.t0_us} us")


if __name__ == "__main__":
    main(*sys.argv[1:3])
