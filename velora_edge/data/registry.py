"""Every layout of data by name, and `open_clips`, which tells them apart by what is there.

A layout is one file with a `ClipSource`, and one line here.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from velora_edge.data.clips.augment import DIGITS, SYNTHETIC
from velora_edge.errors import DatasetError

if TYPE_CHECKING:
    import os

    from velora_edge.data.clips.clips import ClipSource, ClipSpec


@dataclass(frozen=True, slots=True)
class Layout:
    """One line of the registry.

    Attributes:
        module: that reads it.
        opener: name of the callable in it, called as `opener(path, spec)`.
        what: what it looks like, for the user.
    """

    module: str
    opener: str
    what: str

    def open(self, path: Path, spec: ClipSpec) -> ClipSource:
        """The set at `path`, which has this layout."""
        return cast("ClipSource", getattr(importlib.import_module(self.module), self.opener)(path, spec))


LAYOUTS = {
    "store": Layout(
        "velora_edge.data.clips.store", "ClipStore", "an HDF5 file that velora dataset build wrote"
    ),
    "nmnist": Layout("velora_edge.data.layouts.nmnist", "NmnistFile", "an HDF5 file of N-MNIST recordings"),
    "hardvs": Layout(
        "velora_edge.data.layouts.published", "open_hardvs", "HARDVS, frames (rawframes/action_001/...)"
    ),
    "pokerevent": Layout(
        "velora_edge.data.layouts.published",
        "open_pokerevent",
        "PokerEvent, frames (<class>/<seq>/<seq>_aps, _dvs)",
    ),
    "recordings": Layout(
        "velora_edge.data.layouts.recordings",
        "open_recordings",
        "event files by class, videos beside, segments.csv",
    ),
}


def open_clips(
    path: str | os.PathLike[str],
    spec: ClipSpec,
    *,
    kind: str = "auto",
    seed: int = 0,
    packs_recordings: bool = False,
) -> ClipSource:
    """The data set at `path`, in the form that `spec` asks for.

    Args:
        path: folder or file, or `synthetic`, or `digits`.
        spec: the form of its clips.
        kind: name of its layout, or `auto`.
        seed: of the sets that are made here.
        packs_recordings: our own recordings can be read; otherwise they are only listed.

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
    if name not in LAYOUTS:
        raise DatasetError([f"expected data.kind auto, {', '.join(LAYOUTS)}, got {kind!r}"], path=place)
    if name == "recordings":
        from velora_edge.data.layouts.recordings import RuntimePacker, open_recordings

        return open_recordings(place, spec, RuntimePacker() if packs_recordings else None)
    return LAYOUTS[name].open(place, spec)


def detect(path: Path) -> str:
    """Name of the layout that a file or folder has.

    Raises:
        DatasetError: if it has none that is known.
    """
    name = _detect_file(path) if path.is_file() else _detect_folder(path)
    if name is None:
        known = "; ".join(f"{kind}: {layout.what}" for kind, layout in LAYOUTS.items())
        raise DatasetError(
            [f"no layout that is known ({known})"], path=path, remedy="see docs/guides/training.md"
        )
    return name


def _detect_file(path: Path) -> str | None:
    from velora_edge.data.clips.store import Hdf5File, is_store
    from velora_edge.data.layouts.nmnist import is_nmnist

    if path.suffix.lower() == ".csv":
        return "recordings"
    opener = Hdf5File(path)
    file: Any = opener()
    found = "store" if is_store(file) else "nmnist" if is_nmnist(file) else None
    opener.close()
    return found


def _detect_folder(path: Path) -> str | None:
    from velora_edge.data.layouts.published import has_frames
    from velora_edge.data.layouts.recording_index import has_recordings

    if has_frames(path):
        is_hardvs = (path / "rawframes").is_dir() or path.name == "rawframes"
        return "hardvs" if is_hardvs or any(path.glob("action_[0-9]*")) else "pokerevent"
    return "recordings" if has_recordings(path) else None
