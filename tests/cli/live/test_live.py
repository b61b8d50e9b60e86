"""The command `velora-live`, from what a user types to files and exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pytest

from tests.fakes import write_tiny_bundle
from tests.recordings import write_events
from tests.videos import write_video
from velora_cli.live.live import command
from velora_edge.console import run

if TYPE_CHECKING:
    from pathlib import Path

START_US = 7_000_000
PERIOD_US = 10_000


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of three pairs, windows of 10 ms, three labels."""
    event = {"window_us": PERIOD_US}
    folder = tmp_path_factory.mktemp("models") / "tiny.velora"
    bundle = write_tiny_bundle(folder, clip_length=3)
    return write_tiny_bundle(folder, 3, event=bundle.manifest.event.model_copy(update=event)).path


@pytest.fixture
def events(tmp_path: Path) -> Path:
    """4,000 events in 0.4 s, one every 100 us."""
    write_events(tmp_path / "e.raw", start_us=START_US)
    return tmp_path / "e.raw"


def live(*args: object) -> int:
    return run(command, [str(arg) for arg in args], name="velora-live")


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def without_latencies(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**line, "latency_ms": None} for line in lines]


def test_events_alone_give_a_prediction_for_every_window_after_the_first_full_clip(
    model: Path, events: Path, tmp_path: Path
) -> None:
    out = tmp_path / "p.jsonl"
    assert live(model, "--events", events, "--rate", 50, "--pace", "max", "--out", out) == 0
    lines = read_lines(out)
    assert [line["t_us"] for line in lines] == [START_US + 20_000 * k for k in range(3, 20)]
    assert [line["seq"] for line in lines] == list(range(2, 19))
    assert {line["events"] for line in lines} == {100}  # windows of 10 ms in steps of 20 ms
    assert {line["skew_us"] for line in lines} == {None}
    assert all(line["label"] == line["top"][0][0] and line["score"] == line["top"][0][1] for line in lines)
    assert all(abs(sum(score for _, score in line["top"]) - 1) < 1e-5 for line in lines)


def test_rate_may_be_a_fraction_and_defaults_to_the_models_window(
    model: Path, events: Path, tmp_path: Path
) -> None:
    out = tmp_path / "p.jsonl"
    live(model, "--events", events, "--rate", "29.97", "--pace", "max", "--out", out)
    assert [line["t_us"] - START_US for line in read_lines(out)] == [
        k * 100_000_000 // 2997 for k in range(3, 12)
    ]
    live(model, "--events", events, "--pace", "max", "--out", out)
    assert [line["t_us"] - START_US for line in read_lines(out)] == [10_000 * k for k in range(3, 40)]


def test_a_second_run_writes_the_same_but_for_latencies(model: Path, events: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", [PERIOD_US * k for k in range(1, 40)])
    runs = []
    for out in (tmp_path / "a.jsonl", tmp_path / "b.jsonl"):
        assert (
            live(model, "--events", events, "--rgb", tmp_path / "v.mp4", "--pace", "max", "--out", out) == 0
        )
        runs.append(without_latencies(read_lines(out)))
    assert runs[0] == runs[1]
    assert len(runs[0]) == 37


LOST = {"start": [0, 1], "middle": [5, 6, 20], "end": [37, 38, 39]}


@pytest.mark.parametrize("lost", LOST.values(), ids=LOST)
def test_frames_fewer_than_triggers_are_paired_with_their_own(
    model: Path, tmp_path: Path, lost: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    triggers = [START_US + PERIOD_US * (k + 1) for k in range(40)]
    write_events(tmp_path / "e.raw", start_us=START_US, triggers_us=triggers)
    kept = [k for k in range(40) if k not in lost]
    jitter = {k: 300 if k == 12 else 0 for k in kept}
    write_video(tmp_path / "v.mp4", [PERIOD_US * k + jitter[k] for k in kept])
    out, summary = tmp_path / "p.jsonl", tmp_path / "s.json"
    args = ("--events", tmp_path / "e.raw", "--rgb", tmp_path / "v.mp4", "--sync", "trigger")
    assert live(model, *args, "--pace", "max", "--out", out, "--summary", summary) == 0
    lines = read_lines(out)
    assert [line["t_us"] for line in lines] == [triggers[k] for k in kept[2:]]
    assert {line["t_us"] for line in lines if abs(line["skew_us"]) > 60} == {triggers[12]}
    assert abs(next(line for line in lines if line["t_us"] == triggers[12])["skew_us"] - 300) <= 30
    # Windows go back to the trigger before; where frames are missing, by one nominal window.
    assert {line["events"] for line in lines} == {100}
    report = json.loads(summary.read_text())
    assert report["frames"] == {
        "read": len(kept),
        "paired": len(kept),
        "unplaced": 0,
        "late": 0,
        "unused": 0,
        "overrun": 0,
        "early": 0,
    }
    said = capsys.readouterr().err
    assert f"by rising triggers on input 0: {len(kept)} of {len(kept)} frames on 40 edges" in said


def test_a_video_at_another_rate_is_paired_in_order_and_says_so(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    triggers = [START_US + PERIOD_US * (k + 1) for k in range(30)]
    write_events(tmp_path / "e.raw", start_us=START_US, triggers_us=triggers)
    write_video(tmp_path / "v.mp4", [33_333 * k for k in range(25)])
    out = tmp_path / "p.jsonl"
    args = ("--events", tmp_path / "e.raw", "--rgb", tmp_path / "v.mp4", "--sync", "trigger")
    assert live(model, *args, "--pace", "max", "--out", out) == 0
    assert [line["t_us"] for line in read_lines(out)] == triggers[2:25]
    assert "matched in order, first to first" in capsys.readouterr().err


def test_rgb_alone_is_recognised(model: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", [PERIOD_US * k for k in range(6)])
    out = tmp_path / "p.jsonl"
    assert live(model, "--rgb", tmp_path / "v.mp4", "--pace", "max", "--out", out) == 0
    found = [(line["t_us"], line["events"], line["skew_us"]) for line in read_lines(out)]
    assert found == [(PERIOD_US * k, 0, None) for k in range(2, 6)]


def test_video_and_summary_are_written(model: Path, events: Path, tmp_path: Path) -> None:
    overlay, summary = tmp_path / "new" / "o.mp4", tmp_path / "s.json"
    args = ("--events", events, "--pace", "max", "--video", overlay, "--summary", summary, "--quiet")
    assert live(model, *args) == 0
    with av.open(str(overlay)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 39
    report = json.loads(summary.read_text())
    assert (report["model"], report["pairs"], report["predictions"]) == ("tiny", 39, 37)
    assert report["events"] == {"in_windows": 3900, "skipped": 100, "filtered": {}}
    assert report["dropped"] == {"rgb": 0, "events": 0, "pairs": 0, "sinks": {"video": 0}}
    assert set(report["latency_ms"]) == {"pack", "encode", "head", "total"}
    assert report["recording_s"] == 0.38


def test_predictions_are_printed_and_then_the_figures(
    model: Path, events: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert live(model, "--events", events, "--pace", "max", "--duration", 0.05) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["7.030", "7.040", "7.050"]
    assert lines[3].startswith("5 pairs, 3 predictions; 0.04 s of recording in ")
    assert "velora: tiny on onnxruntime on the CPU" in printed.err


def test_random_weights_are_told_in_one_line(
    events: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = write_tiny_bundle(tmp_path / "a.velora")
    untrained = bundle.manifest.weights.model_copy(update={"trained": False})
    write_tiny_bundle(tmp_path / "a.velora", weights=untrained)
    assert live(tmp_path / "a.velora", "--events", events, "--pace", "max", "--quiet") == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "are random" in line]
    assert told == ["velora: the weights of tiny are random: its labels mean nothing"]


@pytest.mark.parametrize(("event_frames", "told"), [("files", 1), ("packed", 0)])
def test_a_model_of_event_frames_that_nobody_here_can_make_says_so(
    event_frames: str, told: int, events: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = write_tiny_bundle(tmp_path / "a.velora")
    run = {"data": {"event_frames": event_frames}}
    weights = bundle.manifest.weights.model_copy(update={"run": run})
    write_tiny_bundle(tmp_path / "a.velora", weights=weights)
    assert live(tmp_path / "a.velora", "--events", events, "--pace", "max", "--quiet") == 0
    start = "velora: tiny was trained on event frames of image files, whose windows and colours are not known"
    assert [line.startswith(start) for line in capsys.readouterr().err.splitlines()].count(True) == told


def test_a_model_of_event_image_files_that_sees_no_events_says_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = write_tiny_bundle(tmp_path / "a.velora")
    weights = bundle.manifest.weights.model_copy(update={"run": {"data": {"event_frames": "files"}}})
    write_tiny_bundle(tmp_path / "a.velora", weights=weights)
    write_video(tmp_path / "v.mp4", [PERIOD_US * k for k in range(6)])
    assert live(tmp_path / "a.velora", "--rgb", tmp_path / "v.mp4", "--pace", "max", "--quiet") == 0
    assert "event frames of image files" not in capsys.readouterr().err


@pytest.fixture
def timed(tmp_path: Path) -> Path:
    """Clips of three pairs, 0.04 s from the first to the last, windows of 10 ms."""
    event = write_tiny_bundle(tmp_path / "t.velora").manifest.event.model_copy(update={"window_us": 10_000})
    return write_tiny_bundle(tmp_path / "t.velora", 3, 2, event=event, span_s=0.04, rate_hz=100.0).path


@pytest.mark.parametrize(
    ("rate", "told"), [(100, None), (120, None), (200, "--stride 4 "), (40, "--stride 1 ")]
)
def test_clips_that_cover_another_time_than_in_training_are_told(
    rate: int, told: str | None, timed: Path, events: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ("--events", events, "--rate", rate, "--pace", "max", "--quiet", "--summary", tmp_path / "s.json")
    assert live(timed, *args) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "a clip covers" in line]
    assert [told in line for line in lines] == ([] if told is None else [True])
    assert json.loads((tmp_path / "s.json").read_text())["clip_span_s"] == pytest.approx(4 / rate, rel=1e-3)


@pytest.mark.parametrize(("rate", "stride"), [(200, 4), (50, 1), (100, 2)])
def test_auto_takes_the_stride_that_covers_the_time_of_training(
    rate: int, stride: int, timed: Path, events: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "p.jsonl"
    args = ("--events", events, "--rate", rate, "--pace", "max", "--out", out)
    assert live(timed, *args, "--stride", "auto") == 0
    said = capsys.readouterr().err
    assert f"stride {stride}: a clip covers 0.04 s at {rate} pairs a second, 0.04 s in training" in said
    assert "so labels may be wrong" not in said
    found = without_latencies(read_lines(out))
    assert found[0]["seq"] == 2 * stride
    assert live(timed, *args, "--stride", stride) == 0
    assert without_latencies(read_lines(out)) == found


def test_auto_takes_the_rate_of_a_recorded_video(
    timed: Path, events: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "v.mp4", [5_000 * k for k in range(1, 60)])
    args = ("--events", events, "--rgb", tmp_path / "v.mp4", "--pace", "max", "--quiet", "--stride", "auto")
    assert live(timed, *args) == 0
    assert "stride 4: a clip covers 0.04 s at 200 pairs a second" in capsys.readouterr().err


def test_too_short_a_recording_says_why_there_is_no_prediction(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_events(tmp_path / "e.raw", duration_us=25_000, count=100)
    assert live(model, "--events", tmp_path / "e.raw", "--pace", "max") == 0
    told = capsys.readouterr().err.splitlines()[-1]
    assert told == ("velora: no prediction: a clip is 3 pairs, so the first needs 3 pairs, and there were 2")


def test_a_damaged_recording_is_used_as_far_as_it_goes_and_the_loss_is_told(
    model: Path, events: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events.write_bytes(events.read_bytes()[:-1])
    summary = tmp_path / "s.json"
    assert live(model, "--events", events, "--pace", "max", "--quiet", "--summary", summary) == 0
    warnings = json.loads(summary.read_text())["warnings"]
    assert len(warnings) == 1
    assert f"velora: {warnings[0]}" in capsys.readouterr().err


def test_frames_outside_the_event_recording_are_told(
    model: Path, events: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "v.mp4", [PERIOD_US * k for k in range(5)])
    args = ("--events", events, "--rgb", tmp_path / "v.mp4", "--sync", "offset=-9000000", "--pace", "max")
    assert live(model, *args, "--quiet") == 0
    assert "velora: no frame falls into the event recording" in capsys.readouterr().err


def error_of(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str]:
    code = live(*args)
    printed = capsys.readouterr()
    lines = [line for line in printed.err.splitlines() if not line.startswith("velora: ")]
    assert len(lines) == 1, printed.err
    assert "Traceback" not in printed.err
    return code, lines[0]


def test_every_wrong_input_is_one_line_and_exit_code_2(
    model: Path,
    events: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("velora_runtime.cameras.drivers.registry.list_attached", list)
    (tmp_path / "text.raw").write_text("this is a letter\n" * 50)
    (tmp_path / "empty.raw").write_bytes(b"")
    (tmp_path / "nosize.raw").write_bytes(b"% evt 3.0\n% end\n" + b"\0" * 64)
    write_video(tmp_path / "empty.mp4", [])
    changed = write_tiny_bundle(tmp_path / "changed.velora").path / "rgb.onnx"
    changed.write_bytes(changed.read_bytes()[:-1] + b"!")
    cases: list[tuple[tuple[object, ...], str]] = [
        (("missing.velora", "--events", events), "error: missing.velora: no such model; give"),
        ((changed.parent, "--events", events), f"error: {changed.parent}, rgb.onnx: expected SHA-256"),
        ((model, "--events", "missing.raw"), "error: missing.raw: no such file or folder; an event source"),
        ((model, "--events", tmp_path / "text.raw"), f"error: {tmp_path / 'text.raw'}"),
        ((model, "--events", tmp_path / "empty.raw"), f"error: {tmp_path / 'empty.raw'}: the file is empty"),
        ((model, "--events", tmp_path / "nosize.raw"), f"error: {tmp_path / 'nosize.raw'}"),
        ((model, "--rgb", tmp_path / "empty.mp4"), f"error: {tmp_path / 'empty.mp4'}"),
        ((model, "--rgb", "missing.mp4"), "error: missing.mp4: no such file or folder; an RGB source is"),
        ((model,), "error: no camera is attached; attach one, and look with velora cameras; or give"),
        ((model, "--rgb", "none"), "error: no camera was given; give --events, --rgb, or both"),
        ((model, "--events", events, "--sync", "trigger"), "error: --sync trigger needs an RGB camera"),
    ]
    found = [error_of(capsys, *args) for args, _ in cases]
    assert [code for code, _ in found] == [2] * len(cases)
    assert [line.startswith(start) for (_, line), (_, start) in zip(found, cases, strict=True)] == [
        True
    ] * 11, found


def test_rate_belongs_to_events_alone(
    model: Path, events: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "v.mp4", [0, 40_000])
    code, line = error_of(capsys, model, "--events", events, "--rgb", tmp_path / "v.mp4", "--rate", 30)
    assert (code, line.startswith("error: --rate is for events alone")) == (2, True)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (("--rgb", "{v}"), "error: --provisional decides on events between pictures"),
        (("--rgb", "{v}", "--events", "emulate"), "error: --provisional decides on events between pictures"),
        (
            ("--events", "tcp://127.0.0.1:1", "--filter", "background"),
            "error: --provisional of a live camera",
        ),
        (
            ("--events", "{e}", "--sensor", "8x8", "--provisional", "1001"),
            "error: --provisional: at most 1000",
        ),
    ],
)
def test_provisional_decisions_need_events_that_can_be_had_between_pictures(
    model: Path,
    events: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    given: tuple[str, ...],
    line: str,
) -> None:
    write_video(tmp_path / "v.mp4", [0, 40_000])
    names = {"v": str(tmp_path / "v.mp4"), "e": str(events)}
    code, found = error_of(capsys, model, "--provisional", 120, *(text.format(**names) for text in given))
    assert (code, found.startswith(line)) == (2, True), found


@pytest.mark.parametrize(
    ("option", "value"), [("--rate", "0"), ("--rate", "fast"), ("--sensor", "640"), ("--duration", "0")]
)
def test_options_of_the_wrong_form_are_refused(
    model: Path, events: Path, option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert live(model, "--events", events, option, value) == 2
    assert f"Invalid value for '{option}'" in capsys.readouterr().err


def test_cuda_without_a_gpu_fails_and_does_not_fall_back(
    model: Path, events: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, line = error_of(capsys, model, "--events", events, "--device", "cuda", "--backend", "onnxruntime")
    assert (code, line.startswith("error: no engine for device cuda: onnxruntime with CUDA: ")) == (1, True)


def test_a_sensor_size_can_be_given_for_a_file_that_does_not_tell(
    model: Path, events: Path, tmp_path: Path
) -> None:
    header, _, body = events.read_bytes().partition(b"% end\n")
    lines = [line for line in header.splitlines() if b"eometry" not in line and b"width=" not in line]
    (tmp_path / "nosize.raw").write_bytes(b"\n".join([*lines, b"% end\n"]) + body)
    outs = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    assert live(model, "--events", events, "--pace", "max", "--out", outs[0]) == 0
    args = ("--events", tmp_path / "nosize.raw", "--sensor", "64x48", "--pace", "max", "--out", outs[1])
    assert live(model, *args) == 0
    assert without_latencies(read_lines(outs[0])) == without_latencies(read_lines(outs[1]))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_with_exit_code_0_and_its_files_complete(
    model: Path, tmp_path: Path, number: signal.Signals
) -> None:
    write_events(tmp_path / "e.raw", duration_us=60_000_000, count=60_000)
    out, overlay, summary = tmp_path / "p.jsonl", tmp_path / "o.mp4", tmp_path / "s.json"
    args = ["--events", tmp_path / "e.raw", "--out", out, "--video", overlay, "--summary", summary]
    code = "import sys; from velora_cli.main import live; sys.argv[0] = 'velora-live'; live()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(model), *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
    )
    deadline = time.monotonic() + 60
    while not (out.exists() and out.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    printed, told = process.communicate(timeout=60)
    assert process.returncode == 0, told
    assert "Traceback" not in told
    report = json.loads(summary.read_text())
    assert report["stopped"] is True
    assert len(read_lines(out)) == report["predictions"] > 0
    assert ", stopped" in printed
    with av.open(str(overlay)) as container:
        assert sum(1 for _ in container.decode(video=0)) == report["pairs"] - report["dropped"]["pairs"]
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith(".part")] == []


def test_the_real_recording_gives_the_same_twice(shared_events: Path, model: Path, tmp_path: Path) -> None:
    recording = shared_events / "ecpy_test1_evt3_triggers.raw"
    runs = []
    for out in (tmp_path / "a.jsonl", tmp_path / "b.jsonl"):
        args = ("--events", recording, "--rgb", "none", "--rate", 30, "--pace", "max", "--out", out)
        assert live(model, *args) == 0
        runs.append(without_latencies(read_lines(out)))
    assert runs[0] == runs[1]
    # 7,139,845 to 9,218,023 us holds 62 whole windows; the first clip is full with the third.
    assert [line["t_us"] for line in runs[0]] == [7_139_845 + k * 1_000_000 // 30 for k in range(3, 63)]


@pytest.mark.parametrize("lost", [[], [0, 1, 30], [58, 59]])
def test_frames_find_their_triggers_in_the_real_recording(
    shared_events: Path, model: Path, tmp_path: Path, lost: list[int]
) -> None:
    """Its triggers come every 1,000 us, the first rising one at 7,139,840 us on input 6."""
    kept = np.delete(np.arange(60), lost)
    write_video(tmp_path / "v.mp4", [1000 * int(k) for k in kept])
    out = tmp_path / "p.jsonl"
    args = ("--events", shared_events / "ecpy_test1_evt3_triggers.raw", "--rgb", tmp_path / "v.mp4")
    assert live(model, *args, "--sync", "trigger", "--pace", "max", "--out", out) == 0
    lines = read_lines(out)
    assert [line["t_us"] for line in lines] == [7_139_840 + 1000 * int(k) for k in kept[2:]]
    assert {line["skew_us"] for line in lines if line["skew_us"] is not None} <= {-1, 0, 1}
