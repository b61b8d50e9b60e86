"""JSON lines, the video, and the terminal's lines."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pytest
from velora_runtime.sinks.base import Result, SinkContext, open_sink
from velora_runtime.sinks.jsonl import JsonlSink, encode_line
from velora_runtime.sinks.terminal import TerminalSink
from velora_runtime.sinks.video import VideoSink

from tests.fakes import tiny_manifest
from velora_edge.datatypes import EventFrame, FramePair, Prediction, RGBFrame
from velora_edge.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

PREDICTION = Prediction(
    seq=12,
    t_us=400_000,
    label="wave",
    score=0.93,
    top=(("wave", 0.93), ("größe", 0.0700001)),
    events=18_211,
    skew_us=140,
    latency_ms={"pack": 0.5, "encode": 4.25, "head": 1.0, "total": 5.75},
    dropped={"rgb": 0, "events": 3},
    missing=("rgb",),
)
CONTEXT = SinkContext(tiny_manifest(), rgb_hw=(30, 40), event_hw=(8, 8))


def seen(t_us: int, *, rgb: bool = True, event: bool = True, prediction: Prediction | None = None) -> Result:
    picture = np.full((30, 40, 3), 200, np.uint8)
    frame = np.full((8, 8, 3), (0, 0, 255), np.uint8)
    return Result(
        FramePair(
            0,
            t_us,
            RGBFrame(picture, t_us, 0) if rgb else None,
            EventFrame(frame, 0, t_us, 5) if event else None,
        ),
        prediction,
        missing=3,
    )


def test_a_line_is_schema_version_1(tmp_path: Path) -> None:
    sink = JsonlSink(str(tmp_path / "new" / "p.jsonl"), CONTEXT)
    sink.write(PREDICTION)
    sink.close()
    line = (tmp_path / "new" / "p.jsonl").read_text(encoding="utf-8")
    assert line == (
        '{"v":1,"seq":12,"t_us":400000,"label":"wave","score":0.93,"top":[["wave",0.93],["größe",0.07]],'
        '"events":18211,"skew_us":140,"latency_ms":{"pack":0.5,"encode":4.25,"head":1.0,"total":5.75},'
        '"dropped":{"rgb":0,"events":3},"missing":["rgb"]}\n'
    )


def test_a_line_says_that_it_is_provisional_or_idle_and_nothing_where_it_is_neither() -> None:
    marks = [
        {key: value for key, value in json.loads(encode_line(said)).items() if key in ("idle", "provisional")}
        for said in (
            PREDICTION,
            replace(PREDICTION, is_provisional=True),
            replace(PREDICTION, is_provisional=True, is_idle=True),
        )
    ]
    assert marks == [{}, {"provisional": True}, {"provisional": True, "idle": True}]


def test_lines_are_in_the_file_at_once(tmp_path: Path) -> None:
    sink = JsonlSink(str(tmp_path / "p.jsonl"), CONTEXT)
    for count in (1, 2):
        sink.write(PREDICTION)
        assert [json.loads(x)["seq"] for x in (tmp_path / "p.jsonl").read_text().splitlines()] == [12] * count
    sink.close()


def test_lines_wait_for_the_first_prediction(tmp_path: Path) -> None:
    sink = JsonlSink(str(tmp_path / "p.jsonl"), CONTEXT)
    assert sink.take(seen(5)) is None
    assert sink.take(seen(5, prediction=PREDICTION)) is PREDICTION
    sink.close()


@pytest.mark.parametrize(("name", "option"), [("jsonl", "--out"), ("video", "--video")])
def test_a_place_where_nothing_can_be_written_is_named(tmp_path: Path, name: str, option: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=rf"file/x: cannot be written: .*; choose .* with {option}"):
        open_sink(name, str(tmp_path / "file" / "x"), CONTEXT)


class ShortOfSpace:
    """A file that takes some bytes of a line and then no more."""

    def __init__(self, room: int) -> None:
        self.content, self._room = b"", room

    def write(self, data: bytes) -> int:
        if len(self.content) == self._room:
            raise OSError(28, "No space left on device")
        taken = data[: self._room - len(self.content)]
        self.content += taken
        return len(taken)

    def tell(self) -> int:
        return len(self.content)

    def truncate(self, length: int) -> None:
        self.content = self.content[:length]

    def close(self) -> None:
        pass


def test_a_line_that_does_not_fit_on_the_disk_leaves_the_ones_before_it_whole(tmp_path: Path) -> None:
    sink = JsonlSink(str(tmp_path / "p.jsonl"), CONTEXT)
    sink.close()
    line = encode_line(PREDICTION)
    sink._file = disk = ShortOfSpace(len(line) + 20)  # type: ignore[assignment]
    sink.write(PREDICTION)
    with pytest.raises(InputError, match=r"p\.jsonl: cannot be written: No space left on device"):
        sink.write(PREDICTION)
    assert disk.content == line


class FullContainer:
    """An MP4 file on a disk that is full."""

    def __init__(self, container: Any) -> None:
        self._container = container

    def mux(self, packets: object) -> None:
        raise OSError(28, "No space left on device")

    def close(self) -> None:
        self._container.close()


def test_a_video_on_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    sink = VideoSink(str(tmp_path / "o.mp4"), CONTEXT)
    sink._container = FullContainer(sink._container)  # type: ignore[assignment]
    with pytest.raises(InputError, match=r"o\.mp4: cannot be written: No space left on device; choose"):
        write_scenes(sink, [seen(40_000 * k) for k in range(60)])
    with pytest.raises(InputError, match="No space left on device"):
        sink.close()
    assert list(tmp_path.iterdir()) == []


def write_scenes(sink: VideoSink, scenes: list[Result]) -> None:
    for scene in scenes:
        sink.write(sink.take(scene))
    sink.close()


def read_video(path: Path) -> list[tuple[int, np.ndarray]]:
    with av.open(str(path)) as container:
        frames = container.decode(container.streams.video[0])
        return [(round(frame.time * 1000), frame.to_ndarray(format="rgb24")) for frame in frames]


def test_video_shows_both_cameras_side_by_side_at_their_times(tmp_path: Path) -> None:
    sink = VideoSink(str(tmp_path / "o.mp4"), CONTEXT)
    write_scenes(sink, [seen(7_000_000), seen(7_040_000, prediction=PREDICTION), seen(7_120_000)])
    frames = read_video(tmp_path / "o.mp4")
    assert [ms for ms, _ in frames] == [0, 40, 120]
    assert [image.shape for _, image in frames] == [(436, 480 + 360, 3)] * 3
    middle = frames[1][1][180]
    assert np.abs(middle[240].astype(int) - 200).max() < 8
    assert np.abs(middle[480 + 180].astype(int) - (0, 0, 255)).max() < 16


def test_video_leaves_an_absent_cameras_panel_dark(tmp_path: Path) -> None:
    sink = VideoSink(str(tmp_path / "o.mp4"), CONTEXT)
    write_scenes(sink, [seen(0, rgb=False), seen(40_000, event=False)])
    first, second = (image[180] for _, image in read_video(tmp_path / "o.mp4"))
    assert (first[240].max() < 50, second[480 + 180].max() < 50) == (True, True)


def test_video_copies_what_will_be_used_again(tmp_path: Path) -> None:
    sink = VideoSink(str(tmp_path / "o.mp4"), CONTEXT)
    scene = seen(0)
    item = sink.take(scene)
    assert scene.pair.event is not None
    scene.pair.event.image[:] = 0
    assert item.event.tolist() == [[[0, 0, 255]] * 8] * 8
    sink.discard(item)
    assert sink.take(seen(1)).event is item.event
    sink.close()


def test_video_has_its_name_only_once_it_is_whole(tmp_path: Path) -> None:
    sink = VideoSink(str(tmp_path / "o.mp4"), CONTEXT)
    sink.write(sink.take(seen(0)))
    assert not (tmp_path / "o.mp4").exists()
    sink.close()
    assert [p.name for p in tmp_path.iterdir()] == ["o.mp4"]


def test_a_video_without_a_picture_is_no_file(tmp_path: Path) -> None:
    VideoSink(str(tmp_path / "o.mp4"), CONTEXT).close()
    assert list(tmp_path.iterdir()) == []


def test_without_a_terminal_each_prediction_is_a_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    sink = TerminalSink("", CONTEXT)
    assert sink.take(seen(5)) is None
    sink.write(PREDICTION)
    sink.close()
    assert capsys.readouterr().out == (
        "     0.400 s  wave              93% #########    18,211 events  "
        "pack 0.5  encode 4.2  head 1.0  total 5.8 ms  skew 140 us  no rgb  3 events dropped\n"
    )


def test_on_a_terminal_one_line_changes_and_old_labels_stay_above(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    sink = TerminalSink("", CONTEXT)
    for label in ("wave", "wave", "clap"):
        sink.write(Prediction(1, 5, label, 0.5, ((label, 0.5),), 0, None))
    sink.close()
    shown = [line.split()[2] for line in screen_after(capsys.readouterr().out)]
    assert shown == ["wave", "clap"]


def screen_after(printed: str) -> list[str]:
    """The lines that a terminal shows in the end, for the few controls that are used."""
    lines, row = [""], 0
    for control, text in re.findall(r"(\x1b\[[?0-9;]*[A-Za-z]|[\r\n])|([^\x1b\r\n]+)", printed):
        if control == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif control.endswith("A"):
            row -= int(control[2:-1])
        elif control == "\x1b[2K":
            lines[row] = ""
        elif text:
            lines[row] += text
    return [line for line in lines if line.strip()]
