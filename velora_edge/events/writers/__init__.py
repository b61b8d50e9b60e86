"""Registry of writers of event files; a format is one class and one line in `WRITERS`."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from velora_edge.errors import InputError

if TYPE_CHECKING:
    from os import PathLike

    from velora_edge.events.writers.base import EventWriter

__all__ = ["WRITERS", "format_of", "open_writer"]

# name: (module, class, endings of file names that mean it)
WRITERS = {
    "EVT3": ("velora_edge.events.writers.raw", "EVT3Writer", (".raw",)),
    "EVT2": ("velora_edge.events.writers.raw", "EVT2Writer", ()),
    "EVT2.1": ("velora_edge.events.writers.raw", "EVT21Writer", ()),
    "HDF5": ("velora_edge.events.writers.hdf5", "HDF5Writer", (".h5", ".hdf5")),
    "AEDAT4": ("velora_edge.events.writers.aedat4", "AEDAT4Writer", (".aedat4",)),
    "CSV": ("velora_edge.events.writers.text", "CSVWriter", (".csv",)),
}


def format_of(path: str | PathLike[str]) -> str:
    """Name of the format that a file's ending stands for.

    Raises:
        InputError: if it stands for none.
    """
    ending = Path(path).suffix.lower()
    for name, (_, _, endings) in WRITERS.items():
        if ending in endings:
            return name
    known = ", ".join(ending for _, _, endings in WRITERS.values() for ending in endings)
    raise InputError(
        f"expected a name that ends in {known}, got {ending or 'no ending'!r}",
        path=path,
        remedy=f"change it, or name the format: {', '.join(WRITERS)}",
    )


def open_writer(
    path: str | PathLike[str],
    format: str | None = None,  # noqa: A002
    *,
    width: int,
    height: int,
) -> EventWriter:
    """A writer of a new event file; use it in a `with` block.

    Args:
        path: of the file; replaced, where it exists, when the new one is whole.
        format: a name of `WRITERS`, in any case; by default the one that the path's ending stands for.
        width: of the sensor, pixels.
        height: likewise.

    Raises:
        InputError: if there is no such format, or if it has no room for such a sensor.
        MissingExtraError: if the format's library is not installed (AEDAT4).
        RecordingError: if the file cannot be written.
    """
    name = format_of(path) if format is None else format.upper()
    if name not in WRITERS:
        raise InputError(
            f"no event format that can be written is called {format!r}; there are {', '.join(WRITERS)}"
        )
    module, writer, _ = WRITERS[name]
    kind: type[EventWriter] = getattr(importlib.import_module(module), writer)
    return kind(path, width, height)
