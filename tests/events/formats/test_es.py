from __future__ import annotations

import struct

import numpy as np
import pytest

from velora_edge import open_events
from velora_edge.errors import RecordingError
from velora_edge.events.formats import _es_kernels as kernels
from velora_edge.events.formats import es

TOP = 9


def header(kind: int, *, version=(2, 0, 0), sensor=(8, TOP + 1)) -> bytes:
    return b"Event Stream" + bytes([*version, kind]) + struct.pack("<HH", *sensor)


def dvs(step_us, x, y, p) -> bytes:
    return struct.pack("<BHH", step_us << 1 | p, x, TOP - y)


def atis(step_us, x, y, p, *, exposure=False) -> bytes:
    return struct.pack("<BHH", step_us << 2 | p << 1 | exposure, x, TOP - y)


def colour(step_us, x, y, rgb) -> bytes:
    return struct.pack("<BHHBBB", step_us, x, TOP - y, *rgb)


@pytest.fixture
def write(tmp_path):
    def write(data: bytes):
        path = tmp_path / "recording.es"
        path.write_bytes(data)
        return path

    return write


def rows(reader):
    b = reader.read()
    return list(zip(b.t_us.tolist(), b.x.tolist(), b.y.tolist(), b.p.tolist(), strict=True))


def test_dvs_events_and_steps_longer_than_seven_bits(write):
    data = dvs(5, 1, 2, 1) + b"\xff\xff" + dvs(0, 7, 9, 0) + b"\xfe" + dvs(126, 0, 0, 1)
    reader = open_events(write(header(1) + data))
    assert rows(reader) == [(5, 1, 2, 1), (259, 7, 9, 0), (385, 0, 0, 1)]
    assert (reader.format, reader.width, reader.height, reader.warnings) == (
        "Event Stream (dvs)", 8, 10, [],
    )  # fmt: skip


def test_atis_events_of_change_without_those_of_exposure(write):
    data = atis(5, 1, 2, 1) + b"\xfe\xfc" + atis(1, 3, 4, 1, exposure=True) + atis(2, 5, 6, 0)
    reader = open_events(write(header(2) + data))
    assert rows(reader) == [(5, 1, 2, 1), (134, 5, 6, 0)]
    assert reader.warnings == ["the file holds events of exposure too, which are not read"]


def test_a_colour_is_on_where_it_is_brighter_than_the_pixels_last(write):
    data = colour(9, 1, 2, (9, 9, 9)) + colour(1, 1, 2, (9, 9, 10)) + colour(1, 1, 2, (10, 9, 9))
    data += b"\xff" + colour(0, 1, 2, (0, 0, 0)) + colour(1, 3, 3, (255, 255, 255))
    reader = open_events(write(header(4) + data))
    assert rows(reader) == [(10, 1, 2, 1), (265, 1, 2, 0)]
    assert reader.warnings == [
        "polarity is told by a pixel's brightness; colours that leave it as it was are left out"
    ]


@pytest.mark.parametrize("kind", [1, 2, 4])
@pytest.mark.parametrize("read_bytes", range(1, 12))
def test_a_file_gives_the_same_read_in_pieces_of_any_size(write, monkeypatch, kind, read_bytes):
    make = {1: dvs, 2: atis, 4: lambda s, x, y, p: colour(s, x, y, (s % 7, s % 5, p))}[kind]
    data = b"".join(make(k, k % 3, k % 2, k % 2) + b"\xff" * (k % 3) for k in range(30))
    path = write(header(kind) + data)
    whole = rows(open_events(path))
    monkeypatch.setattr(es, "READ_BYTES", read_bytes)
    assert rows(open_events(path)) == whole
    assert len(whole) > 5


@pytest.mark.parametrize("kind", [1, 2, 4])
def test_the_kernel_does_the_same_uncompiled(kind):
    data = np.random.default_rng(kind).integers(0, 256, 2000).astype(np.uint8)
    data[2::5] = data[4::5] = 0
    found = []
    for function in (kernels.decode_events, kernels.decode_events.py_func):
        memory, brightness = np.array([7, 0], np.int64), np.full((10, 8), kernels.NOT_SEEN, np.int16)
        columns = [np.zeros(401, dtype) for dtype in (np.int64, np.uint16, np.uint16, np.uint8)]
        n, taken = function(data, kind, TOP, memory, brightness, *columns)
        found.append(
            (int(n), int(taken), memory.tolist(), brightness.tolist(), [c.tolist() for c in columns])
        )
    assert found[0] == found[1]
    assert found[0][0] > 0


def test_events_beyond_the_sensor_are_dropped_and_told(write):
    data = dvs(1, 8, 0, 1) + struct.pack("<BHH", 3, 0, 10) + dvs(1, 2, 3, 1)
    reader = open_events(write(header(1) + data))
    assert rows(reader) == [(3, 2, 3, 1)]
    assert reader.warnings == ["2 events lie outside the sensor of 8x10 and were dropped"]
    colours = colour(1, 8, 0, (1, 1, 1)) + colour(1, 2, 3, (1, 1, 1)) + colour(1, 2, 3, (2, 1, 1))
    assert rows(open_events(write(header(4) + colours))) == [(3, 2, 3, 1)]


def test_a_file_cut_off_inside_an_event_gives_the_events_before(write):
    whole = header(1) + dvs(1, 1, 1, 1) + dvs(1, 2, 2, 0)
    for lost in range(1, 5):
        reader = open_events(write(whole[:-lost]))
        assert rows(reader) == [(1, 1, 1, 1)]
        assert reader.warnings == [f"the file is cut off: the last {5 - lost} bytes are part of an event"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (header(0), "expected a stream of type dvs, atis or colour, got generic; only change events can be"),
        (header(3), "got asynchronous"),
        (header(9), "got number 9"),
        (header(1, version=(1, 2, 3)), "expected Event Stream version 2, got 1.2.3"),
        (header(1)[:-1], "expected the header of an Event Stream file"),
        (header(1, sensor=(0, 5)), "announces a sensor without pixels"),
        (header(4, sensor=(65535, 65535)), "the brightness of its pixels"),
    ],
)
def test_unusable_files_are_refused_in_one_line(write, data, message):
    with pytest.raises(RecordingError, match=message) as error:
        open_events(write(data))
    assert "\n" not in str(error.value)


def theirs(path):
    """Packets of the format's own library, with y from the top."""
    event_stream = pytest.importorskip("event_stream", reason="needs event_stream")
    with event_stream.Decoder(path) as decoder:
        packets = np.concatenate(list(decoder))
        packets["y"] = decoder.height - 1 - packets["y"]
    return packets


def test_the_formats_own_library_reads_the_same_of_a_real_recording(shared_events):
    packets, ours = theirs(shared_events / "faery_dvs.es"), open_events(shared_events / "faery_dvs.es").read()
    for name, column in (("t", ours.t_us), ("x", ours.x), ("y", ours.y), ("on", ours.p)):
        np.testing.assert_array_equal(column, packets[name])


def test_the_formats_own_library_reads_the_same_colours_of_a_real_recording(shared_events):
    packets, last, expected = theirs(shared_events / "faery_color.es"), {}, []
    for t, x, y, *rgb in packets.tolist():
        before, last[x, y] = last.get((x, y)), sum(rgb)
        if before not in (None, sum(rgb)):
            expected.append((t, x, y, int(sum(rgb) > before)))
    assert rows(open_events(shared_events / "faery_color.es")) == expected


def test_the_formats_own_library_writes_what_is_read(tmp_path):
    event_stream = pytest.importorskip("event_stream", reason="needs event_stream")
    rng = np.random.default_rng(5)
    events = np.zeros(3000, event_stream.atis_dtype)
    events["t"] = np.cumsum(rng.choice([0, 1, 62, 63, 64, 5000], 3000))
    events["x"], events["y"] = rng.integers(0, 8, 3000), rng.integers(0, 10, 3000)
    events["exposure"], events["polarity"] = rng.integers(0, 2, 3000), rng.integers(0, 2, 3000)
    path = tmp_path / "a.es"
    with event_stream.Encoder(path, "atis", 8, 10) as encoder:
        encoder.write(events)
    kept = events[~events["exposure"].astype(bool)]
    expected = [(t, x, TOP - y, int(on)) for t, x, y, _, on in kept.tolist()]
    assert rows(open_events(path)) == expected
