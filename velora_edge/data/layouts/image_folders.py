"""One recording as folders of image files: which files belong together, and what a look at them tells."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from velora_edge.data.clips.clips import Modality

IMAGES = (".png", ".jpg", ".jpeg", ".bmp")
_ENDS = {
    ".png": (b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"),
    ".jpg": (b"\xff\xd8\xff", b"\xff\xd9"),
    ".jpeg": (b"\xff\xd8\xff", b"\xff\xd9"),
}


class ImageFolders:
    """The images of one recording; the folders are listed once, when it is made.

    Args:
        folders: by camera; a camera that did not record is left out.

    Attributes:
        folders: as given.
        files: by camera, ordered by the numbers in their names: templates differ between releases.
        pairs: what belongs together, in time order: one file by camera.
    """

    def __init__(self, folders: Mapping[Modality, Path]) -> None:
        self.folders = folders
        self.files = {camera: list_images(folder) for camera, folder in folders.items()}
        self._numbers = {c: {_frame_number(file): file for file in found} for c, found in self.files.items()}
        self.pairs = self._in_step()

    def problems(self) -> list[str]:
        """Folders without images, and frames that one camera has and the other has not."""
        found = [f"{self.folders[c].name} has no images" for c, files in self.files.items() if not files]
        if found or len(self.files) < 2:
            return found
        if not self._count_alike():
            pictures, frames = len(self.files["rgb"]), len(self.files["event"])
            return [] if pictures == frames else [f"{pictures} pictures but {frames} event frames"]
        every = set().union(*self._numbers.values())
        for camera, numbers in self._numbers.items():
            if missing := sorted(every - set(numbers)):
                shown = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
                found.append(f"{self.folders[camera].name} lacks frames that the other has: {shown}")
        return found

    def _in_step(self) -> list[dict[Modality, Path]]:
        if len(self.files) > 1 and self._count_alike():
            shared = sorted(set.intersection(*(set(numbers) for numbers in self._numbers.values())))
            return [{camera: found[number] for camera, found in self._numbers.items()} for number in shared]
        return [dict(zip(self.files, pair, strict=True)) for pair in zip(*self.files.values(), strict=False)]

    def _count_alike(self) -> bool:
        """Whether frame numbers mean the same for both cameras: more than half of the fewer are shared."""
        first, second = (set(numbers) for numbers in self._numbers.values())
        return 2 * len(first & second) > min(len(first), len(second))


def list_images(folder: Path) -> list[Path]:
    """The image files of a folder, ordered by the numbers in their names; none where there is no folder."""
    if not folder.is_dir():
        return []
    files = (file for file in folder.iterdir() if file.suffix.lower() in IMAGES)
    return sorted(files, key=lambda file: (_numbers(file), file.name))


def quick_problem(file: Path) -> str | None:
    """What a file's head and tail tell: an image that was cut off has no tail."""
    try:
        with file.open("rb") as stream:
            head = stream.read(8)
            size = stream.seek(0, 2)
            stream.seek(max(0, size - 8))
            tail = stream.read(8)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return ends_problem(head, tail, file.suffix)


def ends_problem(head: bytes, tail: bytes, suffix: str) -> str | None:
    """What an image file's first and last bytes (8 of each, or more) tell against it."""
    if not head:
        return "the file is empty"
    start, end = _ENDS.get(suffix.lower(), (b"", b""))
    if not head.startswith(start):
        return f"not a {suffix[1:].upper()} file"
    return None if end in tail else "the image is cut off"


def _numbers(file: Path) -> tuple[int, ...]:
    return tuple(int(digits) for digits in re.findall(r"\d+", file.stem))


def _frame_number(file: Path) -> int:
    return (_numbers(file) or (-1,))[-1]
