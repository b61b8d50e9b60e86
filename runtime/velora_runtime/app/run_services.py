"""Services beside the pipeline: the recorder, the page, the keys of the terminal."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from velora_edge.errors import InputError, MissingExtraError
from velora_edge.preprocessing.segments import SEGMENTS, Segment, write_segments

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from velora_edge.events.base import EventStream
    from velora_runtime.pipeline.frame_source import Pace, RunInputs
    from velora_runtime.recording.items import RecordResult
    from velora_runtime.recording.recorder import Recorder, TakePlan, Takes
    from velora_runtime.report import RunReport
    from velora_runtime.sinks.base import Sink
    from velora_runtime.web.server import WebServer
    from velora_runtime.web.snapshot import Latest


POLL_S = 0.2


def _ring_bell() -> None:
    """Sound the terminal's bell, where there is one."""
    if sys.stderr.isatty():
        os.write(sys.stderr.fileno(), b"\a")


class KeyReader:
    """Calls a function for each key that has one, in a thread of its own; does nothing without a terminal.

    Ctrl-C and Ctrl-Z keep their effect. The terminal is as it was once `close` has returned.

    Args:
        actions: what each key does; an action must not raise.
        fd: the terminal's file descriptor.
    """

    def __init__(self, actions: Mapping[str, Callable[[], None]], fd: int = 0) -> None:
        self._actions, self._fd = actions, fd
        self._ended = threading.Event()
        self._before: list[object] | None = None
        self._thread = threading.Thread(target=self._work, name="keys", daemon=True)
        if _is_foreground(fd):
            import termios
            import tty

            self._before = termios.tcgetattr(fd)
            tty.setcbreak(fd)
            self._thread.start()

    @property
    def is_listening(self) -> bool:
        """Whether keys are read: there is a terminal."""
        return self._before is not None

    def close(self) -> None:
        """Stop, and leave the terminal as it was. May be called again."""
        self._ended.set()
        if self._before is not None:
            import termios

            self._thread.join(5 * POLL_S)
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)  # type: ignore[arg-type]

    def _work(self) -> None:
        while not self._ended.is_set():
            if not select.select([self._fd], [], [], POLL_S)[0]:
                continue
            try:
                typed = os.read(self._fd, 32)
            except OSError:
                return
            if not typed:
                return
            for key in typed.decode(errors="ignore"):
                if key in self._actions:
                    self._actions[key]()


def _is_foreground(fd: int) -> bool:
    """Whether it is a terminal of a foreground process: one in the background that reads it is stopped."""
    try:
        return os.isatty(fd) and sys.platform != "win32" and os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return False


class Marks:
    """Segments of the recording that is being written, marked while it runs. Callable from any thread.

    A mark lies at the newest frame that was written: what a camera and the queues take, a person's reaction
    takes too. Each segment that has ended is in the recording's `segments.csv` at once.

    Args:
        recorder: of the run.
        labels: names of the classes, by number.
    """

    def __init__(self, recorder: Recorder, labels: tuple[str, ...]) -> None:
        self.labels = labels
        self._recorder, self._lock = recorder, threading.Lock()
        self._folder: Path | None = None
        self._segments: list[Segment] = []
        self._open: tuple[str, float] | None = None

    @property
    def open_label(self) -> str | None:
        """Label of the segment that has begun; None where there is none, or its recording has ended."""
        begun, folder = self._open, self._recorder.state.folder
        return begun[0] if begun is not None and folder is not None and folder == self._folder else None

    def press(self, number: int) -> str:
        """Begin a segment of a label, by its number from 0; end the one that has begun; return what was done.

        Raises:
            InputError: if nothing is being recorded, or no picture has come yet.
        """
        with self._lock:
            state, label = self._recorder.state, self.labels[number]
            if state.folder != self._folder:
                self._finish()
            if state.folder is None or not state.frames:
                raise InputError("nothing is marked: no picture is being recorded", remedy="record --rgb too")
            self._folder = state.folder
            begun = self._open
            self._end(state.seconds)
            if begun is not None and begun[0] == label:
                return f"{label} ends at {state.seconds:.2f} s"
            self._open = label, state.seconds
            return f"{label} begins at {state.seconds:.2f} s"

    def finish(self) -> None:
        """End the segment that has begun where its recording ended. May be called again."""
        with self._lock:
            self._finish()

    def _finish(self) -> None:
        for result in self._recorder.state.results:
            if result.folder == self._folder:
                self._end(result.seconds)
        self._folder, self._open, self._segments = None, None, []

    def _end(self, seconds: float) -> None:
        begun, self._open = self._open, None
        if begun is not None and self._folder is not None and seconds > begun[1]:
            label, start = begun
            self._segments.append(Segment(round(start * 1e6), round(seconds * 1e6), label))
            write_segments(self._folder / SEGMENTS, self._segments)


KEEP_S = 10.0


@dataclass(frozen=True, slots=True)
class AttachOptions:
    """Options of the services; `velora-live --help` explains each.

    Attributes:
        record: folder of the recording that begins with the run, or None.
        recordings: folder for later recordings and for clips.
        keep_s: how far back a clip reaches; 0: no clips; None: 10 where something can ask for one.
        serve: HOST:PORT of the page, or None.
        token: that the page asks for; None: what fits the address.
        keys: single keys on the terminal record and save clips.
        perf_s: from one line about what live cameras deliver to the next; None: only one at the end.
        takes: recordings of one label that are made one after the other; None for none.
        labels: that keys and the page mark the running recording with.
    """

    record: str | None = None
    recordings: str = "recordings"
    keep_s: float | None = None
    serve: str | None = None
    token: str | None = field(default=None, repr=False)
    keys: bool = False
    perf_s: float | None = None
    takes: TakePlan | None = None
    labels: tuple[str, ...] = ()

    @property
    def wants_recorder(self) -> bool:
        """Whether anything may be recorded in this run."""
        asks = self.record is not None or self.serve is not None or self.takes is not None
        return asks or bool(self.keep_s)


@dataclass(frozen=True, slots=True)
class RunFacts:
    """Facts of a run for its services.

    Attributes:
        model: name and path; None where there is no model.
        events: the event source, as the user called it, or none.
        rgb: the RGB source, likewise.
        pace: realtime or max.
    """

    model: Mapping[str, str] | None
    events: str
    rgb: str
    pace: Pace


class RunServices:
    """Opened before the pipeline, closed after it. Single-threaded: the main thread.

    Args:
        options: what was asked for.
        run: what the run is.
        note: gets lines for people, from any thread.
    """

    def __init__(self, options: AttachOptions, run: RunFacts, note: Callable[[str], None]) -> None:
        self._options, self._run, self._note = options, run, note
        self._recorder: Recorder | None = None
        self._latest: Latest | None = None
        self._server: WebServer | None = None
        self._keys: KeyReader | None = None
        self._takes: Takes | None = None
        self._marks: Marks | None = None
        self._results: tuple[RecordResult, ...] = ()

    def open_recorder(self, sensor: tuple[int, int] | None) -> None:
        """Make the recorder, if one is wanted, before any source is read from.

        Args:
            sensor: width and height of the event camera, pixels; None without one.

        Raises:
            InputError: if the folder cannot be recorded to.
        """
        if not self._options.wants_recorder:
            return
        from velora_edge.preprocessing.folder import Facts
        from velora_runtime.recording.items import RecordOptions
        from velora_runtime.recording.recorder import Recorder

        asked, run = self._options, self._run
        keep_s = asked.keep_s if asked.keep_s is not None else KEEP_S
        options = RecordOptions(
            None if asked.record is None else Path(asked.record),
            Path(asked.recordings),
            round(keep_s * 1e6),
            waits=run.pace == "max",
        )
        about = Facts(
            model=None if run.model is None else dict(run.model),
            events=None if sensor is None else {"source": run.events, "sensor": list(sensor)},
            video=None if run.rgb == "none" else {"source": run.rgb},
        )
        self._recorder = Recorder(options, about, self._note)

    def listen_to_events(self, stream: EventStream) -> None:
        """Let the recorder listen to the stream's words, events and edges."""
        if self._recorder is not None:
            stream.listen(self._recorder)

    def listen_to_frames(self, inputs: RunInputs) -> RunInputs:
        """Let the recorder see the frames that have a time on the event clock."""
        return inputs if self._recorder is None else replace(inputs, watches=self._recorder.see)

    def sinks(self) -> list[Sink]:
        """Sinks of the recorder and the page.

        Raises:
            MissingExtraError: if the page's libraries are not installed.
        """
        sinks: list[Sink] = []
        if self._recorder is not None:
            from velora_runtime.recording.recorder import RecorderSink

            sinks.append(RecorderSink(self._recorder))
        if self._options.serve is not None:
            try:
                from velora_runtime.web.snapshot import Latest
            except ImportError as error:
                raise MissingExtraError(error.name or "prometheus_client", "web", "--serve") from error
            self._latest = Latest()
            sinks.append(self._latest)
        return sinks

    def begin(
        self,
        report: RunReport,
        engine: str,
        cameras: Callable[[], Mapping[str, str]],
        stop: Callable[[], None] = lambda: None,
    ) -> None:
        """Open the page, listen to the keys and begin the takes, once the pipeline is made.

        Args:
            report: of the run.
            engine: name of what the model runs on.
            cameras: gives each camera's state, by `rgb` and `event`; callable from any thread.
            stop: ends the run.

        Raises:
            InputError: if the page cannot be served there.
            MissingExtraError: if the page's libraries are not installed.
        """
        asked = self._options
        if self._recorder is not None and asked.labels:
            self._marks = Marks(self._recorder, asked.labels)
        if self._recorder is not None and asked.takes is not None:
            self._begin_takes(self._recorder, asked.takes, cameras, stop)
        if asked.serve is not None and self._latest is not None:
            from velora_runtime.web.server import WebServer, live_site
            from velora_runtime.web.snapshot import About, Watched

            run = self._run
            model = "no model" if run.model is None else run.model["name"]
            about = About(model, engine, {"rgb": run.rgb, "event": run.events}, run.pace)
            watched = Watched(about, self._latest, report, cameras, self._recorder, self._takes, self._marks)
            self._server = WebServer(asked.serve, asked.token, live_site(watched, self._note), self._note)
        if self._options.keys and self._recorder is not None:
            self._listen_to_keys(self._recorder)

    def end(self) -> None:
        """Close the page, end the recordings, restore the terminal. May be called again."""
        with contextlib.ExitStack() as closing:
            if self._recorder is not None:
                closing.callback(self._end_recorder, self._recorder)
            if self._server is not None:
                closing.callback(self._server.close)
            if self._keys is not None:
                closing.callback(self._keys.close)
            if self._takes is not None:
                closing.callback(self._takes.close)

    def summary(self) -> dict[str, Any]:
        """Results of the services for `--summary`; empty where nothing could be recorded."""
        return {} if self._recorder is None else {"recordings": [r.as_dict() for r in self._results]}

    def warnings(self) -> list[str]:
        """Warnings about recordings that ended early."""
        return [f"the recording in {r.folder} was {r.why}" for r in self._results if not r.is_whole]

    def _end_recorder(self, recorder: Recorder) -> None:
        had_ended = bool(self._results)
        self._results = recorder.close()
        if self._marks is not None:
            self._marks.finish()
        if self._results and not had_ended and self._options.takes is None:
            model = "MODEL" if self._run.model is None else self._run.model["path"]
            self._note(f"replay it: velora-live {model} {self._results[-1].folder}")

    def _listen_to_keys(self, recorder: Recorder) -> None:
        def toggle() -> None:
            if recorder.state.folder is not None:
                recorder.stop()
            else:
                self._note(f"recording to {recorder.start()}")

        clip = lambda: self._note(f"saving a clip to {recorder.save_clip()}")  # noqa: E731
        actions: dict[str, Callable[[], None]] = {"r": toggle, "s": clip}
        told = "r begins and ends a recording, s saves the last seconds"
        if self._takes is not None:
            actions, told = {"t": self._takes.again}, "t sets a take aside and records it again"
        elif (marks := self._marks) is not None:
            for k in range(min(len(marks.labels), 9)):
                actions[str(k + 1)] = lambda k=k: self._note(marks.press(k))  # type: ignore[misc]
            told += "".join(f", {k + 1} {label}" for k, label in enumerate(marks.labels[:9]))
        self._keys = KeyReader({key: self._safely(action) for key, action in actions.items()})
        if self._keys.is_listening:
            self._note(f"keys: {told}")

    def _begin_takes(
        self,
        recorder: Recorder,
        plan: TakePlan,
        cameras: Callable[[], Mapping[str, str]],
        stop: Callable[[], None],
    ) -> None:
        from velora_runtime.recording.recorder import Takes

        def is_ready() -> bool:
            return all(state in ("live", "none") for state in cameras().values())

        self._takes = Takes(recorder, plan, is_ready, self._note, stop, _ring_bell)

    def _safely(self, action: Callable[[], object]) -> Callable[[], None]:
        def act() -> None:
            try:
                action()
            except InputError as error:
                self._note(str(error))

        return act
