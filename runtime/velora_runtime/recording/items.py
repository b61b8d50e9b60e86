"""Items of a recording, and the files that they are appended to."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import cv2

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from velora_edge.datatypes import EventBatch, Prediction, TriggerBatch
    from velora_runtime.recording.words import Place, WordFormat


LARGEST_RESERVE = 64 << 20
"""Bytes that a recording leaves free on a disk that has them."""


class AppendFile:
    """Writes go to the system at once, so that what was written outlives a killed process.

    Single-threaded: whoever writes.

    Args:
        path: of the file; replaced.

    Attributes:
        path: of the file.
        size: bytes written.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.size = path, 0
        self._file = path.open("wb", buffering=0)

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append all of `data`; return its length.

        Raises:
            OSError: if the disk is full or gone; the file then ends with a part of `data`.
        """
        rest = memoryview(data).cast("B")
        length = len(rest)
        while len(rest):
            n = self._file.write(rest) or 0
            self.size += n
            rest = rest[n:]
        return length

    def sync(self) -> None:
        """Return once the disk has it, so that it outlives a power cut."""
        os.fdatasync(self._file.fileno())

    def close(self) -> None:
        """Let go of the file once the disk has it; does nothing the second time."""
        if not self._file.closed:
            try:
                self.sync()
            finally:
                self._file.close()


def check_room(folder: Path) -> None:
    """Refuse to fill a disk to its last byte: others, such as `--out`, may still have to write to it.

    Raises:
        OSError: with ENOSPC, if less than 64 MiB (or 2 % of a small disk) are free.
    """
    disk = os.statvfs(folder)
    reserve = min(LARGEST_RESERVE, disk.f_blocks * disk.f_frsize // 50)
    if disk.f_bavail * disk.f_frsize < reserve:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


JPEG_QUALITY = 92


@dataclass(frozen=True, slots=True)
class Words:
    """Raw words of the event camera.

    Attributes:
        form: their format.
        data: whole words.
        place: where the stream stood before them; None at its very beginning.
        number: of the piece; one that does not follow on the piece before needs a lead-in.
        shift_us: what to add to their times: the camera's clock began anew.
    """

    form: WordFormat
    data: bytes | memoryview
    place: Place | None
    number: int
    shift_us: int = 0

    @property
    def n_bytes(self) -> int:
        """Memory that it takes."""
        return len(self.data)

    @property
    def t_us(self) -> int | None:
        """Time before the first event."""
        return None if self.place is None else self.place.t_us + self.shift_us


@dataclass(frozen=True, slots=True)
class Events:
    """Events of a camera without raw words.

    Attributes:
        batch: the events.
        number: as of words.
    """

    batch: EventBatch
    number: int

    @property
    def n_bytes(self) -> int:
        """Memory that it takes."""
        return 13 * len(self.batch)


@dataclass(frozen=True, slots=True)
class Picture:
    """An RGB frame.

    Attributes:
        image: uint8[H, W, 3], RGB; not changed by anybody.
        t_us: the instant that its event window ends at, event clock.
    """

    image: NDArray[np.uint8]
    t_us: int

    @property
    def n_bytes(self) -> int:
        """Memory that it takes."""
        return self.image.nbytes


@dataclass(frozen=True, slots=True)
class Compressed:
    """An RGB frame as JPEG, a tenth of its size."""

    jpeg: bytes | memoryview
    t_us: int

    @classmethod
    def of(cls, picture: Picture) -> Compressed:
        """The picture, compressed."""
        bgr = cv2.cvtColor(picture.image, cv2.COLOR_RGB2BGR)
        _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        return cls(data.tobytes(), picture.t_us)

    def restore(self) -> Picture:
        """The picture again, nearly as it was."""
        return Picture(self._decode(), self.t_us)

    def _decode(self) -> NDArray[np.uint8]:
        import numpy as np

        bgr = cv2.imdecode(np.frombuffer(self.jpeg, np.uint8), cv2.IMREAD_COLOR)
        if bgr is None:
            raise ValueError("expected a JPEG that OpenCV wrote")
        return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)

    @property
    def n_bytes(self) -> int:
        """Memory that it takes."""
        return len(self.jpeg)


@dataclass(frozen=True, slots=True)
class Edges:
    """Trigger edges, at least one."""

    edges: TriggerBatch

    @property
    def n_bytes(self) -> int:
        """Memory that it takes."""
        return 10 * len(self.edges)

    @property
    def t_us(self) -> int:
        """Time of the last one."""
        return int(self.edges.t_us[-1])


@dataclass(frozen=True, slots=True)
class Said:
    """Prediction of the model."""

    prediction: Prediction

    @property
    def n_bytes(self) -> int:
        """Memory that it takes, about."""
        return 1000

    @property
    def t_us(self) -> int:
        """The prediction's time."""
        return self.prediction.t_us


Piece: TypeAlias = Words | Picture | Compressed | Edges | Said
"""What can be written."""
Item: TypeAlias = Piece | Events
"""What comes."""
