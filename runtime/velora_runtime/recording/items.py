"""Pieces of a recording, the files that they are appended to, and the recording's result."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import cv2

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from velora_edge.datatypes import EventBatch, Prediction, TriggerBatch
    from velora_edge.preprocessing.folder import Facts
    from velora_runtime.recording.words import Place, WordFormat


@dataclass(frozen=True, slots=True)
class RecordOptions:
    """Options of a recorder.

    Attributes:
        folder: a recording begins here with the run; None: when it is asked for.
        parent: later recordings and clips go to folders in this one, named by date and time.
        keep_us: how far back a clip reaches; 0: no clips.
        keep_bytes: that the last seconds may take in memory.
        waits: at pace max the pipeline waits for the recorder, and nothing is lost.
    """

    folder: Path | None = None
    parent: Path = Path("recordings")
    keep_us: int = 0
    keep_bytes: int = 256 << 20
    waits: bool = False


@dataclass(frozen=True, slots=True)
class RecordResult:
    """A recording or clip that has ended.

    Attributes:
        folder: where it is.
        why: why it ended: "asked for", "end of the run", "clip", or what went wrong.
        is_whole: nothing went wrong.
        facts: what its `recording.json` says.
        n_bytes: its size.
    """

    folder: Path
    why: str
    is_whole: bool
    facts: Facts
    n_bytes: int

    @property
    def seconds(self) -> float:
        """Time between its first frame or prediction and its last; of its events where it holds neither."""
        first_us, last_us = self.facts.first_us, self.facts.last_us
        return 0.0 if first_us is None or last_us is None else (last_us - first_us) / 1e6

    def line(self) -> str:
        """For people."""
        lost = "".join(f", {n:,} {what.replace('_', ' ')} lost" for what, n in self._lost() if n)
        return f"recorded {self.folder}: {self.seconds:.2f} s, {self.n_bytes / 1e6:.1f} MB, {self.why}{lost}"

    def as_dict(self) -> dict[str, object]:
        """For the summary; every value is a plain one."""
        return {
            "folder": str(self.folder),
            "why_ended": self.why,
            "whole": self.is_whole,
            "seconds": round(self.seconds, 6),
            "bytes": self.n_bytes,
            "counts": dict(self.facts.counts),
            "dropped": dict(self.facts.dropped),
        }

    def _lost(self) -> list[tuple[str, int]]:
        return [(what, n) for what, n in self.facts.dropped.items() if what != "gaps"]


@dataclass(frozen=True, slots=True)
class RecorderState:
    """State of a recorder.

    Attributes:
        folder: that is being written, None if there is none.
        n_bytes: written to it so far.
        frames: of video in it.
        seconds: between its first frame or prediction and its last.
        kept_us: how far back a clip would reach.
        kept_bytes: what the last seconds take.
        saving: clips that are being written.
        results: all that have ended, oldest first.
    """

    folder: Path | None = None
    n_bytes: int = 0
    frames: int = 0
    seconds: float = 0.0
    kept_us: int = 0
    kept_bytes: int = 0
    saving: int = 0
    results: tuple[RecordResult, ...] = ()


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
