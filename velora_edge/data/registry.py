"""Registry of data set layouts, and `open_clips`, which detects the layout of a path.

A layout is one file with a `ClipSource` and one line in `LAYOUTS`, or a plugin (`velora.datasets`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from velora_edge.data.clips.augment import DIGITS, SYNTHETIC
from velora_edge.errors import DatasetError
from velora_edge.extensions import Extension, Registry

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    import h5py

    from velora_edge.data.clips.clips import ClipSource, ClipSpec, SplitConfig


def _is_store(path: Path) -> bool:
    from velora_edge.data.clips.store import is_store

    return _is_hdf5_that(path, is_store)


def _is_nmnist(path: Path) -> bool:
    from velora_edge.data.layouts.nmnist import is_nmnist

    return _is_hdf5_that(path, is_nmnist)


def _is_hdf5_that(path: Path, is_layout: Callable[[h5py.File], bool]) -> bool:
    import h5py

    from velora_edge.data.clips.store import Hdf5File

    if not path.is_file() or not h5py.is_hdf5(path):
        return False
    file = Hdf5File(path)
    found = is_layout(file())
    file.close()
    return found


def _is_hardvs(path: Path) -> bool:
    return _published(path) == "hardvs"


def _is_pokerevent(path: Path) -> bool:
    return _published(path) == "pokerevent"


def _published(path: Path) -> str | None:
    from velora_edge.data.layouts.published import detect_published

    return detect_published(path) if path.is_dir() else None


def _has_recordings(path: Path) -> bool:
    from velora_edge.data.layouts.recording_index import has_recordings

    return has_recordings(path) if path.is_dir() else path.suffix.lower() == ".csv"


_L = "velora_edge.data.layouts."
LAYOUTS = Registry(
    "velora.datasets",
    [
        Extension(
            "store",
            "velora_edge.data.clips.store:ClipStore",
            "an HDF5 file that velora dataset build wrote",
            _is_store,
        ),
        Extension("nmnist", f"{_L}nmnist:NmnistFile", "an HDF5 file of N-MNIST recordings", _is_nmnist),
        Extension(
            "hardvs",
            f"{_L}published:open_hardvs",
            "HARDVS, frames (rawframes/action_001/...) and lists",
            _is_hardvs,
        ),
        Extension(
            "pokerevent",
            f"{_L}published:open_pokerevent",
            "PokerEvent, frames (<class>/<seq>/<seq>_aps, _dvs) and lists",
            _is_pokerevent,
        ),
        Extension(
            "recordings",
            f"{_L}recordings:open_recordings",
            "event files by class, videos beside, segments.csv",
            _has_recordings,
        ),
        Extension(
            "frames",
            f"{_L}published:open_frames",
            "frames of your own as PokerEvent's, without lists; only where it is asked for",
        ),
    ],
)
"""Those first in it are asked first; called as `layout(path, spec)`. A `claims` gets the path."""


def open_clips(
    path: str | os.PathLike[str],
    spec: ClipSpec,
    *,
    kind: str = "auto",
    seed: int = 0,
    packs_recordings: bool = False,
    split: SplitConfig | None = None,
) -> ClipSource:
    """The data set at `path`, in the form that `spec` asks for.

    Args:
        path: folder or file, or `synthetic`, or `digits`.
        spec: the form of its clips.
        kind: name of its layout, or `auto`.
        seed: of the sets that are made here.
        packs_recordings: our own recordings can be read; otherwise they are only listed.
        split: where it divides by time, our own recordings are cut into pieces.

    Raises:
        DatasetError: if there is no such set, or its layout is not known or not as it should be.
    """
    if str(path) == SYNTHETIC:
        from velora_edge.data.synthetic.synthetic import RenderedSet

        return RenderedSet(spec, seed)
    if str(path) == DIGITS:
        from velora_edge.data.synthetic.digits import DigitsSet

        return DigitsSet(spec, seed)
    place = Path(path)
    if not place.exists():
        raise DatasetError(
            ["no such file or folder"], path=place, remedy="check the path, or use the set called synthetic"
        )
    name = detect(place) if kind == "auto" else kind
    layout = LAYOUTS.find(name)
    if layout is None:
        raise DatasetError([f"expected data.kind auto, {LAYOUTS.names()}, got {kind!r}"], path=place)
    if name == "recordings":
        from velora_edge.data.layouts.recordings import RuntimePacker, open_recordings

        return open_recordings(place, spec, RuntimePacker() if packs_recordings else None, split)
    return cast("ClipSource", layout.load()(place, spec))


def detect(path: Path) -> str:
    """Name of the layout that a file or folder has.

    Raises:
        DatasetError: if it has none that is known.
    """
    layout = LAYOUTS.claiming(path)
    if layout is not None:
        return layout.name
    if path.is_file():
        from velora_edge.data.clips.store import Hdf5File

        Hdf5File(path)()  # says why, where it is no HDF5
    known = "; ".join([*(f"{one.name}: {one.help}" for one in LAYOUTS.all()), *LAYOUTS.troubles])
    raise DatasetError(
        [f"no layout that is known ({known})"], path=path, remedy="see docs/guides/training.md"
    )
