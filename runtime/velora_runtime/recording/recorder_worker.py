"""The recorder's own thread: one recording at a time, the pre-roll buffer, and clips of it.

Pieces lie in slabs, each a memory mapping of its own (`ByteArena`); a slab goes back to the system as a whole
with the last piece on it. In the C library's heap, hundreds of megabytes that come in one thread and go in
another leave holes among what is short-lived: a process at 10 Mev/s grew by 5 to 13 MB a minute beside a
buffer that did not.
"""

from __future__ import annotations

import errno
import mmap
import threading
from collections import deque
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from velora_edge.errors import InputError
from velora_runtime.recording.items import (
    AppendFile,
    Compressed,
    Edges,
    Events,
    Picture,
    RecorderState,
    RecordOptions,
    RecordResult,
    Said,
    Words,
)
from velora_runtime.recording.words import WordEncoder, WordFormat, WordShifter
from velora_runtime.recording.writer import RecordingWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from velora_edge.preprocessing.folder import Facts
    from velora_runtime.recording.items import Item, Piece
    from velora_runtime.recording.words import Place


SLAB_BYTES = 1 << 20


class ByteArena:
    """Arena of bytes in slabs. Single-threaded, but its copies may be read and freed by any thread.

    Args:
        slab_bytes: of a slab; a piece that does not fit on one gets its own.
    """

    def __init__(self, slab_bytes: int = SLAB_BYTES) -> None:
        self._slab_bytes = slab_bytes
        self._rest = memoryview(b"")

    def keep(self, data: bytes | memoryview) -> memoryview:
        """Copy the bytes; the copy is read-only, its memory is freed with its last reference."""
        n = len(data)
        if n > len(self._rest):
            self._rest = memoryview(mmap.mmap(-1, max(n, self._slab_bytes)))
        kept, self._rest = self._rest[:n], self._rest[n:]
        kept[:] = data
        return kept.toreadonly()


Kept = Words | Compressed | Edges | Said


class PreRollBuffer:
    """Buffer of the pieces of the last `keep_us`, fewer where they would take more than `room_bytes`.

    A chunk of words tells the time before its events, so it is kept until the chunk after it is too old.
    Words and pictures lie in memory of their own, not on the heap.

    Single-threaded: whoever adds.

    Args:
        keep_us: how far back.
        room_bytes: that the pieces may take together.
    """

    def __init__(self, keep_us: int, room_bytes: int) -> None:
        self.keep_us, self.room_bytes = keep_us, room_bytes
        self.held_bytes = 0
        self._arena = ByteArena()
        self._words: deque[Words] = deque()
        self._others: deque[Compressed | Edges | Said] = deque()
        self._reached_us: dict[bool, int] = {}

    def add(self, item: Kept) -> None:
        """Keep a piece, in place of those that are too old or exceed the room.

        A step back by more than is kept means a clock that began anew: then all before it is forgotten.
        """
        is_words = isinstance(item, Words)
        if item.t_us is not None:
            if self._reached_us.get(is_words, item.t_us) - item.t_us > self.keep_us:
                self._forget_all()
            self._reached_us[is_words] = item.t_us
        if isinstance(item, Words):
            self._words.append(replace(item, data=self._arena.keep(item.data)))
        elif isinstance(item, Compressed):
            self._others.append(replace(item, jpeg=self._arena.keep(item.jpeg)))
        else:
            self._others.append(item)
        self.held_bytes += item.n_bytes
        self._forget_old()
        while self.held_bytes > self.room_bytes and (self._words or self._others):
            self._forget_oldest()

    def items(self) -> list[Piece]:
        """Pieces that are kept: words first, then the rest, each in order of arrival."""
        return [*self._words, *self._others]

    @property
    def held_us(self) -> int:
        """Duration of the pieces that are kept."""
        times = [q[0].t_us for q in (self._words, self._others) if q and q[0].t_us is not None]
        return 0 if not times else max(0, max(self._reached_us.values()) - min(times))

    def _forget_all(self) -> None:
        self._words.clear()
        self._others.clear()
        self._reached_us.clear()
        self.held_bytes = 0

    def _forget_old(self) -> None:
        while len(self._words) > 1 and self._is_old(self._words[1].t_us):
            self.held_bytes -= self._words.popleft().n_bytes
        while self._others and self._is_old(self._others[0].t_us):
            self.held_bytes -= self._others.popleft().n_bytes

    def _is_old(self, t_us: int | None) -> bool:
        return t_us is not None and max(self._reached_us.values()) - t_us > self.keep_us

    def _forget_oldest(self) -> None:
        oldest_words = self._words[0].t_us if self._words else None
        oldest_other = self._others[0].t_us if self._others else None
        if self._words and (oldest_words is None or oldest_other is None or oldest_words <= oldest_other):
            self.held_bytes -= self._words.popleft().n_bytes
        else:
            self.held_bytes -= self._others.popleft().n_bytes


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
