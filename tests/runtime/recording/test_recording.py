"""Recordings are written as things came, are bounded in memory, and can be read however they ended."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import threading
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from velora_runtime.queues import ByteQueue
from velora_runtime.recording.items import AppendFile, Compressed, Edges, Picture, RecordOptions, Said, Words
from velora_runtime.recording.recorder import Recorder
from velora_runtime.recording.recorder_worker import ByteArena, PreRollBuffer
from velora_runtime.recording.words import Place, WordEncoder, WordFormat
from velora_runtime.recording.writer import RecordingWriter

from tests.fakes import MemoryEvents
from tests.recordings import write_events
from velora_edge.datatypes import EventBatch, Prediction, TriggerBatch
from velora_edge.errors import InputError, RecordingError
from velora_edge.events.registry import open_events
from velora_edge.preprocessing.folder import Facts, is_recording, read_recording
from velora_edge.preprocessing.registry import open_event_source
from velora_edge.preprocessing.video_file import RecordedVideo

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FORM = WordFormat("EVT3", (64, 48))


def words(number: int, n_bytes: int = 10, t_us: int | None = None) -> Words:
    return Words(FORM, bytes(n_bytes), None if t_us is None else Place(t_us), number)


def picture(t_us: int, grey: int = 0, hw: tuple[int, int] = (16, 16)) -> Picture:
    return Picture(np.full((*hw, 3), grey, np.uint8), t_us)


def said(t_us: int, label: str = "wave") -> Said:
    return Said(Prediction(0, t_us, label, 0.5, ((label, 0.5),), 10, None))


def edges(*times_us: int) -> Edges:
    n = len(times_us)
    return Edges(TriggerBatch(np.array(times_us, np.int64), np.full(n, 3, np.uint8), np.ones(n, np.uint8)))


class FullDisk(AppendFile):
    """A file on a disk that has `left` bytes for all files together."""

    left = 0

    def write(self, data: bytes | bytearray | memoryview) -> int:
        n = len(memoryview(data).cast("B"))
        if n > FullDisk.left:
            super().write(memoryview(data).cast("B")[: FullDisk.left])
            FullDisk.left = 0
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        FullDisk.left -= n
        return super().write(data)


def make_recorder(
    folder: Path | None = None,
    *,
    notes: list[str] | None = None,
    open_file: Callable[[Path], AppendFile] = AppendFile,
    **options: Any,
) -> Recorder:
    about = Facts(events={"source": "memory", "sensor": [64, 48]}, video={"source": "memory"})
    note = (notes if notes is not None else []).append
    return Recorder(RecordOptions(folder, **{"waits": True, **options}), about, note, open_file)


# ---- the folder -----------------------------------------------------------------------------------------


def test_every_piece_goes_to_its_file(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path / "r", Facts(events={"source": "here"}))
    for item in (words(0, 4), picture(1000), edges(900, 950), said(1000), words(1, 2), picture(2000)):
        writer.write(item)
    writer.close("asked for")
    folder = tmp_path / "r"
    assert (folder / "events.raw").read_bytes() == FORM.full_header() + bytes(6)
    assert (folder / "timestamps.txt").read_text() == "1000\n2000\n"
    assert (folder / "triggers.csv").read_text() == "t_us,id,p\n900,3,1\n950,3,1\n"
    assert [json.loads(line)["t_us"] for line in (folder / "predictions.jsonl").read_text().splitlines()] == [
        1000
    ]
    facts = read_recording(folder).facts
    assert (facts.why_ended, facts.first_us, facts.last_us) == ("asked for", 1000, 2000)
    assert facts.counts == {"event_bytes": 6, "frames": 2, "edges": 2, "predictions": 1}
    assert facts.events == {"source": "here", "encoding": "EVT3", "sensor": [64, 48]}
    assert facts.video == {"height": 16, "width": 16}
    assert facts.dropped == {"gaps": 0}


def test_a_gap_in_the_words_is_bridged_and_counted_and_a_repeated_piece_left_out(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path / "r", Facts())
    for item in (words(0, 4), words(0, 4), words(2, 4, t_us=5 << 12)):
        writer.write(item)
    writer.close("asked for")
    payload = (tmp_path / "r" / "events.raw").read_bytes()[len(FORM.full_header()) :]
    assert payload == bytes(4) + np.array([0x8005, 0x6000], "<u2").tobytes() + bytes(4)
    assert writer.facts.dropped == {"gaps": 1}


def test_a_frame_that_is_not_later_than_the_one_before_is_left_out_and_counted(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path / "r", Facts())
    for t_us in (100, 200, 200, 150, 300):
        writer.write(picture(t_us))
    writer.close("asked for")
    assert [frame.t_us for frame in RecordedVideo(str(tmp_path / "r"))] == [100, 200, 300]
    assert writer.facts.dropped == {"late_frames": 2, "gaps": 0}


def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="is not empty; record to a new folder"):
        RecordingWriter(tmp_path, Facts())
    assert not is_recording(tmp_path)


def test_a_folder_that_nothing_came_to_is_removed(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path / "r", Facts())
    writer.close("asked for")
    assert list(tmp_path.iterdir()) == []
    assert writer.facts.why_ended == "nothing came: the folder was removed"


@pytest.mark.parametrize("hw", [(16, 16), (15, 21), (480, 640)])
def test_frames_are_read_at_the_times_that_they_were_given(tmp_path: Path, hw: tuple[int, int]) -> None:
    times = [7_000_000 + 33_333 * k + (k % 3) for k in range(20)]
    writer = RecordingWriter(tmp_path / "r", Facts())
    for k, t_us in enumerate(times):
        writer.write(picture(t_us, 12 * k, hw))
    writer.close("asked for")
    video = RecordedVideo(str(tmp_path / "r"))
    frames = list(video)
    assert [frame.t_us for frame in frames] == times == video.times_us().tolist()
    assert (video.height, video.width, video.is_on_event_clock) == (*hw, True)
    assert [abs(int(frame.image.mean()) - 12 * k) <= 3 for k, frame in enumerate(frames)] == [True] * 20
    assert video.warnings == []


def test_a_recording_can_be_read_while_it_is_written(tmp_path: Path) -> None:
    """As after a crash: everything but the video is there to the last piece, the video to half a second."""
    writer = RecordingWriter(tmp_path / "r", Facts())
    for k in range(60):
        writer.write(picture(33_333 * k, 3 * k))
        writer.write(words(k, 2))
        writer.write(said(33_333 * k))
    recording = read_recording(tmp_path / "r")
    assert recording.warnings == (
        f"{tmp_path / 'r'}: the recording was not ended properly; it is read as far as it goes",
    )
    assert recording.times_us().tolist() == [33_333 * k for k in range(60)]
    frames = list(RecordedVideo(str(tmp_path / "r")))
    assert 60 - 16 <= len(frames) <= 60
    assert [frame.t_us for frame in frames] == [33_333 * k for k in range(len(frames))]
    assert len((tmp_path / "r" / "predictions.jsonl").read_text().splitlines()) == 60
    assert (tmp_path / "r" / "events.raw").stat().st_size == len(FORM.full_header()) + 120
    writer.close("asked for")


def test_half_a_line_at_the_end_is_no_time(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path / "r", Facts())
    writer.write(picture(100))
    writer.close("asked for")
    (tmp_path / "r" / "timestamps.txt").write_text("100\n2")
    assert read_recording(tmp_path / "r").times_us().tolist() == [100]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1\ntwo\n", "line 2: expected a time in whole microseconds, got 'two'"),
        ("5\n5\n", "line 2: expected a time after 5 us, got 5 us"),
    ],
)
def test_wrong_times_are_told_with_their_line(tmp_path: Path, text: str, told: str) -> None:
    Facts().write(tmp_path)
    (tmp_path / "timestamps.txt").write_text(text)
    with pytest.raises(RecordingError, match=told):
        read_recording(tmp_path).times_us()


def test_facts_that_a_crash_damaged_do_not_keep_the_rest_from_being_read(tmp_path: Path) -> None:
    (tmp_path / "recording.json").write_text('{"v": 1, "sta')
    (tmp_path / "timestamps.txt").write_text("7\n")
    recording = read_recording(tmp_path)
    assert recording.times_us().tolist() == [7]
    assert "cannot be read" in recording.warnings[0]


def test_a_recording_of_a_newer_form_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recording.json").write_text('{"v": 2, "ended": "2030-01-01"}')
    with pytest.raises(RecordingError, match="expected version 1 of a recording, got 2"):
        read_recording(tmp_path)


# ---- the last seconds -----------------------------------------------------------------------------------


def test_the_last_seconds_are_kept_and_no_more() -> None:
    recent = PreRollBuffer(keep_us=1000, room_bytes=1 << 20)
    for k in range(10):
        recent.add(words(k, 10, t_us=500 * k))
        recent.add(said(500 * k))
    # The newest time is 4500. A chunk's time is that before its events: the one at 3000 reaches to 3500.
    assert [item.t_us for item in recent.items()] == [3000, 3500, 4000, 4500, 3500, 4000, 4500]
    assert recent.held_us == 1500
    recent.add(said(4600))
    assert [item.t_us for item in recent.items()] == [3500, 4000, 4500, 4000, 4500, 4600]


def test_the_last_seconds_take_no_more_memory_than_they_may() -> None:
    recent = PreRollBuffer(keep_us=10**9, room_bytes=100)
    for k in range(20):
        recent.add(words(k, 30, t_us=k))
        assert recent.held_bytes == sum(item.n_bytes for item in recent.items()) <= 100
    assert [item.t_us for item in recent.items()] == [17, 18, 19]


def test_a_clock_that_begins_anew_empties_the_last_seconds() -> None:
    recent = PreRollBuffer(keep_us=1000, room_bytes=1 << 20)
    for t_us in (5_000_000, 5_000_500, 10):
        recent.add(said(t_us))
    assert [item.t_us for item in recent.items()] == [10]


def test_what_is_kept_is_what_came_and_nobody_can_change_it() -> None:
    recent = PreRollBuffer(keep_us=1000, room_bytes=1 << 20)
    came = Words(FORM, bytes(range(200)), Place(5), 0)
    recent.add(came)
    recent.add(Compressed(b"jpeg", 6))
    kept, picture = recent.items()
    assert isinstance(kept, Words)
    assert isinstance(picture, Compressed)
    assert (kept, bytes(picture.jpeg)) == (came, b"jpeg")
    assert isinstance(kept.data, memoryview)
    assert kept.data.readonly


def test_the_memory_of_the_last_seconds_goes_back_with_the_last_piece_on_it() -> None:
    arena = ByteArena(slab_bytes=8)
    pieces = [arena.keep(bytes([k] * 4)) for k in range(4)]  # two arena of two pieces
    large = arena.keep(bytes(20))
    slab = [weakref.ref(piece.obj) for piece in (*pieces, large)]
    assert slab[0]() is slab[1]() is not slab[2]() is slab[3]() is not slab[4]()
    assert [bytes(piece) for piece in pieces] == [bytes([k] * 4) for k in range(4)]
    del pieces[0]
    assert slab[0]() is not None
    del pieces[0]
    assert (slab[0](), slab[2]() is not None, len(large)) == (None, True, 20)


def test_a_compressed_picture_is_nearly_the_picture() -> None:
    image = np.zeros((48, 64, 3), np.uint8)
    image[:, :, 0], image[:, :, 2] = 200, np.arange(64) * 2
    small = Compressed.of(Picture(image, 5))
    assert (small.t_us, small.n_bytes * 4 < image.nbytes) == (5, True)
    assert np.abs(small.restore().image.astype(int) - image).mean() < 4


# ---- the backlog ----------------------------------------------------------------------------------------


def test_a_full_backlog_refuses_and_does_not_wait() -> None:
    backlog: ByteQueue[str] = ByteQueue(10, waits=False)
    assert [backlog.put("a", 6), backlog.put("b", 6), backlog.put("order", 0)] == [True, False, True]
    assert [backlog.get(), backlog.get()] == ["a", "order"]
    assert backlog.put("large", 100)
    backlog.finish()
    assert [backlog.put("late", 0), backlog.get(), backlog.get()] == [False, "large", None]


def test_a_backlog_that_waits_loses_nothing() -> None:
    backlog: ByteQueue[int] = ByteQueue(3, waits=True)
    putting = threading.Thread(target=lambda: [backlog.put(k, 2) for k in range(50)])
    putting.start()
    assert [backlog.get() for _ in range(50)] == list(range(50))
    putting.join()


# ---- the recorder ---------------------------------------------------------------------------------------


def play(path: Path, recorder: Recorder, *, upto_us: int = 1 << 62) -> Any:
    """Walk a file of events with the recorder listening; returns the stream."""
    reader = open_events(path)
    stream = reader.stream()
    stream.listen(recorder)
    stream.skip_until(upto_us)
    return stream


def test_a_raw_file_is_recorded_to_the_byte_with_its_triggers(tmp_path: Path) -> None:
    write_events(tmp_path / "e.raw", count=100_000, triggers_us=[7_000_100, 7_200_000])
    recorder = make_recorder(tmp_path / "r")
    play(tmp_path / "e.raw", recorder)
    (result,) = recorder.close()
    assert (tmp_path / "r" / "events.raw").read_bytes() == (tmp_path / "e.raw").read_bytes()
    assert read_recording(tmp_path / "r").triggers().t_us.tolist() == [7_000_100, 7_200_000]
    assert (result.is_whole, result.why) == (True, "end of the run")


def test_arrays_are_recorded_as_the_same_events(tmp_path: Path) -> None:
    events = [(10 * k, k % 64, k % 48, k % 2) for k in range(1000)]
    recorder = make_recorder(tmp_path / "r")
    stream = MemoryEvents(events, (64, 48), [(55, 2, 1)]).stream()
    stream.listen(recorder)
    assert (stream.t_next_us, stream.skip_until(1 << 62)) == (0, 1000)
    assert stream.take_triggers().t_us.tolist() == [55]
    recorder.close()
    reader = open_event_source(str(tmp_path / "r"))
    assert reader is not None
    assert list(zip(*(a.tolist() for a in columns(reader.read())), strict=True)) == events
    assert read_recording(tmp_path / "r").triggers().t_us.tolist() == [55]


def columns(batch: EventBatch) -> tuple[np.ndarray[Any, Any], ...]:
    return batch.t_us, batch.x, batch.y, batch.p


@pytest.mark.parametrize("keep_us", [0, 10_000_000])
def test_a_recording_begun_later_holds_what_came_last_and_all_after(tmp_path: Path, keep_us: int) -> None:
    """A chunk of a file holds half a second here: one that is begun in it must not lack its rest."""
    batch = write_events(tmp_path / "e.raw", count=400_000, duration_us=2_000_000)
    recorder = make_recorder(parent=tmp_path / "rs", keep_us=keep_us)
    stream = play(tmp_path / "e.raw", recorder, upto_us=8_100_000)
    folder = recorder.start()
    with pytest.raises(InputError, match="is being recorded already"):
        recorder.start()
    stream.skip_until(1 << 62)
    assert recorder.stop().facts.dropped == {"gaps": 0}
    with pytest.raises(InputError, match="nothing is being recorded"):
        recorder.stop()
    recorder.close()
    with open_events(folder / "events.raw") as reader:
        found = reader.read()
        assert reader.warnings == []
    first = len(batch) - len(found)
    assert 7_000_000 < found.t_us[0] < 8_100_000
    assert [a.tolist() for a in columns(found)] == [a.tolist() for a in columns(batch[first:])]


@pytest.mark.parametrize("keep_us", [0, 10_000_000])
def test_arrays_recorded_later_begin_with_the_batch_that_came_last(tmp_path: Path, keep_us: int) -> None:
    batches = [MemoryEvents([(1000 * b + k, k, 3, 1) for k in range(10)]).batch for b in range(4)]
    recorder = make_recorder(parent=tmp_path / "rs", keep_us=keep_us)
    recorder.take_batch(batches[0])
    recorder.take_batch(batches[1])
    folder = recorder.start()
    recorder.take_batch(batches[2])
    recorder.take_batch(batches[3])
    recorder.close()
    with open_events(folder / "events.raw") as reader:
        assert reader.read().t_us.tolist() == EventBatch.concatenate(batches[1:]).t_us.tolist()


@pytest.mark.parametrize("keep_us", [0, 100_000_000])
def test_a_camera_whose_clock_begins_anew_is_recorded_on_one_clock(tmp_path: Path, keep_us: int) -> None:
    """Unplugged after 1.2 s, back 20 s later; its own clock then counts from 0, the stream's goes on."""
    before = write_events(tmp_path / "a.raw", start_us=0, count=120_000, duration_us=1_200_000)
    after = write_events(tmp_path / "b.raw", start_us=300, count=50_000, duration_us=500_000, seed=4)
    recorder = make_recorder(tmp_path / "r", parent=tmp_path / "rs", keep_us=keep_us)
    play(tmp_path / "a.raw", recorder)
    recorder.begin(21_200_000)
    play(tmp_path / "b.raw", recorder)
    folders = [tmp_path / "r", *([recorder.save_clip()] if keep_us else [])]
    results = recorder.close()
    assert [result.facts.dropped["gaps"] for result in results] == [1] * len(folders)
    times = np.concatenate([before.t_us, after.t_us + 21_200_000])
    for folder in folders:
        with open_events(folder / "events.raw") as reader:
            found = reader.read()
        assert found.t_us.tolist() == times.tolist()
        assert found.x.tolist() == before.x.tolist() + after.x.tolist()


def test_a_clip_holds_the_last_seconds_of_everything(tmp_path: Path) -> None:
    notes: list[str] = []
    write_events(tmp_path / "e.raw", count=400_000, duration_us=2_000_000)
    recorder = make_recorder(parent=tmp_path / "rs", keep_us=500_000, notes=notes)
    play(tmp_path / "e.raw", recorder)
    for k in range(33):
        recorder.take_picture(np.full((16, 16, 3), 7 * k, np.uint8), 8_000_000 + 33_333 * k)
        recorder.take_prediction(said(8_000_000 + 33_333 * k).prediction)
    folder = recorder.save_clip()
    (result,) = recorder.close()
    assert (result.folder, result.why, result.is_whole) == (folder, "clip", True)
    kept = [8_000_000 + 33_333 * k for k in range(17, 33)]
    assert [frame.t_us for frame in RecordedVideo(str(folder))] == kept
    with open_events(folder / "events.raw") as reader:
        times = reader.read().t_us
        assert (times[0] < kept[0], int(times[-1]), reader.warnings) == (True, 8_999_995, [])
    assert notes == [result.line()]


def test_without_kept_seconds_there_is_no_clip(tmp_path: Path) -> None:
    recorder = make_recorder(parent=tmp_path)
    with pytest.raises(InputError, match="no clips are kept; run with --keep SECONDS"):
        recorder.save_clip()
    recorder.close()
    with pytest.raises(InputError, match="the run has ended"):
        recorder.start()


def test_a_slow_disk_costs_the_recording_and_tells_what(tmp_path: Path) -> None:
    begun, gate = threading.Event(), threading.Event()

    class Slow(AppendFile):
        def write(self, data: bytes | bytearray | memoryview) -> int:
            begun.set()
            assert gate.wait(30)
            return super().write(data)

    recorder = make_recorder(tmp_path / "r", open_file=Slow, waits=False)
    large = np.zeros((2000, 2000, 3), np.uint8)
    recorder.take_prediction(said(0).prediction)
    assert begun.wait(30)
    for k in range(40):
        recorder.take_picture(large, 1000 * k)  # 12 MB each, 256 MiB wait at most
    gate.set()
    (result,) = recorder.close()
    assert result.facts.counts["frames"] == 22
    assert result.facts.dropped == {"frames": 18, "gaps": 0}
    assert "18 frames lost" in result.line()


@pytest.mark.parametrize("left", [0, 100, 900, 5_000, 20_000])
def test_a_full_disk_ends_the_recording_and_leaves_it_readable(tmp_path: Path, left: int) -> None:
    FullDisk.left = left
    notes: list[str] = []
    recorder = make_recorder(tmp_path / "r", notes=notes, open_file=FullDisk)
    rng = np.random.default_rng(1)
    for k in range(60):
        recorder.take_picture(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8), 33_333 * k)
        recorder.take_prediction(said(33_333 * k).prediction)
    assert recorder.state.folder is None or recorder.close()
    (result,) = recorder.close()
    assert (result.is_whole, result.why) == (False, "stopped: the disk is full")
    assert len(notes) == 1
    recording = read_recording(tmp_path / "r")
    assert recording.facts.why_ended == "stopped: the disk is full"
    times = recording.times_us().tolist()
    assert times == [33_333 * k for k in range(len(times))]
    if left == 20_000:
        frames = list(RecordedVideo(str(tmp_path / "r")))
        assert [frame.t_us for frame in frames] == times[: len(frames)]
        assert len(frames) > 0


def test_a_disk_that_is_really_full_ends_the_recording_alone(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a small disk: {mounted.stderr.decode().strip()}")
    try:
        recorder = make_recorder(disk / "r")
        rng = np.random.default_rng(1)
        for k in range(200):
            recorder.take_picture(rng.integers(0, 255, (96, 128, 3), dtype=np.uint8), 33_333 * k)
            recorder.take_prediction(said(33_333 * k).prediction)
        (result,) = recorder.close()
        assert (result.is_whole, result.why) == (False, "stopped: the disk is full")
        recording = read_recording(disk / "r")
        assert recording.facts.why_ended == "stopped: the disk is full"
        frames = list(RecordedVideo(str(disk / "r")))
        assert [frame.t_us for frame in frames] == recording.times_us().tolist()[: len(frames)]
        assert len(frames) > 10
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_whatever_goes_wrong_ends_the_recording_and_not_the_run(tmp_path: Path) -> None:
    recorder = make_recorder(tmp_path / "r")
    recorder.take_batch(MemoryEvents([(20, 1, 1, 1)]).batch)
    recorder.take_batch(MemoryEvents([(10, 1, 1, 1)]).batch)
    recorder.take_batch(MemoryEvents([(30, 1, 1, 1)]).batch)
    (result,) = recorder.close()
    assert not result.is_whole
    assert "is earlier than the event before it (20 us)" in result.why


def record_words(folder: Path, source: Path) -> Recorder:
    """A recorder that took all words of a file, and nothing else."""
    recorder = make_recorder(folder)
    reader = open_events(source)
    stream = reader.stream()
    stream.listen(recorder)
    while stream.t_next_us is not None:
        stream.skip_until(stream.t_next_us + 50_000)
    stream.close()
    return recorder


def test_a_recording_of_events_alone_lasts_as_long_as_its_events(tmp_path: Path) -> None:
    write_events(tmp_path / "e.raw", duration_us=400_000)  # one each 100 us from 7 s on
    [result] = record_words(tmp_path / "r", tmp_path / "e.raw").close()
    assert read_recording(tmp_path / "r").facts.first_us == 7_000_000
    assert result.seconds == pytest.approx(0.4, abs=0.001)
    assert ": 0.40 s, " in result.line()


def test_a_frame_tells_the_time_of_a_recording_that_began_with_events(tmp_path: Path) -> None:
    encoder = WordEncoder(FORM)
    writer = RecordingWriter(tmp_path / "r", Facts())
    for number, t_us in enumerate((5_000, 9_000)):
        event = (np.array([t_us], np.int64), *(np.array([1], kind) for kind in ("u2", "u2", "u1")))
        place, data = encoder.encode(EventBatch(*event))
        writer.write(Words(FORM, data, place, number))
    assert writer.facts.first_us == 5_000
    writer.write(picture(7_000))
    writer.close("asked for")
    assert (writer.facts.first_us, writer.facts.last_us) == (7_000, 7_000)
