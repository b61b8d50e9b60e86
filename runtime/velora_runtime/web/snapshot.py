"""Snapshot of a run's state as plain values, for the page and `/metrics`."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from velora_runtime.report import STAGES
from velora_runtime.sinks.base import Sink
from velora_runtime.web.metrics import RunMetrics, gauge

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray
    from prometheus_client.metrics_core import Metric

    from velora_edge.datatypes import Prediction
    from velora_runtime.inference.decision import Decided
    from velora_runtime.recording.recorder import Recorder, Takes
    from velora_runtime.report import RunReport
    from velora_runtime.sinks.base import Result


PICTURES_HZ, UNWATCHED_HZ = 15, 1
"""Pictures are copied and compressed at most this often, however many pairs there are and whoever watches;
copied the less often if nobody has watched for a second."""
SPELLS_KEPT = 60
MOMENTS_HZ, MOMENTS_KEPT = 4, 240
"""Moments of the last minute."""


@dataclass(frozen=True, slots=True)
class LabelRun:
    """A time during which one label was the best, or was decided on in a run that decides.

    Attributes:
        label: that label.
        t0_us: time of its first prediction.
        t1_us: of its last.
        score: the highest.
        is_idle: in a run that decides, no action was held to be going on.
    """

    label: str
    t0_us: int
    t1_us: int
    score: float
    is_idle: bool = False


@dataclass(frozen=True, slots=True)
class Moment:
    """Figures of one pair, for charts over time.

    Attributes:
        seen_s: when, on the machine's monotonic clock.
        events_hz: events a second in its window; None without an event frame.
        total_ms: latency of its prediction; None without one.
        top: the best labels and their scores, the best first.
    """

    seen_s: float
    events_hz: float | None
    total_ms: float | None
    top: tuple[tuple[str, float], ...]

    @classmethod
    def of(cls, result: Result, now_s: float) -> Moment:
        """The figures of a result."""
        event, said = result.pair.event, result.prediction
        events_hz = None if event is None else event.events * 1e6 / max(event.t1_us - event.t0_us, 1)
        total_ms = None if said is None else said.latency_ms.get("total")
        return cls(now_s, events_hz, total_ms, () if said is None else said.top)

    def as_list(self, now_s: float) -> list[Any]:
        """Its age in seconds and the figures, as JSON takes them."""
        top = [[label, round(score, 3)] for label, score in self.top]
        rate = None if self.events_hz is None else round(self.events_hz)
        total_ms = None if self.total_ms is None else round(self.total_ms, 3)
        return [round(now_s - self.seen_s, 2), rate, total_ms, top]


@dataclass(frozen=True, slots=True)
class Scene:
    """Newest pair and prediction; never changed.

    Attributes:
        number: of the moment, from 1; 0 before the first.
        prediction: None while the first clip is not full.
        missing: pairs that lack until it is.
        skew_us: of the pair.
        rgb: uint8[H, W, 3], the newest picture; None where there is no RGB camera, or it is gone.
        event: uint8[H, W, 3], an event frame of the last moments, likewise.
        seen_s: when, on the machine's monotonic clock.
        decided: what is held to be going on; None in a run that does not decide.
    """

    number: int = 0
    prediction: Prediction | None = None
    missing: int = 0
    skew_us: int | None = None
    rgb: NDArray[np.uint8] | None = None
    event: NDArray[np.uint8] | None = None
    seen_s: float = 0.0
    decided: Decided | None = None


class Latest(Sink):
    """Keeps the newest scene, the history of labels and the metrics.

    `take` is called by the inference thread and takes microseconds; everything may be read from any thread.

    Attributes:
        scene: the newest.
        history: labels one after the other, the newest last; replaced, never changed.
        moments: figures of the last minute, four a second, the newest last; replaced, never changed.
        metrics: for `/metrics`.
        watched_s: when somebody last asked for a picture, on the machine's monotonic clock.
    """

    name = "page"
    room = 1

    def __init__(self) -> None:
        self.scene = Scene()
        self.metrics = RunMetrics(STAGES)
        self.history: tuple[LabelRun, ...] = ()
        self.moments: tuple[Moment, ...] = ()
        self._copied_s = self.watched_s = float("-inf")

    def take(self, result: Result) -> None:
        """Replace the scene; nothing is left for `write`."""
        self.metrics.observe(result)
        if result.prediction is not None:
            is_idle = result.decided is not None and result.decided.since_us is None
            said = result.decided or result.prediction
            self._extend_history(said, result.prediction.t_us, is_idle=is_idle)
        pair, last, now_s = result.pair, self.scene, time.monotonic()
        if not self.moments or now_s - self.moments[-1].seen_s >= 1 / MOMENTS_HZ:
            self.moments = (*self.moments[1 - MOMENTS_KEPT :], Moment.of(result, now_s))
        event = None if pair.event is None else last.event
        most_hz = PICTURES_HZ if now_s - self.watched_s < 1 else UNWATCHED_HZ
        if pair.event is not None and (event is None or now_s - self._copied_s >= 1 / most_hz):
            event, self._copied_s = pair.event.image.copy(), now_s
        rgb = None if pair.rgb is None else pair.rgb.image
        self.scene = Scene(
            last.number + 1,
            result.prediction,
            result.missing,
            pair.skew_us,
            rgb,
            event,
            now_s,
            result.decided,
        )

    def write(self, item: object) -> None:
        """Never called."""

    def _extend_history(self, said: Prediction | Decided, t_us: int, *, is_idle: bool) -> None:
        before, spell = self.history, LabelRun(said.label, t_us, t_us, said.score, is_idle)
        if before and before[-1].label == said.label and before[-1].is_idle == is_idle:
            last, before = before[-1], before[:-1]
            spell = replace(spell, t0_us=last.t0_us, score=max(last.score, said.score))
        self.history = (*before[1 - SPELLS_KEPT :], spell)


STALLED_S = 3.0
"""Without a new pair for so long, a run is stalled."""
STARTING_S = 30.0
"""So long may the first pair take."""
CAMERA_STATES = ("none", "starting", "live", "stalled", "lost", "ended")


@dataclass(frozen=True, slots=True)
class About:
    """Facts that do not change during a run.

    Attributes:
        model: its name.
        engine: what it runs on.
        sources: camera and what the user called it.
        pace: realtime or max.
    """

    model: str
    engine: str
    sources: Mapping[str, str]
    pace: str


class Marking(Protocol):
    """Marks of the running recording; see `velora_runtime.app.run_services.Marks`."""

    labels: tuple[str, ...]

    @property
    def open_label(self) -> str | None:
        """Label of the segment that has begun."""

    def press(self, number: int) -> str:
        """Begin or end a segment of a label, by its number; return what was done."""


class Watched:
    """View of a run for the server. Reads only; the server's thread.

    Args:
        about: what does not change.
        latest: the newest scene.
        report: of the run, while it is running.
        cameras: gives each camera's state, one of `CAMERA_STATES`; called by the server's thread.
        recorder: None where nothing can be recorded.
        takes: None where no takes are recorded.
        marks: None where the recording cannot be marked.
    """

    def __init__(
        self,
        about: About,
        latest: Latest,
        report: RunReport,
        cameras: Callable[[], Mapping[str, str]],
        recorder: Recorder | None,
        takes: Takes | None = None,
        marks: Marking | None = None,
    ) -> None:
        self.takes, self.marks = takes, marks
        self.about, self.latest, self.report, self.recorder = about, latest, report, recorder
        self._cameras = cameras
        self._began_s = time.monotonic()
        self._rate, self._frame_rate = _Rate(), _Rate()

    def health(self) -> str:
        """`ok`, `starting`, `stalled`, or `ended`."""
        scene, now_s = self.latest.scene, time.monotonic()
        if self.report.wall_us:
            return "ended"
        if not scene.number:
            return "starting" if now_s - self._began_s < STARTING_S else "stalled"
        return "ok" if now_s - scene.seen_s < STALLED_S else "stalled"

    def snapshot(self) -> dict[str, Any]:
        """Everything, as JSON takes it."""
        scene, report, marks = self.latest.scene, self.report, self.marks
        said = scene.prediction
        return {
            "v": 1,
            "number": scene.number,
            "health": self.health(),
            "uptime_s": round(time.monotonic() - self._began_s, 1),
            "model": self.about.model,
            "engine": self.about.engine,
            "pace": self.about.pace,
            "t_us": None if said is None else said.t_us,
            "label": None if said is None else said.label,
            "score": None if said is None else round(said.score, 4),
            "top": [] if said is None else [[label, round(score, 4)] for label, score in said.top],
            "missing": scene.missing,
            **self._decision(),
            "history": [
                {
                    "label": s.label,
                    "t0_us": s.t0_us,
                    "t1_us": s.t1_us,
                    "score": round(s.score, 4),
                    **({"idle": True} if s.is_idle else {}),
                }
                for s in self.latest.history
            ],
            "latency_ms": self._latencies(),
            "skew_us": scene.skew_us,
            "events": None if said is None else said.events,
            "pairs_hz": self._rate.of(report.pairs.packed),
            "pairs": report.pairs.packed,
            "predictions": report.predictions,
            "dropped": {
                **report.dropped(),
                "pairs": report.pairs.dropped,
                "late": report.frames.late,
                "unplaced": report.frames.unplaced,
                "sinks": sum(dict(report.sink_drops).values()),
            },
            "cameras": self._camera_states(),
            "pictures": {"rgb": scene.rgb is not None, "event": scene.event is not None},
            "recorder": self._recorder_state(),
            "takes": None if self.takes is None else self.takes.state(),
            "marks": None if marks is None else {"labels": marks.labels, "open": marks.open_label},
        }

    def trend(self) -> list[list[Any]]:
        """Figures of the last minute: age in seconds, events a second, latency in ms, best labels."""
        now_s = time.monotonic()
        return [moment.as_list(now_s) for moment in self.latest.moments]

    def metrics(self, viewers: int, refused: int = 0) -> str:
        """The text for `/metrics`."""
        states = self._cameras()
        gauges = (
            gauge(
                "velora_info",
                "The run.",
                ({"model": self.about.model, "engine": self.about.engine, "pace": self.about.pace}, 1),
            ),
            gauge("velora_up", "1 while pairs come.", ({}, int(self.health() in ("ok", "starting")))),
            gauge(
                "velora_camera_state",
                "1 for the state that a camera is in.",
                *(
                    ({"camera": camera, "state": state}, int(state == now))
                    for camera, now in states.items()
                    for state in CAMERA_STATES
                ),
            ),
            gauge("velora_viewers", "Streams that are being watched.", ({}, viewers)),
            gauge("velora_connections_refused", "Connections that asked nothing.", ({}, refused)),
            *self._recorder_gauges(),
        )
        return self.latest.metrics.expose(self.report, gauges)

    def _camera_states(self) -> dict[str, dict[str, Any]]:
        """State and source of each camera, what it delivers a second, and what was dropped of it."""
        moments, dropped = self.latest.moments, self.report.dropped()
        rates = {
            "rgb": self._frame_rate.of(self.report.frames.read),
            "event": round(moments[-1].events_hz or 0) if moments else 0,
        }
        drops = {"rgb": dropped["rgb"], "event": dropped["events"]}
        return {
            camera: {
                "state": state,
                "source": self.about.sources.get(camera, ""),
                "rate_hz": rates.get(camera, 0) if state == "live" else 0,
                "dropped": drops.get(camera, 0),
            }
            for camera, state in self._cameras().items()
        }

    def _decision(self) -> dict[str, Any]:
        decided = self.latest.scene.decided
        if decided is None:
            return {}
        said = {"label": decided.label, "score": round(decided.score, 4), "since_us": decided.since_us}
        return {"decision": said}

    def _latencies(self) -> dict[str, dict[str, float]]:
        said = self.latest.scene.prediction
        return {
            stage: {
                "last": round(said.latency_ms.get(stage, 0.0), 3) if said else 0.0,
                **values.summary(1000),
            }
            for stage, values in self.report.latency_us.items()
        }

    def _recorder_state(self) -> dict[str, Any] | None:
        if self.recorder is None:
            return None
        state = self.recorder.state
        return {
            "folder": None if state.folder is None else str(state.folder),
            "seconds": round(state.seconds, 2),
            "bytes": state.n_bytes,
            "frames": state.frames,
            "keeps_s": self.recorder.options.keep_us / 1e6,
            "kept_s": round(state.kept_us / 1e6, 2),
            "saving": state.saving,
            "ended": [result.as_dict() for result in state.results[-5:]],
        }

    def _recorder_gauges(self) -> list[Metric]:
        if self.recorder is None:
            return []
        state = self.recorder.state
        failed = sum(not result.is_whole for result in state.results)
        return [
            gauge("velora_recording", "1 while a recording is written.", ({}, int(state.folder is not None))),
            gauge("velora_recording_bytes", "Written to it so far.", ({}, state.n_bytes)),
            gauge("velora_recordings_failed", "Recordings that something ended early.", ({}, failed)),
            gauge("velora_kept_bytes", "Memory that the last seconds take.", ({}, state.kept_bytes)),
        ]


class _Rate:
    """Rate of a growing count over the last second."""

    def __init__(self) -> None:
        self._then_s, self._then, self._rate = time.monotonic(), 0, 0.0

    def of(self, count: int) -> float:
        now_s = time.monotonic()
        if now_s - self._then_s >= 1:
            self._rate = (count - self._then) / (now_s - self._then_s)
            self._then_s, self._then = now_s, count
        return round(self._rate, 1)
