"""Thread of the recorder: one recording at a time, the pre-roll buffer, and clips of it."""

from __future__ import annotations

import errno
import threading
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from velora_edge.errors import InputError
from velora_runtime.recording.items import (
    AppendFile,
    Compressed,
    Events,
    Picture,
    RecorderState,
    RecordOptions,
    RecordResult,
    Words,
)
from velora_runtime.recording.pre_roll import PreRollBuffer
from velora_runtime.recording.words import WordEncoder, WordFormat, WordShifter
from velora_runtime.recording.writer import RecordingWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from velora_edge.preprocessing.folder import Facts
    from velora_runtime.recording.items import Item, Piece
    from velora_runtime.recording.words import Place


class EventWords:
    """Raw words of any event source: arrays are encoded, words shifted where the camera's clock restarted.

    Arrays become EVT2 and not EVT3, although that may be smaller: its times reach far enough for cameras that
    count from 1970.

    Single-threaded: the recorder's thread.

    Args:
        sensor: width and height, pixels; None where no events will come.

    Attributes:
        latest: what `finish` gave last.
    """

    def __init__(self, sensor: Sequence[int] | None) -> None:
        self.latest: Words | None = None
        self._sensor = sensor
        self._encoder: WordEncoder | None = None
        self._shifter: WordShifter | None = None
        self._shift_us = 0
        self._seen = -1
        self._number = 0

    def finish(self, item: Words | Events) -> Words | None:
        """Return the piece as it is written; None if nothing is left of it, or it is older than one before.

        The latest piece may be asked for again.

        Raises:
            InputError: if its events are not in time order, or cannot be told in its encoding.
        """
        if item.number <= self._seen:
            return self.latest if item.number == self._seen else None
        follows = item.number == self._seen + 1
        self._seen = item.number
        self._number += 1 if follows else 2
        finished = self._encode(item) if isinstance(item, Events) else self._put_right(item, follows=follows)
        if finished is None:
            self._number -= 1
        else:
            self.latest = finished
        return finished

    def _encode(self, item: Events) -> Words:
        if self._sensor is None:
            raise InputError("events came from a camera whose size is not known")
        form = WordFormat("EVT2", (self._sensor[0], self._sensor[1]))
        self._encoder = self._encoder or WordEncoder(form)
        return self._made(form, *self._encoder.encode(item.batch))

    def _put_right(self, item: Words, *, follows: bool) -> Words | None:
        if not item.shift_us:
            return replace(item, number=self._number)
        if self._shifter is None or not follows or item.shift_us != self._shift_us:
            self._shifter = WordShifter(item.form, item.place, item.shift_us)
            self._shift_us = item.shift_us
        made = self._shifter.shift(item.data)
        return None if made is None else self._made(item.form, *made)

    def _made(self, form: WordFormat, place: Place, data: bytes) -> Words:
        return Words(form, data, place, self._number)


RESULTS_KEPT = 100
"""Ended recordings that are remembered; a process may run for months."""
ASKED, RUN_ENDED, CLIP = "asked for", "end of the run", "clip"
_GOOD_ENDS = (ASKED, RUN_ENDED, CLIP)


class RecorderWorker:
    """Writer of pieces. Single-threaded: the recorder's thread, but for `results` and `saving`.

    Args:
        options: what was asked for.
        about: the recordings' facts, as far as they are known.
        note: gets a line for people when a recording has ended.
        dropped: what was lost on the way so far, by kind; counted up by others.
        open_file: makes the files that grow.

    Raises:
        InputError: if the folder that was asked for cannot be recorded to.
    """

    def __init__(
        self,
        options: RecordOptions,
        about: Facts,
        note: Callable[[str], None],
        dropped: Mapping[str, int],
        open_file: Callable[[Path], AppendFile] = AppendFile,
    ) -> None:
        self._options, self._about, self._note, self._open_file = options, about, note, open_file
        self._dropped, self._dropped_before = dropped, dict(dropped)
        self._recent = PreRollBuffer(options.keep_us, options.keep_bytes) if options.keep_us else None
        self._events = EventWords((about.events or {}).get("sensor"))
        self._clips: list[threading.Thread] = []
        self._results: tuple[RecordResult, ...] = ()
        self._lock = threading.Lock()
        self._writer = None if options.folder is None else self._open(options.folder)

    @property
    def is_wanting(self) -> bool:
        """Whether pieces are needed: a recording is written, or the last seconds are kept."""
        return self._writer is not None or self._recent is not None

    @property
    def results(self) -> tuple[RecordResult, ...]:
        """Results of recordings and clips that have ended, oldest first."""
        return self._results

    @property
    def saving(self) -> int:
        """Number of clips that are being written."""
        return sum(clip.is_alive() for clip in tuple(self._clips))

    def write(self, item: Item) -> RecordResult | None:
        """Write and keep a piece. An error ends the recording: then, its result; never raises."""
        return self._guarded(lambda: self._write(item))

    def start(self, latest: Words | Events | None = None) -> Path:
        """Begin a recording in a new folder; return the folder.

        Args:
            latest: what came last from the event camera: the recording begins with it.

        Raises:
            InputError: if one is being written, or the folder cannot be made.
        """
        if self._writer is not None:
            raise InputError("is being recorded already", path=self._writer.folder, remedy="stop it first")
        self._writer = self._open(self._new_folder(""))
        self._dropped_before = dict(self._dropped)
        folder, ended = self._writer.folder, self._begin_with(latest)
        if ended is not None:
            raise InputError(ended.why, path=folder, remedy="make room, or choose another --recordings")
        return folder

    def end(self, why: str) -> RecordResult | None:
        """End the recording, with the reason for its facts; None if there is none."""
        writer, self._writer = self._writer, None
        lost = {what: n - self._dropped_before[what] for what, n in self._dropped.items()}
        return None if writer is None else self._finish(writer, why, lost)

    def save_clip(self) -> Path:
        """Write the last seconds to a new folder, in a thread of their own; return the folder.

        Raises:
            InputError: if nothing is kept, or the folder cannot be made.
        """
        if self._recent is None:
            raise InputError("no clips are kept", remedy="run with --keep SECONDS")
        writer = self._open(self._new_folder("_clip"))
        self._clips = [clip for clip in self._clips if clip.is_alive()]
        clip = threading.Thread(
            target=self._write_clip, args=(writer, self._recent.items()), name="clip", daemon=True
        )
        self._clips.append(clip)
        clip.start()
        return writer.folder

    def join_clips(self) -> None:
        """Return once all clips are written."""
        for clip in self._clips:
            clip.join()

    def state(self) -> RecorderState:
        """State of the recorder now."""
        writer, recent = self._writer, self._recent
        kept = (0, 0) if recent is None else (recent.held_us, recent.held_bytes)
        if writer is None:
            return RecorderState(None, 0, 0, 0.0, *kept, self.saving, self.results)
        facts = writer.facts
        span_us = 0 if facts.first_us is None or facts.last_us is None else facts.last_us - facts.first_us
        frames = facts.counts["frames"]
        return RecorderState(
            writer.folder, writer.size, frames, span_us / 1e6, *kept, self.saving, self.results
        )

    def _begin_with(self, latest: Words | Events | None) -> RecordResult | None:
        """Write the latest piece of the event camera; where the last seconds are kept, it is among them."""

        def begin() -> None:
            words = self._events.latest if self._recent is not None else None
            if self._recent is None and latest is not None:
                words = self._events.finish(latest)
            if words is not None and self._writer is not None:
                self._writer.write(words)

        return self._guarded(begin)

    def _write(self, item: Item) -> None:
        piece = self._events.finish(item) if isinstance(item, (Words, Events)) else item
        if piece is None:
            return
        if self._writer is not None:
            self._writer.write(piece)
        if self._recent is not None:
            self._recent.add(Compressed.of(piece) if isinstance(piece, Picture) else piece)

    def _guarded(self, work: Callable[[], None]) -> RecordResult | None:
        try:
            work()
        except Exception as error:  # whatever it is: the recognition must go on
            return self.end(_reason(error))
        return None

    def _write_clip(self, writer: RecordingWriter, items: Sequence[Piece]) -> None:
        why = CLIP
        try:
            for item in items:
                writer.write(item)
        except Exception as error:  # told in the clip's result
            why = _reason(error)
        self._finish(writer, why, {})

    def _finish(self, writer: RecordingWriter, why: str, dropped: dict[str, int]) -> RecordResult:
        writer.close(why, {what: n for what, n in dropped.items() if n})
        said = writer.facts.why_ended or why
        result = RecordResult(writer.folder, said, said in _GOOD_ENDS, writer.facts, writer.size)
        with self._lock:  # a clip may end while a recording does
            self._results = (*self._results[1 - RESULTS_KEPT :], result)
        self._note(result.line())
        return result

    def _open(self, folder: Path) -> RecordingWriter:
        return RecordingWriter(folder, self._about, self._open_file)

    def _new_folder(self, ending: str) -> Path:
        stem = datetime.now().astimezone().strftime("%Y-%m-%d_%H-%M-%S") + ending
        names = (stem, *(f"{stem}-{n}" for n in range(2, 1000)))
        return next(
            self._options.parent / name for name in names if not (self._options.parent / name).exists()
        )


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "stopped: the disk is full"
    text = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    return f"stopped: {text}"
