"""Labels while recording: takes of one class, and marks on a recording that runs."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest
from velora_runtime.app.run_services import Marks
from velora_runtime.recording.items import RecordOptions
from velora_runtime.recording.recorder import Recorder, TakePlan, Takes

from velora_edge.errors import InputError
from velora_edge.preprocessing.folder import Facts, read_recording
from velora_edge.preprocessing.segments import Segment, read_segments

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def make_recorder(parent: Path) -> Recorder:
    return Recorder(RecordOptions(None, parent, waits=True), Facts(video={"source": "v"}), lambda line: None)


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    made = make_recorder(tmp_path / "set" / "wave")
    yield made
    made.close()


def show(recorder: Recorder, *times_ms: int) -> None:
    """Take pictures, and wait until they are written."""
    for t_ms in times_ms:
        recorder.take_picture(np.zeros((16, 16, 3), np.uint8), 1_000_000 + 1000 * t_ms)
    recorder._ask(lambda: None)


class Directed:
    """Takes whose bells, notes and stop a test sees."""

    def __init__(
        self, recorder: Recorder, plan: TakePlan, *, is_ready: bool = True, has_pictures: bool = True
    ) -> None:
        self.bells, self.notes, self.stopped = 0, list[str](), threading.Event()
        self.has_begun = threading.Event()
        self.recorder, self.is_ready, self.has_pictures = recorder, is_ready, has_pictures
        self.takes = Takes(recorder, plan, lambda: self.is_ready, self.note, self.stopped.set, self.ring)

    def ring(self) -> None:
        self.bells += 1

    def note(self, line: str) -> None:
        self.notes.append(line)
        if ": now" in line:
            if self.has_pictures:
                show(self.recorder, 0, 100)
            self.has_begun.set()


def test_so_many_takes_are_recorded_and_the_run_is_ended(recorder: Recorder, tmp_path: Path) -> None:
    directed = Directed(recorder, TakePlan("wave", 2, 0.05, countdown_s=0))
    assert directed.stopped.wait(30)
    folders = sorted((tmp_path / "set" / "wave").iterdir())
    assert [read_recording(folder).facts.why_ended for folder in folders] == ["asked for"] * 2
    assert directed.bells == 4
    assert (directed.takes.state()["phase"], directed.takes.state()["number"]) == ("done", 2)
    directed.takes.close()


def test_each_second_of_a_countdown_is_told_and_rings(recorder: Recorder) -> None:
    directed = Directed(recorder, TakePlan("wave", 1, 0.05, countdown_s=2))
    assert directed.stopped.wait(30)
    assert directed.notes[:3] == [
        "wave, take 1 of 1: in 2 s",
        "wave, take 1 of 1: in 1 s",
        "wave: now, 0.05 s",
    ]
    assert directed.bells == 4
    directed.takes.close()


def test_a_take_that_is_asked_for_again_is_set_aside_where_no_set_sees_it(
    recorder: Recorder, tmp_path: Path
) -> None:
    directed = Directed(recorder, TakePlan("wave", 1, 2.0, countdown_s=0))
    assert directed.has_begun.wait(30)
    directed.takes.again()
    assert directed.stopped.wait(30)
    directed.takes.close()
    names = sorted(folder.name for folder in (tmp_path / "set" / "wave").iterdir())
    assert len(names) == 2
    assert [name.startswith(".") for name in names] == [True, False]


def test_a_take_that_the_end_of_the_run_cuts_short_is_set_aside(recorder: Recorder, tmp_path: Path) -> None:
    directed = Directed(recorder, TakePlan("wave", 1, 600.0, countdown_s=0))
    assert directed.has_begun.wait(30)
    directed.takes.close()
    (name,) = (folder.name for folder in (tmp_path / "set" / "wave").iterdir())
    assert name.startswith(".")
    assert not directed.stopped.is_set()


def test_cameras_that_give_nothing_end_the_takes_with_the_reason(recorder: Recorder) -> None:
    directed = Directed(recorder, TakePlan("wave", 2, 0.05, countdown_s=0), has_pictures=False)
    assert directed.stopped.wait(30)
    directed.takes.close()
    assert directed.notes[1].startswith("no more takes: ")
    assert directed.notes[1].endswith("nothing came: the folder was removed")


def test_no_take_begins_before_the_cameras_deliver(recorder: Recorder, tmp_path: Path) -> None:
    directed = Directed(recorder, TakePlan("wave", 1, 0.05, countdown_s=0), is_ready=False)
    assert directed.takes.state()["phase"] == "waiting"
    assert not (tmp_path / "set").exists()
    directed.is_ready = True
    assert directed.stopped.wait(30)
    directed.takes.close()


def test_keys_begin_and_end_segments_of_the_running_recording(recorder: Recorder) -> None:
    marks = Marks(recorder, ("wave", "rest"))
    folder = recorder.start()
    show(recorder, 0, 500)
    assert marks.press(0) == "wave begins at 0.50 s"
    assert marks.open_label == "wave"
    show(recorder, 1500)
    assert marks.press(0) == "wave ends at 1.50 s"
    assert marks.open_label is None
    assert read_segments(folder / "segments.csv").segments == (Segment(500_000, 1_500_000, "wave"),)


def test_another_label_ends_the_one_that_has_begun(recorder: Recorder) -> None:
    marks = Marks(recorder, ("wave", "rest"))
    folder = recorder.start()
    show(recorder, 0)
    marks.press(0)
    show(recorder, 1000)
    assert marks.press(1) == "rest begins at 1.00 s"
    show(recorder, 3000)
    recorder.stop()
    marks.finish()
    assert read_segments(folder / "segments.csv").segments == (
        Segment(0, 1_000_000, "wave"),
        Segment(1_000_000, 3_000_000, "rest"),
    )


def test_marks_of_one_recording_are_not_those_of_the_next(recorder: Recorder) -> None:
    marks = Marks(recorder, ("wave",))
    first = recorder.start()
    show(recorder, 0)
    marks.press(0)
    show(recorder, 1000)
    recorder.stop()
    second = recorder.start()
    show(recorder, 5000, 6000)
    marks.press(0)
    show(recorder, 8000)
    marks.press(0)
    assert read_segments(first / "segments.csv").segments == (Segment(0, 1_000_000, "wave"),)
    assert read_segments(second / "segments.csv").segments == (Segment(1_000_000, 3_000_000, "wave"),)


def test_nothing_is_marked_where_nothing_is_recorded(recorder: Recorder) -> None:
    with pytest.raises(InputError, match="no picture is being recorded"):
        Marks(recorder, ("wave",)).press(0)
