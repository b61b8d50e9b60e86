"""Recorder: takes items from the pipeline's threads and hands them to a thread of its own.

    packing thread    -- words, events, edges --+
    RGB thread        -- pictures --------------+--> queue --> recorder's thread --> folder, last seconds
    inference thread  -- predictions -----------+

Whatever goes wrong with a recording ends that recording and is told in its result. The pipeline never sees
its errors, and at pace `realtime` never waits for it.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from velora_edge.errors import InputError
from velora_runtime.queues import ByteQueue
from velora_runtime.recording.items import (
    AppendFile,
    Edges,
    Events,
    Picture,
    RecorderState,
    RecordOptions,
    RecordResult,
    Said,
    Words,
)
from velora_runtime.recording.recorder_worker import ASKED, RUN_ENDED, RecorderWorker
from velora_runtime.recording.words import Place, WordFormat
from velora_runtime.sinks.base import Sink

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from velora_edge.datatypes import EventBatch, Prediction, TriggerBatch
    from velora_edge.events.base import WordsContext
    from velora_edge.preprocessing.folder import Facts
    from velora_edge.preprocessing.sync import AlignedFrame
    from velora_runtime.recording.items import Item
    from velora_runtime.sinks.base import Result

BACKLOG_BYTES = 256 << 20
"""Memory for what waits to be written: 3 s of 720p pictures."""
READY_S = 0.2
"""From one look at the cameras to the next, before the first take."""


@dataclass(slots=True)
class _Order:
    """Function to run in its turn among the pieces."""

    do: Callable[[], object]
    done: Future[object] = field(default_factory=Future)


class Recorder:
    """Recorder of a run. Callable from any thread; `take_*` is quick and never raises.

    Args:
        options: what was asked for.
        about: the recordings' facts, as far as they are known.
        note: gets a line for people when a recording has ended; called by the recorder's threads.
        open_file: makes the files that grow.

    Raises:
        InputError: if the folder that was asked for cannot be recorded to.
    """

    def __init__(
        self,
        options: RecordOptions,
        about: Facts,
        note: Callable[[str], None],
        open_file: Callable[[Path], AppendFile] = AppendFile,
    ) -> None:
        self.options = options
        self._backlog: ByteQueue[Item | _Order] = ByteQueue(BACKLOG_BYTES, waits=options.waits)
        self._form: WordFormat | None = None
        self._number = self._shift_us = 0
        self._latest: Words | Events | None = None
        # Each counter is written by one thread of the pipeline.
        self._dropped = {"word_bytes": 0, "events": 0, "frames": 0, "edges": 0, "predictions": 0}
        self._worker = RecorderWorker(options, about, note, self._dropped, open_file)
        self._is_wanted, self._state = self._worker.is_wanting, self._worker.state()
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)
        self._thread.start()

    @property
    def state(self) -> RecorderState:
        """State of the recorder, as of a moment ago."""
        return replace(self._state, results=self._worker.results, saving=self._worker.saving)

    def begin(self, shift_us: int) -> None:
        """Begin anew: what comes now need not continue what came before; the packing thread."""
        self._number += 1
        self._shift_us = shift_us

    def take_words(self, words: NDArray[np.generic], context: WordsContext) -> None:
        """Take raw words of the event camera; the packing thread."""
        if self._form is None:
            self._form = WordFormat.of(context)
        piece = Words(self._form, words.tobytes(), Place.of(context), self._number, self._shift_us)
        self._take_events(piece, words.nbytes)

    def take_batch(self, batch: EventBatch) -> None:
        """Take events of a camera without raw words, which are not changed later; the packing thread."""
        self._take_events(Events(batch, self._number), len(batch))

    def take_edges(self, edges: TriggerBatch) -> None:
        """Take trigger edges; the packing thread."""
        if self._is_wanted and len(edges):
            self._put(Edges(edges), "edges", len(edges))

    def see(self, frame: AlignedFrame) -> None:
        """Take the picture of an aligned frame; the RGB thread."""
        self.take_picture(frame.frame.image, frame.t_us)

    def take_picture(self, image: NDArray[np.uint8], t_us: int) -> None:
        """Take an RGB frame, uint8[H, W, 3], which is not changed later, and its time; the RGB thread."""
        if self._is_wanted:
            self._put(Picture(image, t_us), "frames", 1)

    def take_prediction(self, prediction: Prediction) -> None:
        """Take a prediction; the inference thread."""
        if self._is_wanted:
            self._put(Said(prediction), "predictions", 1)

    def start(self) -> Path:
        """Begin a recording in a new folder; return the folder.

        Raises:
            InputError: if one is being written, or the folder cannot be made.
        """
        folder = self._ask(self._begin)
        assert isinstance(folder, Path)
        return folder

    def stop(self) -> RecordResult:
        """End the recording; return once its files are closed.

        Raises:
            InputError: if there is none.
        """
        result = self._ask(lambda: self._worker.end(ASKED))
        if not isinstance(result, RecordResult):
            raise InputError("nothing is being recorded", remedy="start a recording first")
        return result

    def save_clip(self) -> Path:
        """Write the last seconds to a new folder, in the background; return the folder.

        Raises:
            InputError: if nothing is kept, or the folder cannot be made.
        """
        folder = self._ask(self._worker.save_clip)
        assert isinstance(folder, Path)
        return folder

    def close(self) -> tuple[RecordResult, ...]:
        """End the recording and finish all clips; return what was recorded in all. May be called again."""
        self._backlog.finish()
        self._thread.join()
        return self._worker.results

    def _work(self) -> None:
        while (item := self._backlog.get()) is not None:
            if isinstance(item, _Order):
                self._obey(item)
            else:
                self._worker.write(item)
            self._is_wanted = self._worker.is_wanting
            self._state = self._worker.state()
        self._worker.end(RUN_ENDED)
        self._worker.join_clips()
        self._state = self._worker.state()

    def _obey(self, order: _Order) -> None:
        try:
            order.done.set_result(order.do())
        except Exception as error:  # goes to whoever asked
            order.done.set_exception(error)

    def _begin(self) -> Path:
        """Begin with the chunk that the packing thread is in: one of a file holds a second or more."""
        self._is_wanted = True  # from here on every piece is put, so none is lost after the latest
        return self._worker.start(self._latest)

    def _take_events(self, item: Words | Events, n: int) -> None:
        self._number += 1
        self._latest = item
        if self._is_wanted:
            self._put(item, "word_bytes" if isinstance(item, Words) else "events", n)

    def _put(self, item: Item, what: str, n: int) -> None:
        if not self._backlog.put(item, item.n_bytes):
            self._dropped[what] += n

    def _ask(self, do: Callable[[], object]) -> object:
        """Run a function in the recorder's thread, after all that was put before; return its result."""
        order = _Order(do)
        if not self._backlog.put(order, 0):
            raise InputError("the run has ended", remedy="start another")
        return order.done.result()


class RecorderSink(Sink):
    """Hands predictions to a recorder, which writes them in its own thread."""

    name = "record"
    takes_provisional = True

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def take(self, result: Result) -> None:
        """Hand on the prediction, where there is one; nothing is left for `write`."""
        if result.prediction is not None:
            self._recorder.take_prediction(result.prediction)

    def write(self, item: object) -> None:
        """Never called."""


@dataclass(frozen=True, slots=True)
class TakePlan:
    """Plan of takes of one label.

    Attributes:
        label: name of the class.
        takes: how many.
        seconds: length of each.
        countdown_s: whole seconds before each.
    """

    label: str
    takes: int
    seconds: float
    countdown_s: int = 3


class Takes:
    """Recordings of one label, one after the other, each after a countdown, in a thread of their own.

    A take that is not wanted is set aside: its folder's name gets a dot before it, so no data set reads it.

    Args:
        recorder: of the run.
        plan: what to record.
        is_ready: whether all cameras deliver; the first countdown waits for them.
        note: gets lines for people.
        stop: ends the run once all is recorded.
        bell: sounds once a second of a countdown, and when a take begins and ends.
    """

    def __init__(
        self,
        recorder: Recorder,
        plan: TakePlan,
        is_ready: Callable[[], bool],
        note: Callable[[str], None],
        stop: Callable[[], None],
        bell: Callable[[], None],
    ) -> None:
        self._recorder, self.plan, self._is_ready = recorder, plan, is_ready
        self._note, self._stop, self._bell = note, stop, bell
        self._taken: list[Path] = []
        self._interrupted, self._is_closed = threading.Event(), False
        self._phase: tuple[str, int] = ("waiting", 0)
        self._thread = threading.Thread(target=self._work, name="takes", daemon=True)
        self._thread.start()

    def state(self) -> dict[str, object]:
        """Phase (waiting, countdown, recording, done), seconds left of a countdown, number of the take."""
        phase, left_s = self._phase
        number = min(len(self._taken) + 1, self.plan.takes)
        plan = self.plan
        said = {"phase": phase, "left_s": left_s, "number": number}
        return {**said, "takes": plan.takes, "label": plan.label, "seconds": plan.seconds}

    def again(self) -> None:
        """Set aside the take that is recorded, or else the last one, and record it again."""
        self._interrupted.set()

    def join(self, timeout_s: float | None = None) -> None:
        """Wait until all is recorded."""
        self._thread.join(timeout_s)

    def close(self) -> None:
        """End the takes; one that is being recorded is set aside. May be called again."""
        self._is_closed = True
        self._interrupted.set()
        self._thread.join()

    def _work(self) -> None:
        try:
            while not self._is_ready() and not self._is_closed:
                self._interrupted.wait(READY_S)
                self._interrupted.clear()
            while len(self._taken) < self.plan.takes and not self._is_closed:
                if self._count_down():
                    self._record()
        except (InputError, OSError) as error:
            self._note(f"no more takes: {error}")
        self._phase = "done", 0
        if not self._is_closed:
            self._note(f"{len(self._taken)} takes of {self.plan.label} in {self._recorder.options.parent}")
            self._stop()

    def _count_down(self) -> bool:
        """Whether the countdown ended undisturbed; otherwise the last take was set aside."""
        number, plan = len(self._taken) + 1, self.plan
        for left_s in range(plan.countdown_s, 0, -1):
            self._phase = "countdown", left_s
            self._note(f"{plan.label}, take {number} of {plan.takes}: in {left_s} s")
            self._bell()
            if self._interrupted.wait(1):
                if not self._is_closed and self._taken:
                    self._set_aside(self._taken.pop())
                self._clear()
                return False
        return True

    def _record(self) -> None:
        folder = self._recorder.start()
        self._phase = "recording", 0
        self._note(f"{self.plan.label}: now, {self.plan.seconds:g} s")
        self._bell()
        is_cut = self._interrupted.wait(self.plan.seconds)
        result = self._recorder.stop()
        self._bell()
        self._clear()
        if is_cut:
            self._set_aside(folder)
        elif result.is_whole:
            self._taken.append(folder)
        else:
            raise InputError(result.why, path=folder)

    def _clear(self) -> None:
        if not self._is_closed:
            self._interrupted.clear()

    def _set_aside(self, folder: Path) -> None:
        if not folder.exists():  # nothing had come yet
            return
        folder.rename(folder.with_name(f".{folder.name}"))
        self._note(f"{folder.name} is set aside, as .{folder.name}")
