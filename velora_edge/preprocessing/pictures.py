"""Recorded pictures that are no video: folders of images, and the frames of AEDAT4 recordings."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from velora_edge.datatypes import RGBFrame
from velora_edge.errors import RecordingError
from velora_edge.events.formats.aedat4 import read_frames
from velora_edge.events.formats.aedat4_container import Aedat4File
from velora_edge.events.registry import is_aedat4
from velora_edge.limits import check_inside, parse_int, read_bytes
from velora_edge.preprocessing.folder import LARGEST_LINES
from velora_edge.preprocessing.sources import RGBSource
from velora_edge.vision import decode_picture

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


_MAGIC_BYTES = 16


def holds_aedat4(text: str) -> bool:
    """Whether a user's string names an AEDAT4 file, or a camera in one (FILE#CAMERA)."""
    path = _split(text)[0]
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return is_aedat4(file.read(_MAGIC_BYTES), path)


class Aedat4Frames(RGBSource):
    """The frames of the file's first camera that took any, or of the camera that FILE#CAMERA names.

    Single-threaded: whoever iterates.

    Raises:
        RecordingError: if the file is damaged, or holds no frames of such a camera.
    """

    is_on_event_clock = True

    def __init__(self, text: str) -> None:
        self.name = text
        self.warnings: list[str] = []
        path, camera = _split(text)
        self._file = Aedat4File(path, self._warn)
        found = [stream for stream in self._file.streams.values() if stream.kind == "FRME"]
        chosen = [s for s in found if camera is None or camera in (str(s.number), s.source, s.name)]
        if not chosen:
            cameras = ", ".join(stream.source or stream.name for stream in found)
            raise RecordingError(
                "holds no frames" if camera is None else f"holds no frames of a camera {camera!r}",
                path=path,
                remedy=f"choose from {cameras}" if cameras else "give a video, or use --rgb none",
            )
        self._stream = chosen[0]
        at_opening = list(self.warnings)
        first = next(iter(self), None)
        if first is None:
            raise RecordingError("holds no frames that can be read", path=path, remedy="record it again")
        self.height, self.width = first.image.shape[:2]
        self.warnings = at_opening

    def __iter__(self) -> Iterator[RGBFrame]:
        """Frames in file order; one that is not later than the one before it is left out."""
        last_us: int | None = None
        early = 0
        for frame in read_frames(self._file, self._stream, self._warn):
            if last_us is not None and frame.t_us <= last_us:
                early += 1
                continue
            yield frame
            last_us = frame.t_us
        if early:
            self._warn(f"{early} frames that are not later than the one before were left out")

    def times_us(self) -> NDArray[np.int64]:
        """Times of all frames, int64[N], on the event clock; decodes them, which takes little time."""
        return np.array([frame.t_us for frame in self], np.int64)

    def _warn(self, sentence: str) -> None:
        if sentence not in self.warnings:
            self.warnings.append(sentence)


def _split(text: str) -> tuple[Path, str | None]:
    name, _, camera = text.rpartition("#")
    return (Path(name), camera) if name and not Path(text).exists() else (Path(text), None)


TIMES = "timestamps.txt"
_LARGEST_FILE = 1 << 30
ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}


class ImageFolder(RGBSource):
    """Images in the order of their names, and `timestamps.txt`: a line for each, on the event clock.

    A line is a time in whole microseconds, or a file's name and such a time; `#` starts a comment. Lines
    without names are for the images sorted by name, numbers in names by their value.

    Single-threaded: whoever iterates.

    Raises:
        RecordingError: if there are no images, no times, or if the two do not go together.
    """

    is_on_event_clock = True

    def __init__(self, path: str) -> None:
        self.name = path
        self.warnings: list[str] = []
        self._folder = Path(path)
        images = [p for p in self._folder.iterdir() if p.suffix.lower() in ENDINGS]
        if not images:
            raise RecordingError(
                f"the folder holds no images ({', '.join(sorted(ENDINGS))})",
                path=path,
                remedy="check the path",
            )
        self._frames = _read_times(self._folder, sorted(images, key=_natural))
        self.height, self.width = self._read(self._frames[0][0]).shape[:2]

    def __iter__(self) -> Iterator[RGBFrame]:
        """Frames in the order of their times, which are on the event clock."""
        for seq, (image, t_us) in enumerate(self._frames):
            yield RGBFrame(self._read(image), t_us, seq)

    def times_us(self) -> NDArray[np.int64]:
        """Times of all frames, int64[N], event clock."""
        return np.array([t_us for _, t_us in self._frames], np.int64)

    def _read(self, image: Path) -> NDArray[np.uint8]:
        try:
            picture = decode_picture(read_bytes(image, most=_LARGEST_FILE))
        except (OSError, ValueError) as error:
            raise RecordingError(f"cannot be read: {error}", path=image, remedy="record it again") from error
        if picture is None:
            raise RecordingError("is no image that can be read", path=image, remedy="remove or replace it")
        return picture


def _read_times(folder: Path, images: list[Path]) -> list[tuple[Path, int]]:
    """Each image with its time, in the order of times."""
    file = folder / TIMES
    if not file.is_file():
        raise RecordingError(
            f"the folder holds {len(images)} images and no {TIMES}",
            path=folder,
            remedy=f"write {TIMES}: one line an image, its time in microseconds on the event clock",
        )
    lines = _entries(file)
    names = [name for _, name, _ in lines if name is not None]
    if names and len(names) != len(lines):
        raise RecordingError(
            "some lines have a name and some have none", path=file, remedy="name all or none"
        )
    if names:
        frames = [_named(file, folder, *line) for line in lines]
    elif len(lines) != len(images):
        raise RecordingError(
            f"expected {len(images)} lines, one an image, got {len(lines)}",
            path=file,
            remedy="write one line an image, or 'name time' lines",
        )
    else:
        frames = [(image, number, t_us) for image, (number, _, t_us) in zip(images, lines, strict=True)]
        for image in images:
            check_inside(image, folder)
    for (_, _, before_us), (_, number, t_us) in itertools.pairwise(frames):
        if t_us <= before_us:
            raise RecordingError(
                f"expected a time after {before_us} us, got {t_us} us",
                path=file,
                place=f"line {number}",
                remedy="put the lines in the order of their times",
            )
    return [(image, t_us) for image, _, t_us in frames]


def _entries(file: Path) -> list[tuple[int, str | None, int]]:
    """Line number, name or None, and time, for every line that says something."""
    entries: list[tuple[int, str | None, int]] = []
    for number, line in enumerate(_read_lines(file), start=1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        name, _, time = text.replace(",", " ").replace("\t", " ").strip().rpartition(" ")
        t_us = parse_int(time)
        if t_us is None:
            raise RecordingError(
                f"expected a time in whole microseconds, got {time[:40]!r}",
                path=file,
                place=f"line {number}",
                remedy="write 'time' or 'name time'",
            )
        entries.append((number, name.strip() or None, t_us))
    if not entries:
        raise RecordingError("holds no times", path=file, remedy="write one line an image")
    return entries


def _is_file(image: Path) -> bool:
    try:
        return image.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _read_lines(file: Path) -> list[str]:
    check_inside(file, file.parent)
    try:
        return read_bytes(file, most=LARGEST_LINES).decode("utf-8-sig", "replace").splitlines()
    except (OSError, ValueError) as error:
        raise RecordingError(f"cannot be read: {error}", path=file, remedy="check the file") from error


def _named(file: Path, folder: Path, number: int, name: str | None, t_us: int) -> tuple[Path, int, int]:
    image = folder / (name or "")
    check_inside(image, folder)
    if not _is_file(image):
        raise RecordingError(
            f"there is no image {name}", path=file, place=f"line {number}", remedy="correct the name"
        )
    return image, number, t_us


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sorts frame9 before frame10."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]
