"""Data sets of image files: one folder of RGB pictures and one of event frames for each recording."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from velora_edge.data.clips.clips import CAMERAS, ClipSource, Item, Pairs
from velora_edge.datatypes import fit
from velora_edge.errors import DatasetError
from velora_edge.vision import Resizer, decode_picture

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from velora_edge.data.clips.clips import ClipSpec, EventFrames, Modality


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
    """Return the problem that a file's head and tail show: a truncated image has no tail."""
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
    """Return the problem that an image file's first and last bytes (8 of each, or more) show."""
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


class FrameSet(ClipSource):
    """Recordings whose pictures and event frames are image files; reads them as they are asked for.

    Args:
        kind: name of the layout.
        path: the set's folder.
        spec: the form of the clips.
        labels: class names.
        items: the recordings.
        folders: each recording's folders of images by camera, in the same order.
        listed: how many images a published list says each has, or None.
        problems: what was wrong with the set's lists.
    """

    def __init__(
        self,
        kind: str,
        path: Path,
        spec: ClipSpec,
        labels: Sequence[str],
        items: Sequence[Item],
        folders: Sequence[Mapping[Modality, Path]],
        *,
        listed: Sequence[int | None] | None = None,
        problems: Sequence[str] = (),
    ) -> None:
        self.kind, self.path, self.spec, self.labels, self.items = kind, path, spec, tuple(labels), items
        self._folders, self._listed, self._problems = folders, listed, list(problems)
        self._opened: dict[int, ImageFolders] = {}
        self.event_frames: EventFrames = "files"
        found = {camera for of_one in folders for camera in of_one}
        self.cameras = tuple(camera for camera in CAMERAS if camera in found)

    def pairs(self, index: int) -> int:
        """See `ClipSource.pairs`."""
        images = self._images(index)
        if not images.pairs:
            problems = images.problems() or ["no two images belong together"]
            raise DatasetError(
                [f"{self.items[index].name}: {problem}" for problem in problems], path=self.path
            )
        return len(images.pairs)

    def read(self, index: int, which: NDArray[np.int64]) -> Pairs:
        """See `ClipSource.read`."""
        chosen = [self._images(index).pairs[i] for i in which]
        images: dict[Modality, NDArray[np.uint8]] = {}
        problems: dict[str, None] = {}
        for camera in self._folders[index]:
            images[camera] = np.empty((len(chosen), *self.spec.image_size, 3), np.uint8)
            for files, image in zip(chosen, images[camera], strict=True):
                if problem := self._load(files[camera], camera, image):
                    problems[f"{self._shown(files[camera])}: {problem}"] = None
        if problems:
            remedy = f"velora dataset check {self.path} lists all that is wrong"
            raise DatasetError(list(problems), path=self.path, remedy=remedy)
        return Pairs(images.get("rgb"), images.get("event"))

    def problems(self, index: int, *, deep: bool) -> list[str]:
        """See `ClipSource.problems`."""
        name = self.items[index].name
        images = ImageFolders(self._folders[index])
        found = [f"{name}: {problem}" for problem in images.problems()]
        listed = None if self._listed is None else self._listed[index]
        there = max((len(files) for files in images.files.values()), default=0)
        if listed is not None and listed != there:
            found.append(f"{name}: the list says {listed} images, there are {there}")
        scratch = np.empty((*self.spec.image_size, 3), np.uint8)
        for camera, files in images.files.items():
            for file in files:
                problem = self._load(file, camera, scratch) if deep else quick_problem(file)
                if problem:
                    found.append(f"{self._shown(file)}: {problem}")
        return found

    def set_problems(self) -> list[str]:
        """See `ClipSource.set_problems`."""
        return self._problems

    def _images(self, index: int) -> ImageFolders:
        if index not in self._opened:
            self._opened[index] = ImageFolders(self._folders[index])
        return self._opened[index]

    def _load(self, file: Path, camera: Modality, image: NDArray[np.uint8]) -> str | None:
        """Read an image file to the model's size; return what is wrong with it, if anything."""
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            return "missing"
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        if problem := ends_problem(data, data[-8:], file.suffix):
            return problem  # some decoders return the part that is there, without a word
        picture = decode_picture(data)
        if picture is None:
            return "not an image that can be decoded"
        hw = (picture.shape[0], picture.shape[1])
        mode = self.spec.rgb.fit if camera == "rgb" else self.spec.event.fit
        Resizer(hw, self.spec.image_size, mode, self.spec.rgb.resample).resize_into(picture, image)
        if camera == "event" and mode == "letterbox":
            _blank_margins(image, hw, self.spec.event.palette.background)
        return None

    def _shown(self, file: Path) -> str:
        return file.relative_to(self.path).as_posix()


def _blank_margins(image: NDArray[np.uint8], hw: tuple[int, int], colour: tuple[int, int, int]) -> None:
    """Fill what a letterboxed event frame leaves free with an empty window's colour."""
    height, width = image.shape[:2]
    to = fit(hw, (height, width), "letterbox")
    top, left = round(to.offset_y), round(to.offset_x)
    inside = np.zeros((height, width), bool)
    inside[top : height - top, left : width - left] = True
    image[~inside] = colour
