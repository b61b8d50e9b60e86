from __future__ import annotations

import inspect
import itertools
import re
from pathlib import Path

import numpy as np
import pytest

import velora_edge
from tests.events import words as w
from tests.recordings import write_events
from velora_edge import open_events
from velora_edge.bundle import EventInput
from velora_edge.datatypes import EventBatch
from velora_edge.errors import ConfigError, InputError, RecordingError
from velora_edge.events.accumulate.frames import frames
from velora_edge.events.accumulate.representations import RegistrationMap, make_accumulator
from velora_edge.events.formats.arrays import ArrayStream
from velora_edge.events.formats.raw import raw_index
from velora_edge.events.formats.raw.raw import RawStream
from velora_edge.events.formats.raw.raw_index import RawIndex
from velora_edge.events.writers import open_writer

HEADER = b"% evt 3.0\n% geometry 40x8\n% end\n"


WRONG = [
    "1 event comes before the first time word; it has no time and was dropped",
    "1 trigger edge comes before the first time word and was dropped",
    "1 event comes before the first address that it refers to and was dropped",
    "673 events lie outside the sensor of 40x8 and were dropped",  # 95 vectors' 7 last columns, and 8
    "the time steps back 2 times; the events keep the camera's times",
    "95 words are of no type that EVT3 has and were passed over",
    "95 padding words (0x9999) were passed over",
    "the recording was cut off within a word: dropped 1 of the 2 bytes of its last one",
]


def write_times(path, times_us):
    """EVT2: events at these times, 40x8 pixels."""
    n = len(times_us)
    x, y = (np.arange(n) % side for side in (40, 8))
    batch = EventBatch(np.array(times_us), x.astype(np.uint16), y.astype(np.uint16), np.ones(n, np.uint8))
    with open_writer(path, "EVT2", width=40, height=8) as writer:
        writer.write(batch)
    return path


def histograms(reader, window_us, threads=1, **more):
    """uint16[2, H, W] of each window."""
    return [frame.image for frame in frames(reader, window_us, "histogram", threads=threads, **more)]


@pytest.fixture
def recording(tmp_path):
    """Four events: at 10 and 20 us, 4110 us and 8200 us."""
    path = tmp_path / "recording.raw"
    words = [
        w.time_high(0), w.time_low(10), w.addr_y(1), w.addr_x(2, 1), w.time_low(20), w.addr_x(2, 1),
        w.time_high(1), w.time_low(14), w.addr_x(39, 0), w.time_high(2), w.time_low(8), w.addr_x(0, 0),
    ]  # fmt: skip
    path.write_bytes(HEADER + w.evt3(*words))
    return path


def test_a_frame_for_each_window_empty_ones_too(recording):
    edges = [20, 4100, 4200, 5000, 9000]
    found = list(frames(open_events(recording), edges, size=(8, 40), fit="stretch"))
    assert [(f.t0_us, f.t1_us, f.events) for f in found] == [
        (20, 4100, 1), (4100, 4200, 1), (4200, 5000, 0), (5000, 9000, 1),
    ]  # fmt: skip
    assert [np.argwhere((f.image != 255).any(axis=2)).tolist() for f in found] == [
        [[1, 2]], [[1, 39]], [], [[1, 0]],
    ]  # fmt: skip


def test_histograms_go_from_the_first_event_to_the_window_of_the_last(recording):
    found = histograms(open_events(recording), 4000)
    assert [frame.shape for frame in found] == [(2, 8, 40)] * 3
    assert [np.argwhere(frame).tolist() for frame in found] == [[[1, 1, 2]], [[0, 1, 39]], [[0, 1, 0]]]
    assert int(found[0][1, 1, 2]) == 2


@pytest.mark.parametrize("image_size", [(20, 20), (600, 700)])
@pytest.mark.parametrize("representation", ["polarity", "voxel_grid"])
def test_words_fall_on_small_and_large_frames_as_arrays_do(tmp_path, representation, image_size):
    batch = write_events(tmp_path / "e.raw", count=60_000, duration_us=100_000, sensor=(700, 600))
    registration = RegistrationMap.from_fit((600, 700), image_size, "crop")
    event_input = EventInput(representation=representation)
    found = []
    for stream in (open_events(tmp_path / "e.raw").stream(), ArrayStream(iter([batch]), 700, 600)):
        frame, image = make_accumulator(event_input, registration), np.empty((*image_size, 3), np.uint8)
        frame.begin(7_000_000, 7_100_000)
        assert stream.accumulate_until(7_100_000, frame) == 60_000
        frame.render_into(image)
        found.append((frame.events, image.tobytes()))
        stream.close()
    assert found[0] == found[1]
    assert len(set(found[0][1])) > 1


@pytest.mark.parametrize("sensor", [(40, 8), (700, 600)])
def test_histograms_of_small_and_large_sensors_stay_at_65535(tmp_path, sensor):
    x, y = sensor[0] - 1, sensor[1] - 1
    many = np.full(70_000, 1)
    batch = EventBatch(
        np.arange(70_002),
        np.r_[many * x, 0, 0].astype(np.uint16),
        np.r_[many * y, 0, 0].astype(np.uint16),
        np.r_[many, 0, 1].astype(np.uint8),
    )
    with open_writer(tmp_path / "e.raw", "EVT3", width=sensor[0], height=sensor[1]) as writer:
        writer.write(batch)
    (counts,) = histograms(open_events(tmp_path / "e.raw"), 100_000)
    wanted = np.zeros((2, sensor[1], sensor[0]), np.uint16)
    wanted[1, y, x], wanted[:, 0, 0] = 65_535, 1
    assert np.array_equal(counts, wanted)


def test_a_recording_without_events_has_no_frames(tmp_path):
    (tmp_path / "empty.raw").write_bytes(HEADER)
    assert histograms(open_events(tmp_path / "empty.raw"), 1000, threads=3) == []


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize(
    "name",
    [
        "ecpy_test1_evt3_triggers.raw",
        "expelliarmus_evt3_sample.raw",
        "expelliarmus_evt2_sample.raw",
        "derived_faery_evt21.raw",
    ],
)
def test_several_threads_give_the_frames_of_one(shared_events, monkeypatch, name, threads):
    monkeypatch.setattr(raw_index, "SPACING_BYTES", 1 << 13)
    monkeypatch.setattr("velora_edge.events.accumulate.frame_threads.GROUP_BYTES", 1 << 14)
    reader = open_events(shared_events / name)
    with reader.stream() as stream:
        start_us = stream.t_next_us
    window_us = 40_000 if "triggers" in name else 900
    one = histograms(reader, window_us)
    several = histograms(reader, window_us, threads)
    assert len(one) > 8
    assert all(map(np.array_equal, one, several))
    assert len(one) == len(several)
    edges = range(start_us - 5 * window_us, start_us + (len(one) + 5) * window_us, window_us)
    packed = [
        [(f.t0_us, f.t1_us, f.events, f.image.tobytes()) for f in made]
        for made in (
            frames(reader, edges, "voxel_grid", (20, 20)),
            frames(reader, edges, "voxel_grid", (20, 20), threads=threads),
        )
    ]
    assert packed[0] == packed[1]
    assert len(packed[0]) == len(one) + 9


@pytest.mark.parametrize(
    "name",
    [
        "ecpy_test1_evt3_triggers.raw",
        "expelliarmus_evt3_sample.raw",
        "expelliarmus_evt2_sample.raw",
        "derived_faery_evt21.raw",
    ],
)
def test_a_walk_from_any_checkpoint_goes_on_as_from_the_start(shared_events, monkeypatch, name):
    monkeypatch.setattr(raw_index, "SPACING_BYTES", 1 << 15)
    reader = open_events(shared_events / name)
    with RawIndex(reader) as index:
        index.find(2**61)
    whole = reader.read()
    assert len(index.checkpoints) > 2
    for checkpoint in index.checkpoints:
        with RawStream(reader, checkpoint) as stream:
            batch = stream.read_batch(len(whole) + 10_000)
        tail = whole[len(whole) - len(batch) :]
        assert w.rows(batch[:500]) == w.rows(tail[:500])
        assert (whole.t_us[: len(whole) - len(batch)] <= checkpoint.before_us).all()


def test_time_that_goes_back_does_not_change_the_windows(tmp_path, monkeypatch):
    monkeypatch.setattr(raw_index, "SPACING_BYTES", 8)
    monkeypatch.setattr("velora_edge.events.accumulate.frame_threads.GROUP_BYTES", 8)
    words = [w.addr_y(1)]
    for high in [*range(4090, 4096), *range(9), 7, 6, *range(7, 20), 15, 16, *range(18, 30)]:
        words += [w.time_high(high), w.time_low(5), w.addr_x(high % 40), w.base_x(3), w.vect_12(7)]
    path = tmp_path / "recording.raw"
    path.write_bytes(HEADER + w.evt3(*words))
    reader = open_events(path)
    one = histograms(reader, 3000)
    several = histograms(reader, 3000, 3)
    assert len(one) == len(several) == 48
    assert all(map(np.array_equal, one, several))


@pytest.fixture
def small_groups(monkeypatch):
    """Each thread gets a few words at a time."""
    monkeypatch.setattr(raw_index, "SPACING_BYTES", 16)
    monkeypatch.setattr("velora_edge.events.accumulate.frame_threads.GROUP_BYTES", 16)


@pytest.mark.parametrize("threads", [1, 3])
def test_what_is_wrong_is_told_alike_by_any_number_of_threads(tmp_path, small_groups, threads):
    words = [w.addr_x(1, 1), w.edge(1, 1), w.time_high(0), w.time_low(1), w.addr_x(3, 1), w.addr_y(1)]
    for high in [*range(60), 58, 57, *range(57, 90)]:
        words += [w.time_high(high), w.time_low(5), w.addr_x(high % 44, 1), 0x9999, 0xB000]
        words += [w.base_x(35, 1), w.vect_12(0xFFF)]
    path = tmp_path / "recording.raw"
    path.write_bytes(HEADER + w.evt3(*words) + b"\x01")
    reader = open_events(path)
    assert len(histograms(reader, 3000, threads)) > 100
    assert reader.warnings == WRONG
    again = open_events(path)
    edges = range(0, 500_000, 2500)
    assert len(list(frames(again, edges, size=(8, 8), threads=threads))) == 199
    assert again.warnings == WRONG
    early = open_events(path)
    list(frames(early, range(0, 100_000, 2500), size=(8, 8), threads=threads))
    assert early.warnings == []  # the end was not reached


@pytest.mark.parametrize("threads", [1, 3])
def test_time_that_goes_on_without_events_has_no_windows_but_its_words_are_looked_at(
    tmp_path, small_groups, threads
):
    path = tmp_path / "recording.raw"
    quiet = [word for hour in range(1, 4) for word in (w.time_2(hour * 3_600_000_000 >> 6), 0x7000_0000)]
    events = [
        w.time_2(quiet_until := (4 * 3_600_000_000 >> 6)),
        *(w.event_2(k, k % 40, 1) for k in range(64)),
    ]
    later = [word for k in range(1, 300) for word in (w.time_2(quiet_until + k * 100_000), 0x7000_0000)]
    path.write_bytes(b"% evt 2.0\n% geometry 40x8\n% end\n" + w.evt2(*quiet, *events, *later))
    reader = open_events(path)
    counts = [int(frame.sum()) for frame in histograms(reader, 10, threads)]
    assert counts == [10, 10, 10, 10, 10, 10, 4]
    assert reader.warnings == ["302 words are of no type that EVT2 has and were passed over"]


@pytest.mark.parametrize("threads", [1, 3])
def test_windows_of_a_long_gap_are_left_out_and_told(tmp_path, small_groups, threads):
    days_us = 2 * 24 * 3600 * 1_000_000
    path = write_times(tmp_path / "e.raw", [*range(0, 60_000, 500), *range(days_us, days_us + 60_000, 500)])
    reader = open_events(path)
    counts = [int(frame.sum()) for frame in histograms(reader, 1000, threads)]
    assert counts == [2] * 120
    assert reader.warnings == [
        "there is no event from 60,000 to 172,800,000,000 us (172,800 s): "
        "172,799,940 empty windows were left out"
    ]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("gap_us", [59_900_000, 60_000_000, 60_100_000, 75_000_000])
def test_only_windows_of_gaps_of_more_than_a_minute_are_left_out(tmp_path, small_groups, gap_us, threads):
    begins = (0, 1_000_000 + gap_us, 2_000_000 + 3 * gap_us)
    times = [begin + t for begin in begins for t in range(0, 1_000_000, 5000)]
    reader = open_events(write_times(tmp_path / "e.raw", times))
    every = [int(frame.sum()) for frame in histograms(reader, 100_000, threads, longest_gap_us=None)]
    assert len(every) == 30 + 3 * gap_us // 100_000
    assert reader.warnings == []
    given = [int(frame.sum()) for frame in histograms(reader, 100_000, threads)]
    long = 2 * gap_us // 100_000 + (gap_us // 100_000 if gap_us > 60_000_000 else 0)
    assert len(given) == len(every) - long
    assert [n for n in given if n] == [n for n in every if n] == [20] * 30
    (warning,) = reader.warnings
    assert warning.endswith(f"{long:,} empty windows were left out")


def test_files_are_closed_when_nobody_wants_the_rest(tmp_path, small_groups):
    times = [begin + t for begin in range(0, 10**9, 10**8) for t in range(0, 1_000_000, 5000)]
    path = write_times(tmp_path / "e.raw", times)
    before = len(list(Path("/proc/self/fd").iterdir()))
    made = frames(open_events(path), 100_000, "histogram", threads=3)
    assert int(next(made).image.sum()) == 20
    assert int(next(itertools.islice(made, 20, None)).image.sum()) == 20
    made.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_checkpoint_far_from_rows_and_bases_still_finds_them(tmp_path, monkeypatch):
    monkeypatch.setattr(raw_index, "SPACING_BYTES", 64)
    monkeypatch.setattr(raw_index, "_RECALLED_BYTES", 16)
    filler = list(itertools.chain.from_iterable((w.time_high(k), w.OTHERS) for k in range(600)))
    path = tmp_path / "recording.raw"
    path.write_bytes(
        HEADER + w.evt3(w.time_high(0), w.base_x(2, 0), w.vect_8(0), w.addr_y(5), *filler)
        + w.evt3(w.addr_x(1), w.vect_12(1))
    )  # fmt: skip
    reader = open_events(path)
    with RawIndex(reader) as index:
        checkpoint = index.find(590 * 4096)
    assert checkpoint.position > 1000
    with RawStream(reader, checkpoint) as stream:
        batch = stream.read_batch(10)
    assert w.rows(batch) == w.rows(reader.read()) == [(599 * 4096, 1, 5, 1), (599 * 4096, 10, 5, 0)]


def test_windows_of_one_length_have_their_times_and_empty_ones_are_rendered(recording):
    found = list(velora_edge.frames(recording, 2000, "counts"))
    assert [(f.t0_us, f.t1_us, f.events) for f in found] == [
        (10, 2010, 2), (2010, 4010, 0), (4010, 6010, 1), (6010, 8010, 0), (8010, 10_010, 1),
    ]  # fmt: skip
    assert [np.argwhere(f.image).tolist() for f in found] == [[[1, 2, 1]], [], [[1, 39, 0]], [], [[1, 0, 0]]]
    assert found[0].image.shape == (8, 40, 3)
    assert int(found[0].image[1, 2, 1]) == 2


@pytest.mark.parametrize("representation", ["polarity", "counts", "time_surface", "voxel_grid", "histogram"])
def test_a_list_of_frames_keeps_each_image(recording, representation):
    windows = [10, 4010, 8010, 12_010]
    kept = [frame.image.tobytes() for frame in frames(recording, windows, representation)]
    assert [frame.image.tobytes() for frame in list(frames(recording, windows, representation))] == kept
    assert len(set(kept)) == 3


def test_an_image_that_is_not_copied_is_filled_anew(recording):
    made = frames(recording, 4000, "histogram", copy=False)
    first = next(made).image
    before = first.copy()
    next(made)
    assert np.shares_memory(first, next(made).image)
    assert not np.array_equal(first, before)


def test_frames_that_nobody_can_make_are_refused_before_the_first(recording):
    with pytest.raises(InputError, match=r"^windows: expected a length in microseconds above 0, got 0$"):
        frames(recording, 0)
    with pytest.raises(InputError, match=r"^a histogram has the sensor's size, \(8, 40\), got \(8, 8\)"):
        frames(recording, 1000, "histogram", (8, 8))
    with pytest.raises(ConfigError, match=r"representation: expected one of polarity, .*, got 'poles'$"):
        frames(recording, 1000, "poles")
    with pytest.raises(RecordingError, match="no such file"):
        frames(recording.with_name("other.raw"))


def test_the_example_of_the_docstring_runs(tmp_path, monkeypatch, capsys):
    write_events(tmp_path / "recording.raw", count=5000, duration_us=50_000, sensor=(40, 40))
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(re.search(r"```python\n(.*?)```", inspect.cleandoc(frames.__doc__), re.DOTALL)[1], found)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(found["counts"]) == 5
    assert lines[0] == "7000000 7010000 1000 (224, 224, 3)"
    assert sum(int(image.sum()) for image in found["counts"]) == 5000
