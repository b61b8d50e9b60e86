"""Actions on their way out to every sink; and nothing where nobody decides."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from velora_runtime.inference.decision import Action, Decided, Decider, DecisionSettings
from velora_runtime.inference.recogniser import PairRecogniser
from velora_runtime.pipeline.frame_source import RunInputs
from velora_runtime.pipeline.pipeline import Pipeline
from velora_runtime.report import RunReport
from velora_runtime.sinks.base import Result, Sink, SinkContext
from velora_runtime.sinks.jsonl import encode_line
from velora_runtime.sinks.publishers import MqttSink
from velora_runtime.sinks.terminal import TerminalSink, as_action_line
from velora_runtime.sinks.video import _words
from velora_runtime.web.metrics import RunMetrics
from velora_runtime.web.snapshot import About, LabelRun, Latest, Watched

from tests.fakes import FakeClock, FakeRGB, RecordingEngine, tiny_manifest, write_tiny_bundle
from tests.recordings import write_events
from velora_cli.live.live import command
from velora_edge.console import run
from velora_edge.datatypes import FramePair, Prediction
from velora_edge.preprocessing.packer import Packer
from velora_edge.preprocessing.sync import TimestampSync
from velora_edge.preprocessing.windows import WindowRule

if TYPE_CHECKING:
    from pathlib import Path

START = Action(3, "größe", 0.8125, 14, 480_000, 400_000)
END = Action(3, "größe", 0.9375, 40, 1_500_000, 400_000, 1_400_000, "weak")
SAID = Prediction(7, 900, "clap", 0.5, (("clap", 0.5),), 0, None)


def test_a_line_of_an_action_has_a_type() -> None:
    assert [encode_line(START).decode(), encode_line(END).decode()] == [
        '{"v":1,"type":"action","state":"start","action":3,"label":"größe","score":0.8125,"seq":14,'
        '"t_us":480000,"from_us":400000}\n',
        '{"v":1,"type":"action","state":"end","action":3,"label":"größe","score":0.9375,"seq":40,'
        '"t_us":1500000,"from_us":400000,"to_us":1400000,"why":"weak"}\n',
    ]


def test_the_terminal_has_a_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    sink = TerminalSink("", SinkContext(tiny_manifest(), decides=True))
    for action in (START, END):
        sink.write(sink.take_action(action))
    sink.close()
    assert capsys.readouterr().out.splitlines() == [
        "     0.400 s  größe             81% starts",
        "     1.400 s  größe             94% ends after 1.000 s",
    ]


def test_on_a_terminal_actions_stay_above_the_line_and_labels_do_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    sink = TerminalSink("", SinkContext(tiny_manifest(), decides=True))
    for label in ("wave", "still"):
        sink.write(Prediction(1, 5, label, 0.5, ((label, 0.5),), 0, None))
    sink.write(START)
    sink.close()
    printed = capsys.readouterr().out
    assert as_action_line(START) in printed
    assert printed.rindex("still") > printed.index("starts")


class SilentClient:
    """A broker that is there and takes everything."""

    def __init__(self) -> None:
        self.published: list[tuple[str, Any, bool]] = []

    def is_connected(self) -> bool:
        return True

    def publish(self, topic: str, payload: Any, retain: bool = False) -> None:
        self.published.append((topic, json.loads(payload)["t_us"], retain))


def test_mqtt_keeps_the_newest_action_for_those_who_come_later() -> None:
    pytest.importorskip("paho.mqtt", reason="needs the mqtt extra: pip install -e '.[mqtt]'")
    sink = MqttSink("mqtt://127.0.0.1:1/lab/cam", SinkContext(tiny_manifest()))
    sink.close()
    sink._client = client = SilentClient()  # type: ignore[assignment]
    sink.write(SAID)
    sink.write(sink.take_action(START))
    assert client.published == [("lab/cam", 900, False), ("lab/cam/action", 480_000, True)]


def test_the_page_shows_and_remembers_what_was_decided() -> None:
    latest, report = Latest(), RunReport()
    watched = Watched(About("m", "e", {}, "realtime"), latest, report, dict, None)
    latest.take(Result(FramePair(6, 800, None, None), None, 2))
    assert "decision" not in watched.snapshot()
    for t_us, decided in ((900, Decided("unknown", 0.5, None)), (950, Decided("wave", 0.75, 940))):
        said = Prediction(7, t_us, "clap", 0.5, (("clap", 0.5),), 0, None)
        latest.take(Result(FramePair(7, t_us, None, None), said, 0, decided))
    assert watched.snapshot()["decision"] == {"label": "wave", "score": 0.75, "since_us": 940}
    assert watched.snapshot()["label"] == "clap"
    idle = LabelRun("unknown", 900, 900, 0.5, is_idle=True)
    assert latest.history == (idle, LabelRun("wave", 950, 950, 0.75))


def test_the_video_shows_the_decided_label() -> None:
    result = Result(FramePair(7, 900, None, None), SAID, 0, Decided("wave", 0.75, 0))
    assert _words(result)[:2] == ("wave", 0.75)
    assert _words(Result(FramePair(7, 900, None, None), SAID))[:2] == ("clap", 0.5)


def test_metrics_and_report_count_actions_where_there_may_be_any() -> None:
    report = RunReport()
    assert "actions" not in report.as_dict()
    assert "velora_actions_total" not in RunMetrics(()).expose(report)
    report.actions = {"wave": 2, "clap": 1}
    assert report.as_dict()["actions"] == {"wave": 2, "clap": 1}
    assert "actions: clap 1, wave 2" in report.lines()
    assert 'velora_actions_total{label="wave"} 2.0\n' in RunMetrics(()).expose(report)


class Listener(Sink):
    """Keeps what it is told, in order."""

    name = "listener"

    def __init__(self) -> None:
        self.told: list[object] = []

    def take(self, result: Result) -> object:
        return (result.pair.seq, None if result.decided is None else result.decided.label)

    def take_action(self, action: Action) -> object:
        return action

    def write(self, item: object) -> None:
        self.told.append(item)


class Mind(RecordingEngine):
    """Is sure of label 1 in the pairs 4 to 6, and of nothing else."""

    def decide(self, phase: int, presence: Any) -> np.ndarray:
        pair = len(self.decided) + 2
        super().decide(phase, presence)
        return np.array([0, 20 if 4 <= pair <= 6 else 0, 0], np.float32)


def run_pipeline(settings: DecisionSettings | None, n_pairs: int) -> tuple[list[object], RunReport]:
    manifest, clock, sink = tiny_manifest(clip_length=3), FakeClock(), Listener()
    feed = RunInputs(FakeRGB([1000 * k for k in range(1, n_pairs + 1)]), TimestampSync(0, ""))
    packer = Packer(manifest, None, WindowRule(1000, None), clock)
    recogniser = PairRecogniser(manifest, Mind(3, labels=3), clock)
    decider = None if settings is None else Decider(manifest.labels, settings)
    pipeline = Pipeline(manifest, feed, packer, recogniser, [sink], "max", clock, decider=decider)
    return sink.told, pipeline.run()


PLAIN = DecisionSettings(smooth_ms=0, hold_ms=0)


def test_an_action_comes_right_after_the_pair_that_it_was_decided_with() -> None:
    label = tiny_manifest().labels[1]
    told, report = run_pipeline(PLAIN, 9)
    score = pytest.approx(1, abs=1e-6)
    assert told == [
        *((0, None), (1, None)),
        *((2, "unknown"), (3, "unknown")),
        (4, label),
        Action(0, label, score, 4, 5000, 5000),
        *((5, label), (6, label)),
        (7, "unknown"),
        Action(0, label, score, 7, 8000, 5000, 8000, "weak"),
        (8, "unknown"),
    ]
    assert report.actions == {label: 1}


def test_a_run_that_ends_within_an_action_ends_it() -> None:
    label = tiny_manifest().labels[1]
    told, _ = run_pipeline(PLAIN, 6)
    assert told[-1] == Action(0, label, pytest.approx(1, abs=1e-6), 5, 6000, 5000, 6000, "end")


def test_where_nobody_decides_nothing_is_told() -> None:
    told, report = run_pipeline(None, 9)
    assert told == [(k, None) for k in range(9)]
    assert report.actions is None


# ---- the command ----------------------------------------------------------------------------------------


@pytest.fixture
def recording(tmp_path: Path) -> tuple[Path, Path]:
    """A model for windows of 10 ms, and 0.4 s of events."""
    folder = tmp_path / "tiny.velora"
    event = write_tiny_bundle(folder, clip_length=3).manifest.event.model_copy(update={"window_us": 10_000})
    write_tiny_bundle(folder, 3, event=event)
    write_events(tmp_path / "e.raw")
    return folder, tmp_path / "e.raw"


def live(recording: tuple[Path, Path], out: Path, *options: str) -> int:
    model, events = map(str, recording)
    given = [model, "--events", events, "--pace", "max", "--quiet", "--out", str(out), *options]
    return run(command, given, name="velora-live")


def test_predictions_are_the_same_with_and_without_decisions(
    recording: tuple[Path, Path], tmp_path: Path
) -> None:
    """But for latencies; the lines of actions come between, and nowhere else."""
    assert live(recording, tmp_path / "off.jsonl") == 0
    assert live(recording, tmp_path / "on.jsonl", "--decide", "enter=0", "--decide", "leave=0") == 0
    off, on = (
        [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        for name in ("off.jsonl", "on.jsonl")
    )
    assert [{**x, "latency_ms": 0} for x in on if "type" not in x] == [{**x, "latency_ms": 0} for x in off]
    actions = [x for x in on if "type" in x]
    assert [a["state"] for a in actions] == ["start", "end"] * (len(actions) // 2)
    assert (len(actions) >= 2, actions[-1]["why"]) == (True, "end")
    assert not any("type" in x for x in off)


def test_windows_farther_apart_than_a_gap_are_refused(
    recording: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert live(recording, tmp_path / "x.jsonl", "--rate", "0.25", "--decide", "default") == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: windows 4000 ms apart all lie beyond a gap of 2000 ms; add --decide gap_ms=12000"
    )
