"""Where a recorder listens: beside the event stream, the synchronisation and the predictions.

Each wraps a part of the pipeline, or stands beside one, and changes nothing of what goes through.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from velora_edge.datatypes import TriggerBatch
from velora_edge.events.base import EventStream
from velora_runtime.sinks.base import Sink

if TYPE_CHECKING:
    from collections.abc import Callable

    from velora_edge.datatypes import RGBFrame
    from velora_edge.events.base import EventTap, FrameAccumulator
    from velora_edge.preprocessing.sync import AlignedFrame, Sync
    from velora_runtime.recording.recorder import Recorder
    from velora_runtime.sinks.base import Result

EDGES_KEPT = 4096
"""Batches of edges that wait for whoever asks for them; nobody may, for days."""


class RecordedStream(EventStream):
    """An event stream whose words, events and edges a recorder gets too; in all else it is that stream.

    Single-threaded: whoever packs frames from it.
    """

    def __init__(self, stream: EventStream, recorder: Recorder) -> None:
        self.width, self.height = stream.width, stream.height
        self._stream, self._recorder = stream, recorder
        self._edges: deque[TriggerBatch] = deque(maxlen=EDGES_KEPT)
        stream.listen(recorder)

    def __getattr__(self, name: str) -> Any:
        """What streams of this kind have beyond others."""
        return getattr(self._stream, name)

    @property
    def is_live(self) -> bool:  # type: ignore[override]
        """Events are still on their way."""
        return self._stream.is_live

    @property
    def shift_us(self) -> int:  # type: ignore[override]
        """What to add to the camera's times to get the stream's."""
        return self._stream.shift_us

    def await_window(self, t0_us: int, t1_us: int, meanwhile: Callable[[], None] | None = None) -> bool:
        """Wait until all events of [t0, t1) are there, or will not come; whether the camera was there."""
        return self._stream.await_window(t0_us, t1_us, meanwhile)

    @property
    def reached_us(self) -> int | None:
        """How far a stream that can go back has come."""
        return self._stream.reached_us

    def checkpoint(self) -> None:
        """Remember this place."""
        self._stream.checkpoint()

    def rollback(self) -> None:
        """Stand at the mark again."""
        self._stream.rollback()

    def commit(self) -> None:
        """Forget the mark."""
        self._stream.commit()

    @property
    def t_next_us(self) -> int | None:
        """Time of the next event, or None at the end of the stream."""
        t_us = self._stream.t_next_us
        if t_us is None:
            self._take_edges()
        return t_us

    def skip_until(self, t_us: int) -> int:
        """Pass over the events before `t_us`; return how many they were."""
        skipped = self._stream.skip_until(t_us)
        self._take_edges()
        return skipped

    def accumulate_until(self, t1_us: int, frame: FrameAccumulator) -> int:
        """Add the events before `t1_us` to the frame; return how many were walked over."""
        walked = self._stream.accumulate_until(t1_us, frame)
        self._take_edges()
        return walked

    def take_triggers(self) -> TriggerBatch:
        """The trigger edges walked over since the last call."""
        self._take_edges()
        taken = TriggerBatch.concatenate(list(self._edges))
        self._edges.clear()
        return taken

    def listen(self, tap: EventTap) -> None:
        """Not for others: the recorder listens."""
        raise RuntimeError("expected one listener, the recorder")

    def close(self) -> None:
        """Let go of files and devices."""
        self._stream.close()

    def _take_edges(self) -> None:
        edges = self._stream.take_triggers()
        if len(edges):
            self._edges.append(edges)
            self._recorder.take_edges(edges)


class RecordedSync:
    """A synchronisation whose placed pictures a recorder gets too, but for those before the run's start.

    Single-threaded: the RGB camera's thread.
    """

    def __init__(self, sync: Sync, recorder: Recorder, start_us: int | None = None) -> None:
        self.line = sync.line
        self._sync, self._recorder, self._start_us = sync, recorder, start_us

    def __getattr__(self, name: str) -> Any:
        """What synchronisations of this kind have beyond others."""
        return getattr(self._sync, name)

    def place(self, frame: RGBFrame) -> AlignedFrame | None:
        """The frame on the event clock; None if it has no place there."""
        placed = self._sync.place(frame)
        if placed is not None and (self._start_us is None or placed.t_us >= self._start_us):
            self._recorder.take_picture(placed.frame.image, placed.t_us)
        return placed


class PredictionTap(Sink):
    """Hands predictions to a recorder, which writes them in its own thread."""

    name = "record"

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def take(self, result: Result) -> None:
        """Hand on the prediction, where there is one; nothing is left for `write`."""
        if result.prediction is not None:
            self._recorder.take_prediction(result.prediction)

    def write(self, item: object) -> None:
        """Never called."""
