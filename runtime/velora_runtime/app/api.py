"""Recognition from a program of one's own: a loop over predictions, or pair by pair."""

from __future__ import annotations

import logging
import queue
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge.clock import SystemClock
from velora_edge.datatypes import EventBatch, EventFrame, FramePair, RGBFrame
from velora_edge.errors import InputError
from velora_edge.events.accumulate.representations import RegistrationMap, make_accumulator
from velora_edge.events.chunk_stream import BatchCursor
from velora_edge.events.formats.columns import ColumnConverter, match_names
from velora_edge.preprocessing.packer import Pair
from velora_edge.preprocessing.sync import SyncOptions
from velora_edge.vision import Resizer
from velora_runtime.app.session import RunOptions, run_session
from velora_runtime.cameras.drivers.registry import find_run_sources
from velora_runtime.engines.base import EngineOptions
from velora_runtime.inference.recogniser import PairRecogniser
from velora_runtime.inference.run_model import RunModel
from velora_runtime.sinks.base import Sink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from fractions import Fraction
    from os import PathLike
    from types import TracebackType

    from numpy.typing import NDArray

    from velora_edge.datatypes import Prediction
    from velora_edge.events.accumulate.representations import Accumulator
    from velora_runtime.engines.base import Device
    from velora_runtime.pipeline.frame_source import Pace
    from velora_runtime.report import RunReport
    from velora_runtime.sinks.base import Result

_LOG = logging.getLogger("velora_runtime")
LEAVE_S = 20.0
"""Longest wait for a run that was told to end."""
ASK_S = 0.2


def live(
    model: str | PathLike[str],
    events: str | PathLike[str] | None = None,
    rgb: str | PathLike[str] | None = None,
    *,
    pace: Pace = "realtime",
    sync: str = "auto",
    backend: str = "auto",
    device: Device = "auto",
    threads: int = 0,
    duration_s: float | None = None,
    rate_hz: Fraction | None = None,
    note: Callable[[str], None] = _LOG.info,
    **options: Any,
) -> Run:
    """Predictions of a model for what two cameras, or recordings of them, show.

    ```python
    import velora_runtime

    for prediction in velora_runtime.live("demo", events="neuromorphic://", rgb="/dev/video0"):
        print(prediction.t_us, prediction.label, prediction.score)
    ```

    The run has threads of its own and begins at once. At pace `realtime` a loop that is too slow gets the
    newest predictions, and the report counts the others; at `max`, for recordings, the run waits for it.
    Leaving the loop's `with`, or `close`, ends the run.

    Args:
        model: a bundle's folder, or demo.
        events: the event source, as `velora-live --events` has it, or a folder that `--record` wrote.
        rgb: the RGB source; where neither is given, the attached cameras are taken.
        pace: realtime or max.
        sync: how pictures find their time; see `docs/guides/synchronisation.md`.
        backend: that runs the model, or auto.
        device: auto, cpu, cuda, gpu or npu.
        threads: for a model on the CPU; 0: all cores.
        duration_s: of the recording; None: all.
        rate_hz: windows a second, for events alone; None: the model's.
        note: gets lines for people, from any thread; the logger `velora_runtime` by default.
        options: other fields of `velora_runtime.app.session.RunOptions`.

    Raises:
        InputError: by the loop, if the model or a source cannot be used.
        EngineError: by the loop, if no engine can be had, or if it fails.
    """
    found = find_run_sources(
        str(model), None, None if events is None else str(events), None if rgb is None else str(rgb), note
    )
    return Run(
        RunOptions(
            model=found.model,
            events=found.events,
            rgb=found.rgb,
            pace=pace,
            sync=SyncOptions(sync),
            backend=backend,
            engine=EngineOptions(device, threads),
            duration_s=duration_s,
            rate_hz=rate_hz,
            **{"outputs": (), **options},
        ),
        note,
    )


class _Hand(Sink):
    """Sink that hands each prediction to the loop. `take` by the inference thread, else its own."""

    name = "program"
    takes_provisional = True

    def __init__(self, pace: Pace) -> None:
        self.room = 256 if pace == "max" else 1
        self.given: queue.Queue[Prediction] = queue.Queue(1)
        self.is_left = threading.Event()

    def take(self, result: Result) -> Prediction | None:
        """The prediction, once there is one."""
        return result.prediction

    def write(self, item: Prediction) -> None:
        """Wait until the loop takes it, or is left."""
        while not self.is_left.is_set():
            try:
                self.given.put(item, timeout=ASK_S)
            except queue.Full:
                continue
            return


class Run:
    """A run in the background, as an iterator over its predictions; see `live`.

    Single-threaded: the thread that iterates.

    Args:
        options: of the run.
        note: gets lines for people, from any thread.

    Attributes:
        report: counts and times of the run; None until it has ended.
    """

    def __init__(self, options: RunOptions, note: Callable[[str], None]) -> None:
        self.report: RunReport | None = None
        self._hand, self._stop = _Hand(options.pace), threading.Event()
        self._options, self._note = options, note
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="velora-run", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Prediction]:
        return self

    def __next__(self) -> Prediction:
        while True:
            ends = not self._thread.is_alive()  # asked first: what it gave before its end is still there
            try:
                return self._hand.given.get(timeout=0.0 if ends else ASK_S)
            except queue.Empty:
                if ends:
                    break
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        raise StopIteration

    def close(self) -> None:
        """End the run, and wait until cameras and files are closed."""
        self._stop.set()
        self._hand.is_left.set()
        self._thread.join(LEAVE_S)

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self._stop.set()
        self._hand.is_left.set()

    def _work(self) -> None:
        try:
            self.report = run_session(self._options, self._note, sinks=(self._hand,), stop=self._stop)
        except BaseException as error:  # raised again in the loop
            self._error = error


class Recogniser:
    """Recognition of pairs that a program has itself, without cameras, files or threads.

    ```python
    from velora_runtime import Recogniser

    with Recogniser("demo", sensor=(640, 480)) as recogniser:
        for picture, events in mine:
            if (prediction := recogniser.see(picture, events)) is not None:
                print(prediction.label, prediction.score)
    ```

    Single-threaded: whoever calls it.

    Args:
        model: a bundle's folder, or demo.
        sensor: width and height of the event sensor, pixels; needed before events can be given.
        backend: that runs the model, or auto.
        device: auto, cpu, cuda, gpu or npu.
        threads: for a model on the CPU; 0: all cores.
        idle_below: events of a pair, below which nothing is computed once a clip was still; 0: never.

    Attributes:
        manifest: the model's: labels, image size, clip length, the event window that it was trained with.

    Raises:
        InputError: if the bundle cannot be used.
        EngineError: if no engine can be had.
    """

    def __init__(
        self,
        model: str | PathLike[str],
        sensor: tuple[int, int] | None = None,
        *,
        backend: str = "auto",
        device: Device = "auto",
        threads: int = 0,
        idle_below: int = 0,
    ) -> None:
        self._model = RunModel(str(model), backend, EngineOptions(device, threads))
        self.manifest = self._model.manifest
        self._sensor, self._clock = sensor, SystemClock()
        self._packed, self._seq, self._t_us = Pair.empty(self.manifest.image_size), 0, 0
        self._resizer: Resizer | None = None
        self._cursor, self._columns = BatchCursor(), ColumnConverter()
        self._accumulator: Accumulator | None = None
        if sensor is not None:
            event, image_size = self.manifest.event, self.manifest.image_size
            fits = RegistrationMap.from_fit((sensor[1], sensor[0]), image_size, event.fit)
            self._accumulator = make_accumulator(event, fits)
        engine = self._model.open_engine(_LOG.info, has_events=sensor is not None)
        assert engine is not None
        self._inner = PairRecogniser(self.manifest, engine, self._clock, _LOG.info, idle_below)

    @property
    def missing(self) -> int:
        """Number of pairs still missing before the first prediction."""
        return self._inner.missing

    def see(
        self,
        rgb: NDArray[np.uint8] | None = None,
        events: EventBatch | NDArray[Any] | None = None,
        t_us: int | None = None,
    ) -> Prediction | None:
        """Take a pair in: a picture, and the events since the one before.

        Args:
            rgb: uint8[H, W, 3], RGB order, any size; None where there is no picture.
            events: of one window, none of them left out; an array with fields for t, x, y and p (any of the
                usual names, microseconds) or an `EventBatch`; None where the event camera is away. No event
                happened is an empty one.
            t_us: the pair's time; None: the end of the last event.

        Returns:
            The prediction for the clip that ends with the pair; None until a clip is full.

        Raises:
            InputError: if neither is given, or one is not as described.
            EngineError: if the engine fails.
        """
        if rgb is None and events is None:
            raise InputError("expected a picture, events, or both, got neither")
        begun_us = self._clock.now_us()
        batch = None if events is None else self._check(events)
        before_us = self._t_us
        self._t_us = self._end_us(batch) if t_us is None else t_us
        event = None if batch is None else self._render(batch, before_us)
        picture = None if rgb is None else RGBFrame(self._resize(rgb), self._t_us, self._seq)
        packed = self._packed
        packed.events = 0 if batch is None else len(batch)
        packed.frames = FramePair(
            self._seq, self._t_us, picture, event, None if event is None or rgb is None else 0
        )
        self._seq += 1
        packed_us = self._clock.now_us()
        logits = self._inner.see(packed)
        if logits is None:
            return None
        stages = (
            packed_us - begun_us,
            self._inner.encode_us,
            self._inner.head_us,
            self._clock.now_us() - begun_us,
        )
        latency_ms = dict(zip(("pack", "encode", "head", "total"), (us / 1000 for us in stages), strict=True))
        return self._inner.predict(packed, logits, latency_ms, {"rgb": 0, "events": 0})

    def close(self) -> None:
        """Let go of the engine."""
        self._model.close()

    def __enter__(self) -> Recogniser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _end_us(self, batch: EventBatch | None) -> int:
        """A pair's time where nobody says it."""
        if batch is None or not len(batch):
            return self._t_us + self.manifest.event.window_us
        return max(int(batch.t_us.max()) + 1, self._t_us + 1)

    def _check(self, events: EventBatch | NDArray[Any]) -> EventBatch:
        if self._sensor is None:
            raise InputError("events need the sensor's size", remedy="Recogniser(model, sensor=(640, 480))")
        if not isinstance(events, EventBatch):
            names = match_names(events.dtype.names or ())
            if names is None:
                raise InputError(f"events: expected an array with fields t, x, y and p, got {events.dtype}")
            events = self._columns.convert(*(np.ravel(events[names[role]]) for role in "txyp"))
        width, height = self._sensor
        if len(events) and (int(events.x.max()) >= width or int(events.y.max()) >= height):
            raise InputError(
                f"events: expected x below {width} and y below {height}, got up to "
                f"{events.x.max()} and {events.y.max()}",
                remedy="give the sensor's size: Recogniser(model, sensor=(WIDTH, HEIGHT))",
            )
        return events

    def _render(self, batch: EventBatch, before_us: int) -> EventFrame:
        """The frame of all events of the batch, in the packed pair's image."""
        accumulator, window_us = self._accumulator, self.manifest.event.window_us
        assert accumulator is not None
        t0_us = before_us if self._t_us - before_us <= 2 * window_us else self._t_us - window_us
        t1_us = self._t_us
        if len(batch):
            t0_us, t1_us = min(t0_us, int(batch.t_us.min())), max(t1_us, int(batch.t_us.max()) + 1)
        accumulator.begin(t0_us, t1_us)
        self._cursor.load(batch, None)
        self._cursor.accumulate(t1_us, accumulator)
        accumulator.render_into(self._packed.event_image)
        return EventFrame(self._packed.event_image, t0_us, t1_us, accumulator.events)

    def _resize(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The picture, which is now also in the packed pair's image."""
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or not rgb.size:
            raise InputError(f"rgb: expected uint8 of shape (H, W, 3), got {rgb.dtype} of shape {rgb.shape}")
        form, source_hw = self.manifest.rgb, (rgb.shape[0], rgb.shape[1])
        if self._resizer is None or self._resizer.source_hw != source_hw:
            self._resizer = Resizer(source_hw, self.manifest.image_size, form.fit, form.resample)
        self._resizer.resize_into(np.ascontiguousarray(rgb), self._packed.rgb_image)
        return rgb
