"""ECF, the codec of Prophesee's HDF5 files (filter 36559): chunks to events, without any plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from velora_edge.datatypes import EventBatch
from velora_edge.errors import RecordingError
from velora_edge.events.formats.hdf5 import _ecf_kernels as kernels

if TYPE_CHECKING:
    from numpy.typing import NDArray

FILTER_ID = 36559
"""The codec's number in the registry of HDF5 filters (0x8ECF)."""


def decode_ecf(chunk: bytes | NDArray[np.uint8]) -> EventBatch:
    """The events of one compressed chunk.

    Layout and source: see `_ecf_kernels`.

    Args:
        chunk: as `h5py.h5d.DatasetID.read_direct_chunk` gives it; not modified.

    Returns:
        As many events as the chunk's header announces, at most 65535.

    Raises:
        RecordingError: if the chunk ends too early or contradicts itself.
    """
    data = np.frombuffer(chunk, np.uint8)
    if len(data) < kernels.HEADER_BYTES:
        raise RecordingError(f"an ECF chunk of {len(data)} bytes, shorter than its header of 12")
    header = int.from_bytes(data[:4].tobytes(), "little")
    n = header >> 2
    if n > kernels.MAX_EVENTS:
        raise RecordingError(f"an ECF chunk that announces {n} events; {kernels.MAX_EVENTS} is the most")
    batch = EventBatch.empty(n)
    if kernels.decode_chunk(data, header & 3, batch.t_us, batch.x, batch.y, batch.p) < 0:
        raise RecordingError(f"an ECF chunk of {len(data)} bytes whose {n} events are cut off or damaged")
    return batch
