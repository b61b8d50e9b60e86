"""Page to label a recording: an overview to scrub through, and its segments, saved as they are made.

GET  /                          the page
GET  /api/recording             overview, segments, suggestions, labels: JSON
GET  /frames/CAMERA/T_US.jpg    what `rgb` or `event` showed at a time
POST /api/segments              all segments anew, with the version that they were made from
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import JSONResponse, Response

from velora_edge.errors import InputError, printable
from velora_edge.limits import load_json
from velora_edge.preprocessing.folder import is_recording, read_recording
from velora_edge.preprocessing.segments import SEGMENTS, Segment, read_segments, write_segments
from velora_runtime.web.app import PageSite
from velora_runtime.web.overview import Overview

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from starlette.requests import Request
    from starlette.types import ASGIApp

    from velora_runtime.recording.recorder import Recorder
    from velora_runtime.web.access import Gate
    from velora_runtime.web.app import Answer
    from velora_runtime.web.streams import Camera

LARGEST_BODY = 1 << 20
BODY_S = 10.0
MOST_LISTED = 100
LONGEST_US = 400 * 24 * 3600 * 1_000_000


class OutdatedError(InputError):
    """The segments were changed elsewhere since they were read."""


@dataclass(slots=True)
class Suggestion:
    """A stretch in which a model says the same.

    Attributes:
        start_us: time of the first prediction, from the recording's first pair.
        end_us: time of the last one.
        label: what it says.
        score: mean of its scores.
        predictions: how many they are.
    """

    start_us: int
    end_us: int
    label: str
    score: float
    predictions: int = 1


class Suggestions:
    """What a model says of the recording, put together from its predictions. Callable from any thread."""

    def __init__(self) -> None:
        self.is_coming = False
        self._lock = threading.Lock()
        self._found: list[Suggestion] = []

    def take(self, t_us: int, label: str, score: float) -> None:
        """Take a prediction; later than those before, event clock."""
        with self._lock:
            last = self._found[-1] if self._found else None
            if last is None or last.label != label:
                if last is not None:
                    last.end_us = t_us
                self._found.append(Suggestion(t_us, t_us, label, score))
                return
            last.end_us = t_us
            last.score = (last.score * last.predictions + score) / (last.predictions + 1)
            last.predictions += 1

    def found(self, first_us: int) -> list[dict[str, Any]]:
        """Suggestions as JSON has them, in seconds from `first_us`, the time of the first pair."""
        with self._lock:
            return [
                {
                    "start": (one.start_us - first_us) / 1e6,
                    "end": (one.end_us - first_us) / 1e6,
                    "label": one.label,
                    "score": round(one.score, 3),
                }
                for one in self._found
                if one.end_us > one.start_us >= first_us
            ]


class SegmentFile:
    """A recording's `segments.csv`, of which every change is saved. Callable from any thread.

    Args:
        file: that may not exist yet.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lock = threading.Lock()

    @property
    def version(self) -> str:
        """Tells whether the file is still what it was: a digest of its content; empty where there is none."""
        try:
            return hashlib.sha256(self.file.read_bytes()).hexdigest()[:16]
        except FileNotFoundError:
            return ""

    def read(self) -> tuple[str, tuple[Segment, ...], list[str]]:
        """Version and segments, and why they cannot be changed here; empty where they can."""
        version = self.version
        if not version:
            return "", (), []
        found = read_segments(self.file)
        problems = list(found.problems)
        if found.unknown:
            problems.append(
                f"{SEGMENTS}: columns that would be lost: {printable(', '.join(found.unknown), 80)}"
            )
        return version, found.segments, problems

    def save(self, version: str, segments: Iterable[Segment]) -> str:
        """Write all segments; return the new version.

        Args:
            version: that the segments were made from.
            segments: all of them.

        Raises:
            OutdatedError: if the file has another version by now.
            InputError: if the file holds what would be lost, or a segment is wrong.
            OSError: if it cannot be written.
        """
        with self._lock:
            now, _, problems = self.read()
            if now != version:
                raise OutdatedError(
                    "the segments were changed elsewhere", path=self.file, remedy="load the page again"
                )
            if problems:
                raise InputError(
                    problems[0], path=self.file, remedy="correct the file, then load the page again"
                )
            write_segments(self.file, segments)
            return self.version


class RecordedSites:
    """Labelling pages of a run's recordings. One recording is open at a time; the server's threads.

    Args:
        recorder: of the run.
        gate: who may look.
        note: gets a line if a recording cannot be read to its end.
    """

    def __init__(self, recorder: Recorder, gate: Gate, note: Callable[[str], None]) -> None:
        self._recorder, self._gate, self._note = recorder, gate, note
        self._lock = threading.Lock()
        self._open: tuple[Path, Overview, ASGIApp] | None = None

    def listing(self) -> list[dict[str, Any]]:
        """Name, length and labels of the recordings that have ended, the newest first."""
        told = []
        for name, folder in list(self._folders().items())[:MOST_LISTED]:
            with suppress(InputError, OSError):
                facts = read_recording(folder).facts
                first_us, last_us = facts.first_us, facts.last_us
                seconds = 0.0 if first_us is None or last_us is None else (last_us - first_us) / 1e6
                labels = dict.fromkeys(one.label for one in read_segments(folder / SEGMENTS).segments)
                told.append({"name": name, "seconds": round(seconds, 2), "labels": list(labels)})
        return told

    def open(self, name: str) -> ASGIApp:
        """The page of a recording; that of another one is closed.

        Raises:
            InputError: if there is no such recording, or it cannot be shown.
        """
        with self._lock:
            folder = self._folders().get(name)
            if folder is None:
                raise InputError("there is no such recording")
            if self._open is None or self._open[0] != folder:
                self._close()
                self._open = self._load(name, folder)
            return self._open[2]

    def close(self) -> None:
        """Close the recording that is open. May be called again."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def _load(self, name: str, folder: Path) -> tuple[Path, Overview, ASGIApp]:
        recording = read_recording(folder)
        if recording.events is None:
            raise InputError("holds no events", path=folder)
        overview = Overview(recording.events, folder if recording.video is not None else None, self._note)
        site = LabelSite(name, overview, SegmentFile(folder / SEGMENTS), Suggestions(), (), self._gate)
        return folder, overview, site.app()

    def _folders(self) -> dict[str, Path]:
        """Folders of recordings by name, the newest first: those of this run, and those beside them."""
        state, parent = self._recorder.state, self._recorder.options.parent
        found = {result.folder.name: result.folder for result in reversed(state.results)}
        beside = sorted(parent.iterdir(), reverse=True) if parent.is_dir() else []
        found |= {folder.name: folder for folder in beside if not folder.is_symlink()}
        return {
            name: folder
            for name, folder in found.items()
            if not name.startswith(".") and folder != state.folder and is_recording(folder)
        }


class _SegmentForm(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    start: float = Field(ge=0, le=LONGEST_US / 1e6, allow_inf_nan=False)
    end: float = Field(gt=0, le=LONGEST_US / 1e6, allow_inf_nan=False)
    label: str = Field(min_length=1, max_length=100)
    split: str = ""


class _Save(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    version: str
    segments: list[_SegmentForm] = Field(max_length=10_000)


class LabelSite(PageSite):
    """Handlers of the labelling page's requests. Single-threaded: the server's thread.

    Args:
        name: of the recording, for people.
        overview: of the recording.
        segments: of the recording.
        suggestions: of a model.
        labels: names that are offered beside those in use.
        gate: who may look.
    """

    verb, allows = "label", "see the recording and change its labels"

    def __init__(
        self,
        name: str,
        overview: Overview,
        segments: SegmentFile,
        suggestions: Suggestions,
        labels: tuple[str, ...],
        gate: Gate,
    ) -> None:
        super().__init__("label.html", gate)
        self._name, self._overview, self._segments = name, overview, segments
        self._suggestions, self._labels = suggestions, labels

    def answers(self) -> list[tuple[str, str, Answer]]:
        """See `PageSite.answers`."""
        return [
            ("GET", "/api/recording", self._show_recording),
            ("GET", "/frames/{camera}/{t_us:int}.jpg", self._picture),
            ("POST", "/api/segments", self._save),
        ]

    async def _show_recording(self, request: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(self._state), headers={"Cache-Control": "no-store"})

    def _state(self) -> dict[str, Any]:
        overview = self._overview
        version, segments, problems = self._segments.read()
        return {
            "name": self._name,
            "cameras": overview.cameras,
            "duration": overview.duration_us / 1e6,
            "is_read": overview.is_read,
            "trouble": overview.trouble,
            "times_us": overview.times_us(),
            "rates": overview.rates(),
            "version": version,
            "segments": [_as_json(segment) for segment in segments],
            "problems": problems,
            "labels": self._labels,
            "suggestions": self._suggestions.found(overview.first_us or 0),
            "is_suggesting": self._suggestions.is_coming,
        }

    async def _picture(self, request: Request) -> Response:
        camera, t_us = request.path_params["camera"], request.path_params["t_us"]
        jpeg = None
        if camera in self._overview.cameras:
            jpeg = self._overview.picture(cast("Camera", camera), t_us)
        if jpeg is None:
            return JSONResponse({"error": "there is no such picture"}, 404)
        return Response(jpeg, media_type="image/jpeg", headers={"Cache-Control": "no-store"})

    async def _save(self, request: Request) -> Response:
        try:
            body = await asyncio.wait_for(_read_body(request), BODY_S)
            asked = _Save.model_validate(load_json(body))
            segments = [
                Segment(round(one.start * 1e6), round(one.end * 1e6), one.label.strip(), one.split)
                for one in asked.segments
            ]
            version = await asyncio.to_thread(self._segments.save, asked.version, segments)
        except OutdatedError as error:
            return JSONResponse({"error": error.problem, "outdated": True}, 409)
        except ValidationError as error:
            return JSONResponse({"error": _first_problem(error)}, 400)
        except (ValueError, asyncio.TimeoutError) as error:
            return JSONResponse({"error": getattr(error, "problem", "expected JSON")}, 400)
        except OSError as error:
            return JSONResponse({"error": f"cannot be saved: {error.strerror}"}, 500)
        return JSONResponse({"version": version})


async def _read_body(request: Request) -> bytes:
    """The request's body.

    Raises:
        InputError: if it is too large.
    """
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > LARGEST_BODY:
            raise InputError(f"expected {LARGEST_BODY} bytes at most")
    return body


def _as_json(segment: Segment) -> dict[str, Any]:
    start, end, label, split = asdict(segment).values()
    return {"start": start / 1e6, "end": end / 1e6, "label": label, "split": split}


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
