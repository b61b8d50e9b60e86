"""Other people's readers, each brought to the same two tasks: all events as arrays, and 33 ms count frames.

A reader that is not installed is left out; one that fails on a file, or that finds other events in it, is
reported and not timed. Versions: benchmarks/requirements-peers.txt.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
from typing import TYPE_CHECKING, Any

import numba
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

WINDOW_US = 33_000


@numba.njit(cache=True)
def add_counts(x: Any, y: Any, p: Any, counts: Any) -> None:
    """Add events to counts uint16[2, H, W]: the loop that a user of such a reader writes."""
    for i in range(len(x)):
        counts[p[i], y[i], x[i]] += 1


def evutils_arrays(path: Path, case: str) -> Iterator[tuple[Any, Any, Any, Any]]:
    """`read_all`: one array a field."""
    from evutils.io import EventReader

    reader = EventReader(str(path), max_events=1_000_000_000)
    events = reader.read_all()
    yield events.t, events.x, events.y, events.p


def evutils_windows(path: Path, case: str) -> Iterator[tuple[Any, Any, Any, Any]]:
    """33 ms windows in reused buffers: its fastest way through a file."""
    from evutils.io import EventReader

    for events in EventReader(str(path), delta_t=WINDOW_US, mode="delta_t", reuse_buffers=True):
        yield events.t, events.x, events.y, events.p


def faery_chunks(path: Path, case: str) -> Iterator[tuple[Any, Any, Any, Any]]:
    """Its decoder's chunks."""
    import faery

    for events in faery.events_stream_from_file(path, dimensions_fallback=(1280, 720)):
        yield events["t"], events["x"], events["y"], events["on"].view(np.uint8)


def expelliarmus_read(path: Path, case: str) -> Iterator[tuple[Any, Any, Any, Any]]:
    """`read`: one structured array."""
    from expelliarmus import Wizard

    wizard = Wizard(encoding="evt2" if case == "evt2" else "evt3")
    wizard.set_file(str(path))
    events = wizard.read()
    yield events["t"], events["x"], events["y"], events["p"]


def evlib_collect(path: Path, case: str) -> Iterator[tuple[Any, Any, Any, Any]]:
    """Its lazy frame, collected; arrays as its columns give them."""
    with contextlib.redirect_stdout(io.StringIO()):
        import evlib

        frame = evlib.load_events(str(path)).collect()
    yield (
        frame["t"].to_physical().to_numpy(),
        frame["x"].to_numpy(),
        frame["y"].to_numpy(),
        (frame["polarity"].to_numpy() > 0).view(np.uint8),
    )


def evt3_file(path: Path, case: str) -> Iterator[tuple[Any, Any, Any, Any]]:
    """`decode_file`: one array a field; EVT3 alone."""
    import evt3

    events = evt3.decode_file(str(path))
    yield events.t, events.x, events.y, events.p


def evt3_batches(path: Path, case: str) -> Iterator[tuple[Any, Any, Any, Any]]:
    """Its batches, of its own size; EVT3 alone."""
    import evt3

    for events in evt3.decode_file_batches(str(path)):
        yield events.t, events.x, events.y, events.p


def eventcv_load(path: Path, case: str) -> Iterator[tuple[Any, Any, Any, Any]]:
    """`load`: the whole stream; its one array of rows x, y, t, p."""
    import eventcv

    rows = eventcv.load(str(path)).numpy()
    yield rows[:, 2], rows[:, 0], rows[:, 1], (rows[:, 3] > 0).view(np.uint8)


def faery_frames(path: Path, case: str) -> int:
    """Its own regularise and render."""
    import faery

    stream = faery.events_stream_from_file(path, dimensions_fallback=(1280, 720))
    frames = stream.regularize(frequency_hz=1e6 / WINDOW_US).render(
        decay="window", tau=WINDOW_US * faery.us, colormap=faery.colormaps.devon
    )
    return sum(1 for _ in frames)


def tonic_frames(path: Path, case: str) -> int:
    """ToFrame over what evutils read, whose reading it is charged for."""
    import tonic

    ((t, x, y, p),) = evutils_arrays(path, case)
    events = np.empty(len(t), np.dtype([("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "u1")]))
    events["t"], events["x"], events["y"], events["p"] = t, x, y, p
    to_frame = tonic.transforms.ToFrame(
        sensor_size=(1280, 720, 2), time_window=WINDOW_US, include_incomplete=True
    )
    return len(to_frame(events))


def window_frames(windows: Callable[..., Iterator[tuple[Any, Any, Any, Any]]]) -> Callable[..., int]:
    """A pipeline of a reader's windows and the loop above; one frame a window."""

    def frames(path: Path, case: str) -> int:
        counts = np.zeros((2, 720, 1280), np.uint16)
        n = 0
        for _, x, y, p in windows(path, case):
            counts[:] = 0
            add_counts(x, y, p, counts)
            n += 1
        return n

    return frames


ARRAYS: dict[str, tuple[str, Callable[..., Iterator[tuple[Any, Any, Any, Any]]]]] = {
    "evutils read_all": ("evutils", evutils_arrays),
    "evutils windows": ("evutils", evutils_windows),
    "faery chunks": ("faery", faery_chunks),
    "expelliarmus": ("expelliarmus", expelliarmus_read),
    "evlib": ("evlib", evlib_collect),
    "evt3 file": ("evt3", evt3_file),
    "evt3 batches": ("evt3", evt3_batches),
    "eventcv load": ("eventcv", eventcv_load),
}
FRAMES: dict[str, tuple[str, Callable[..., int]]] = {
    "evutils windows + numba": ("evutils", window_frames(evutils_windows)),
    "faery render": ("faery", faery_frames),
    "tonic ToFrame": ("tonic", tonic_frames),
}
SLOW = {"evlib", "faery render", "tonic ToFrame"}
"""Those that a quick run measures on a shorter file."""


def installed(module: str) -> bool:
    """Whether a peer can be imported here."""
    return importlib.util.find_spec(module) is not None
