"""Recording folders: their files, and `recording.json`, which describes them.

    recording.json      what this is (`Facts`)
    events.raw          EVT words with their header, external triggers among them
    video.mp4           the RGB camera, H.264 in fragments
    timestamps.txt      a line for each frame of the video: its time on the event clock, microseconds
    triggers.csv        t_us,id,p: a line for each trigger edge
    predictions.jsonl   as `--out` writes them

Each file only grows while it is recorded, so that a folder can be read whenever the recording ended, and
however: a last line without its end is left out, `ended` in recording.json is then null.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from velora_edge.datatypes import TriggerBatch
from velora_edge.errors import RecordingError
from velora_edge.files import replace_file, sync_folder
from velora_edge.limits import check_inside, load_json, parse_int, read_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray


INFO = "recording.json"
EVENTS = "events.raw"
VIDEO = "video.mp4"
TIMES = "timestamps.txt"
TRIGGERS = "triggers.csv"
PREDICTIONS = "predictions.jsonl"
SCHEMA_VERSION = 1
LARGEST_LINES = 1 << 30
"""Bytes of a list of times: a camera of 1000 Hz writes as much in a day."""


@dataclass(slots=True)
class Facts:
    """What `recording.json` tells.

    Attributes:
        v: version of this form.
        started: when, UTC, ISO 8601.
        ended: likewise; None while it is recorded, and after a crash.
        why_ended: "asked for", "end of the run", or what went wrong.
        model: name and path of the model that made the predictions; None without one.
        events: source of the events, encoding and sensor once some came; None without an event camera.
        video: source of the pictures, height and width once some came; None without an RGB camera.
        counts: bytes of words, frames, edges, predictions.
        dropped: the same, of what came too fast to be written; `gaps` are the cuts in the words.
        first_us: time of the first frame or prediction, event clock; without these, of the first event.
        last_us: of the last one.
    """

    v: int = SCHEMA_VERSION
    started: str = ""
    ended: str | None = None
    why_ended: str | None = None
    model: dict[str, str] | None = None
    events: dict[str, Any] | None = None
    video: dict[str, Any] | None = None
    counts: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    first_us: int | None = None
    last_us: int | None = None

    def write(self, folder: Path) -> None:
        """Write the folder's `recording.json`, whole or not at all.

        Raises:
            OSError: if it cannot be written even in place of the old one, as a full disk may still allow.
        """
        text = json.dumps(asdict(self), indent=2) + "\n"
        try:
            replace_file(folder / INFO, text.encode(), mode=0o644)
        except OSError:
            descriptor = os.open(folder / INFO, os.O_WRONLY | os.O_NOFOLLOW)
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
                file.truncate()

    def claim(self, folder: Path) -> bool:
        """Make the folder's `recording.json`; False if somebody has made one meanwhile.

        Raises:
            OSError: if it cannot be made.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        try:
            os.close(os.open(folder / INFO, flags, 0o644))
        except FileExistsError:
            return False
        sync_folder(folder.parent)
        self.write(folder)
        return True


@dataclass(frozen=True, slots=True)
class Recording:
    """A folder that can be replayed.

    Attributes:
        folder: where it is.
        facts: what it says of itself.
        events: the file of events, None where it holds none.
        video: the file of the video, likewise.
        warnings: what is odd about it, one sentence each.
    """

    folder: Path
    facts: Facts
    events: Path | None
    video: Path | None
    warnings: tuple[str, ...] = ()

    def times_us(self) -> NDArray[np.int64]:
        """Time of each frame of the video, int64[N], event clock.

        Raises:
            RecordingError: if a line is no time, or earlier than the one before it.
        """
        path = self.folder / TIMES
        lines = _whole_lines(path)
        numbers = [parse_int(line) for line in lines]
        if None in numbers:
            wrong = numbers.index(None)
            raise RecordingError(
                f"expected a time in whole microseconds, got {lines[wrong][:40]!r}",
                path=path,
                place=f"line {wrong + 1}",
                remedy="correct the line",
            )
        times = np.array(numbers, np.int64)
        back = np.flatnonzero(np.diff(times) <= 0)
        if len(back):
            raise RecordingError(
                f"expected a time after {times[back[0]]} us, got {times[back[0] + 1]} us",
                path=path,
                place=f"line {back[0] + 2}",
                remedy="put the lines in the order of their times",
            )
        return times

    def triggers(self) -> TriggerBatch:
        """The edges in `triggers.csv`; lines that are no edges are left out."""
        rows = [line.split(",") for line in _whole_lines(self.folder / TRIGGERS)]
        edges = [edge for row in rows if len(row) == 3 and (edge := _edge(row)) is not None]
        columns = np.array(edges, np.int64).reshape(-1, 3)
        return TriggerBatch(columns[:, 0].copy(), columns[:, 1].astype("u1"), columns[:, 2].astype("u1"))


def is_recording(path: str | os.PathLike[str]) -> bool:
    """Whether there is a recording's folder at `path`."""
    return (Path(path) / INFO).is_file()


def read_recording(path: str | os.PathLike[str]) -> Recording:
    """The recording in a folder, however it ended.

    Raises:
        RecordingError: if the folder holds none, or one of a newer form.
    """
    folder = Path(path)
    if not is_recording(folder):
        raise RecordingError(f"holds no {INFO}", path=path, remedy="give a folder that --record wrote")
    facts, warnings = _read_facts(folder / INFO)
    if facts.v > SCHEMA_VERSION:
        raise RecordingError(
            f"expected version {SCHEMA_VERSION} of a recording, got {facts.v}",
            path=folder / INFO,
            remedy="read it with the velora-edge that wrote it, or a newer one",
        )
    if facts.ended is None:
        warnings.append(f"{folder}: the recording was not ended properly; it is read as far as it goes")
    return Recording(folder, facts, _if_filled(folder / EVENTS), _if_filled(folder / VIDEO), tuple(warnings))


def _read_facts(path: Path) -> tuple[Facts, list[str]]:
    """What the file says; nothing, where it was damaged by a crash."""
    check_inside(path, path.parent)
    try:
        said = load_json(read_bytes(path))
        known = {key: value for key, value in said.items() if key in Facts.__dataclass_fields__}
        if type(known.get("v", SCHEMA_VERSION)) is not int:
            raise RecordingError(
                f"expected a number as v, got {known['v']!r}", path=path, remedy="record it again"
            )
        _Said.model_validate(known)
    except RecordingError:
        raise
    except (OSError, ValueError, AttributeError):
        return Facts(), [f"{path} cannot be read: what the recording says of itself is not known"]
    return Facts(**known), []


class _Form(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class _Model(_Form):
    name: str
    path: str


class _Camera(_Form):
    source: str | None = None
    encoding: str | None = None
    sensor: list[int] | None = None
    height: int | None = None
    width: int | None = None


class _Said(_Form):
    """The form of `Facts` in a file."""

    started: str = ""
    ended: str | None = None
    why_ended: str | None = None
    model: _Model | None = None
    events: _Camera | None = None
    video: _Camera | None = None
    counts: dict[str, int] = {}
    dropped: dict[str, int] = {}
    first_us: int | None = None
    last_us: int | None = None


def _edge(row: list[str]) -> tuple[int, int, int] | None:
    """Time, input and polarity of a line, None where it is no edge."""
    t_us, number, p = parse_int(row[0]), parse_int(row[1]), parse_int(row[2])
    if t_us is None or number is None or p not in (0, 1) or not 0 <= number < 256:
        return None
    return t_us, number, p


def _if_filled(path: Path) -> Path | None:
    if not (path.is_file() and path.stat().st_size):
        return None
    check_inside(path, path.parent)
    return path


def _whole_lines(path: Path) -> list[str]:
    """Lines without what follows the last line's end; none where there is no file.

    Raises:
        RecordingError: if it is too long, or a link that leads out of the folder.
    """
    if not path.is_file():
        return []
    check_inside(path, path.parent)
    try:
        text = read_bytes(path, most=LARGEST_LINES).decode("ascii", "replace")
    except (OSError, ValueError) as error:
        raise RecordingError(f"cannot be read: {error}", path=path, remedy="check the file") from error
    return [line.strip() for line in text[: text.rfind("\n") + 1].split("\n") if line.strip()]
