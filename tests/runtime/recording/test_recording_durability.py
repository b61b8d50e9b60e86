"""A recording's folder belongs to one writer, and all of it is on the disk at its end."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from velora_runtime.recording.items import Edges, Picture, Words
from velora_runtime.recording.words import WordEncoder, WordFormat
from velora_runtime.recording.writer import RecordingWriter

from velora_edge.datatypes import TriggerBatch
from velora_edge.errors import InputError
from velora_edge.preprocessing.folder import Facts

FORM = WordFormat("EVT3", (64, 48))


def test_of_two_that_begin_at_once_one_gets_the_folder(tmp_path: Path) -> None:
    for i in range(100):
        folder, barrier, got = tmp_path / str(i), threading.Barrier(2), []

        def begin(folder: Path = folder, barrier: threading.Barrier = barrier, got: list[str] = got) -> None:
            barrier.wait()
            try:
                RecordingWriter(folder, Facts())
                got.append("writer")
            except InputError as error:
                known = ("is being recorded to", "is not empty")
                got.append("refused" if any(reason in str(error) for reason in known) else str(error))

        threads = [threading.Thread(target=begin) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(got) == ["refused", "writer"]


def test_a_link_in_the_place_of_the_facts_is_not_written_through(tmp_path: Path) -> None:
    folder = tmp_path / "recording"
    folder.mkdir()
    (tmp_path / "victim").write_text("precious")
    (folder / ".recording.json.part").symlink_to(tmp_path / "victim")
    with pytest.raises(InputError):
        RecordingWriter(folder, Facts())
    assert (tmp_path / "victim").read_text() == "precious"


def test_everything_is_on_the_disk_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    fsync, fdatasync = os.fsync, os.fdatasync

    def name_of(descriptor: int) -> str:
        return Path(f"/proc/self/fd/{descriptor}").readlink().name

    monkeypatch.setattr(os, "fsync", lambda d: (asked.append(name_of(d)), fsync(d))[1])
    monkeypatch.setattr(os, "fdatasync", lambda d: (asked.append(name_of(d)), fdatasync(d))[1])
    writer = RecordingWriter(tmp_path / "recording", Facts())
    writer.write(Words(FORM, bytes(10), None, 0))
    writer.write(Picture(np.zeros((16, 16, 3), np.uint8), 5))
    ones = np.ones(1, np.uint8)
    writer.write(Edges(TriggerBatch(np.array([5], np.int64), ones, ones)))
    asked.clear()
    writer.close("asked for")
    assert {"events.raw", "video.mp4", "timestamps.txt", "triggers.csv"} <= set(asked)
    (facts,) = [name for name in asked if "recording.json" in name]
    assert asked.index(facts) > max(asked.index(name) for name in ("events.raw", "video.mp4"))
    assert asked[-1] == "recording"
    assert json.loads((tmp_path / "recording" / "recording.json").read_text())["why_ended"] == "asked for"


def test_a_new_recording_s_name_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda d: (asked.append(Path(f"/proc/self/fd/{d}").readlink().name), fsync(d))[1]
    )
    RecordingWriter(tmp_path / "recording", Facts())
    assert tmp_path.name in asked


def test_words_that_are_written_to_memory_leave_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    encoders = [WordEncoder(FORM) for _ in range(20)]
    assert list(tmp_path.iterdir()) == []
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    del encoders
