"""Event frames of consecutive windows of events in memory, for data sets of short recordings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from velora_edge.events.accumulate.representations import make_accumulator
from velora_edge.events.formats.arrays import ArrayStream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from velora_edge.bundle import EventInput
    from velora_edge.datatypes import EventBatch
    from velora_edge.events.accumulate.registration import RegistrationMap


def count_windows(t_first_us: int, t_last_us: int, window_us: int) -> int:
    """Return the number of whole windows that a recording fills from its first event on; at least 1."""
    return max(1, (t_last_us - t_first_us + 1) // window_us)


def pack_windows(
    events: EventBatch,
    windows: Sequence[tuple[int, int]],
    registration: RegistrationMap,
    event_input: EventInput,
) -> NDArray[np.uint8]:
    """Images of windows of one recording, by the stream and the kernels that the runtime packs with.

    Args:
        events: in time order.
        windows: [t0, t1) each, not overlapping and not going back; the same one may come several times.
        registration: from the sensor to the model's image.
        event_input: the representation.

    Returns:
        uint8[n, H, W, 3].
    """
    height, width = registration.source_hw
    frame = make_accumulator(event_input, registration)
    images = np.empty((len(windows), *registration.target_hw, 3), np.uint8)
    with ArrayStream(iter([events] if len(events) else []), width, height) as stream:
        for k, (t0_us, t1_us) in enumerate(windows):
            if k and windows[k - 1] == (t0_us, t1_us):
                images[k] = images[k - 1]
                continue
            stream.skip_until(t0_us)
            frame.begin(t0_us, t1_us)
            stream.accumulate_until(t1_us, frame)
            frame.render_into(images[k])
    return images
