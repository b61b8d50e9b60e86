from __future__ import annotations

import struct

import lz4.frame
import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.events import aedat4_writer as writer
from tests.events.digests import digests
from velora_edge import open_events
from velora_edge.errors import RecordingError

FIRST = [(1_600_000_000_000_010, 0, 1, 0), (1_600_000_000_000_020, 3, 0, 1)]
SECOND = [(1_600_000_000_000_020, 2, 1, 1)]
STREAMS = [
    writer.stream(0, "EVTS"),
    writer.stream(1, "FRME"),
    writer.stream(2, "IMUS"),
    writer.stream(3, "TRIG"),
]
PACKETS = [
    (0, writer.events(FIRST)),
    (2, b"anything"),
    (3, writer.triggers([(15, 1), (16, 0), (25, 2), (30, 3), (31, 4), (35, 5), (40, 6), (41, 9)])),
    (0, writer.events(SECOND)),
]


@pytest.fixture
def write(tmp_path):
    def write(data: bytes):
        path = tmp_path / "recording.aedat4"
        path.write_bytes(data)
        return path

    return write


def rows(reader):
    b = reader.read()
    return list(zip(b.t_us.tolist(), b.x.tolist(), b.y.tolist(), b.p.tolist(), strict=True))


@pytest.mark.parametrize(
    ("compression", "compress"),
    [
        (0, bytes),
        (1, lz4.frame.compress),
        (2, lambda data: lz4.frame.compress(data, compression_level=9)),
        (3, zstd.compress),
        (4, lambda data: zstd.compress(data, 19)),
    ],
)
def test_events_of_every_compression(write, compression, compress):
    data = writer.recording(STREAMS, PACKETS, compression=compression, compress=compress)
    with open_events(write(data)) as reader:
        assert rows(reader) == FIRST + SECOND
        assert (reader.format, reader.width, reader.height, reader.warnings) == ("AEDAT4", 4, 2, [])


def test_only_edges_are_triggers(write):
    edges = open_events(write(writer.recording(STREAMS, PACKETS))).triggers()
    assert edges.t_us.tolist() == [15, 25, 30, 31, 35]
    assert edges.id.tolist() == [0, 0, 0, 1, 1]
    assert edges.p.tolist() == [1, 0, 1, 1, 0]


def test_frames_are_rgb_at_mid_exposure(write):
    size = {6: 2, 7: 1}
    packets = [
        (1, writer.frame({0: 100, 5: 16, 11: 40, **size}, bytes([1, 2, 3, 4, 5, 6]))),
        (1, writer.frame({0: 999, 3: 200, 4: 260, **size}, bytes([7, 8]))),
        (1, writer.frame({0: 300, 5: 24, **size}, bytes([1, 2, 3, 255, 4, 5, 6, 255]))),
        (1, writer.frame({0: 400, 5: 2, **size}, struct.pack("<HH", 0x1234, 0xFF00))),
    ]
    reader = open_events(write(writer.recording(STREAMS, packets)))
    found = [(frame.image.tolist(), frame.t_us, frame.seq) for frame in reader.frames()]
    assert reader.has_frames
    assert found == [
        ([[[3, 2, 1], [6, 5, 4]]], 120, 0),
        ([[[7, 7, 7], [8, 8, 8]]], 230, 1),
        ([[[3, 2, 1], [6, 5, 4]]], 300, 2),
        ([[[0x12, 0x12, 0x12], [0xFF, 0xFF, 0xFF]]], 400, 3),
    ]


@pytest.mark.parametrize(
    "fields",
    [{6: 2, 7: 2}, {6: -2, 7: -1}, {6: 2, 7: 1, 5: 6}, {6: 0, 7: 0}],
    ids=["too few pixels", "negative", "doubles", "empty"],
)
def test_a_damaged_frame_is_left_out_and_leaves_a_gap(write, fields):
    good = writer.frame({0: 100, 6: 2, 7: 1}, bytes(2))
    reader = open_events(write(writer.recording(STREAMS, [(1, writer.frame(fields, bytes(2))), (1, good)])))
    assert [frame.seq for frame in reader.frames()] == [1]
    assert reader.warnings[0].startswith("frame 0 was left out (expected")


def test_a_recording_without_frames_has_none(write):
    reader = open_events(write(writer.recording(STREAMS[:1], PACKETS[:1])))
    assert not reader.has_frames
    assert list(reader.frames()) == []
    assert len(reader.triggers()) == 0


def test_of_several_cameras_the_first_is_taken_unless_told_otherwise(write):
    streams = [writer.stream(0, "EVTS", source="A"), writer.stream(5, "EVTS", source="B", size=(8, 8))]
    streams += [writer.stream(6, "TRIG", source="B")]
    packets = [(0, writer.events(FIRST)), (5, writer.events(SECOND)), (6, writer.triggers([(1, 1)]))]
    path = write(writer.recording(streams, packets))
    first, second = open_events(path), open_events(path, part="B")
    assert (rows(first), len(first.triggers())) == (FIRST, 0)
    assert first.warnings == ["the file has 2 streams of events, 0 (A), 5 (B); the first is taken"]
    assert (rows(second), len(second.triggers()), second.width) == (SECOND, 1, 8)
    assert rows(open_events(f"{path}#5")) == SECOND
    with pytest.raises(
        RecordingError, match=r"no stream of events 'C' in the file; choose from 0 \(A\), 5 \(B\)"
    ):
        open_events(path, part="C")


def test_without_a_size_the_sensor_is_what_events_reach(write):
    reader = open_events(write(writer.recording([writer.stream(0, "EVTS", size=None)], PACKETS[:1])))
    assert (reader.width, reader.height) == (4, 2)


def test_a_negative_coordinate_is_outside_the_sensor(write):
    reader = open_events(
        write(writer.recording(STREAMS, [(0, writer.events([(1, -1, 0, 1), (2, 1, 1, 1)]))]))
    )
    assert rows(reader) == [(2, 1, 1, 1)]
    assert reader.warnings == ["1 events lie outside the sensor of 4x2 and were dropped"]


def test_the_table_of_contents_is_no_packet(write):
    data = writer.recording(STREAMS, PACKETS, table_at=0x7FFFFFFF)
    place = data.index(struct.pack("<q", 0x7FFFFFFF))
    whole = bytearray(data + b"table of contents")
    struct.pack_into("<q", whole, place, len(data))
    reader = open_events(write(bytes(whole)))
    assert rows(reader) == FIRST + SECOND
    assert reader.warnings == []


def test_a_damaged_packet_loses_its_events_only(write):
    packets = [
        (0, lz4.frame.compress(writer.events(FIRST))),
        (0, b"garbage"),
        (0, lz4.frame.compress(b"short")),
    ]
    packets += [(0, lz4.frame.compress(writer.events(SECOND)))]
    reader = open_events(write(writer.recording(STREAMS, packets, compression=1)))
    assert rows(reader) == FIRST + SECOND
    assert len(reader.warnings) == 1
    assert reader.warnings[0].startswith(
        "2 packets of stream 0 are damaged and were left out (first at byte "
    )


def test_a_bomb_is_not_unpacked(write, monkeypatch):
    from velora_edge.events.formats import aedat4_container

    monkeypatch.setattr(aedat4_container, "MAX_PACKET_BYTES", 1000)
    bomb = writer.events([(1, 1, 1, 1)] * 1000)
    for compression, compress in ((1, lz4.frame.compress), (3, zstd.compress)):
        reader = open_events(
            write(writer.recording(STREAMS, [(0, bomb)], compression=compression, compress=compress))
        )
        assert len(reader.read()) == 0
        assert "unpacks to more than 1,000 bytes" in reader.warnings[0]


def test_a_file_cut_off_anywhere_gives_the_packets_before_or_one_error(write):
    data = writer.recording(STREAMS, PACKETS)
    seen = set()
    for n in range(1, len(data)):
        try:
            reader = open_events(write(data[:n]))
        except RecordingError:
            continue
        found = rows(reader)
        assert found in ([], FIRST)
        seen.add(len(found))
        assert n in _packet_ends() or "cut off" in reader.warnings[0]
    assert seen == {0, 2}


def _packet_ends() -> list[int]:
    return [len(writer.recording(STREAMS, PACKETS[:k])) for k in range(len(PACKETS))]


def test_a_packet_of_a_stream_that_is_not_listed_ends_the_reading(write):
    reader = open_events(write(writer.recording(STREAMS, [PACKETS[0], (77, b"x"), PACKETS[3]])))
    assert rows(reader) == FIRST
    assert "the file is damaged from the packet at byte" in reader.warnings[0]


@given(st.data())
@settings(deadline=None, max_examples=200)
def test_changed_bytes_never_crash(tmp_path_factory, data):
    whole = bytearray(writer.recording(STREAMS, [*PACKETS, (1, writer.frame({0: 1, 6: 2, 7: 1}, bytes(2)))]))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(14, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("changed") / "a.aedat4"
    path.write_bytes(bytes(whole))
    try:
        reader = open_events(path)
        reader.read(), reader.triggers(), list(reader.frames())
    except RecordingError:
        return


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (writer.MAGIC, "header is cut off"),
        (writer.MAGIC + bytes(4), "header"),
        (writer.recording([], []), "list of streams is empty"),
        (writer.recording([writer.stream(0, "IMUS")], []), "expected a stream of events, got IMUS"),
        (writer.recording(STREAMS, [], compression=9), "got 9"),
        (writer.recording(["<!DOCTYPE x>"], []), "document type"),
        (writer.recording(["</node>"], []), "is no XML"),
    ],
)
def test_unusable_files_are_refused_in_one_line(write, data, message):
    with pytest.raises(RecordingError, match=message) as caught:
        open_events(write(data))
    assert "\n" not in str(caught.value)


def test_the_real_sample(shared_events):
    with open_events(shared_events / "tonic_sample.aedat4") as reader:
        batch = reader.read()
        assert (reader.format, reader.width, reader.height, reader.warnings) == ("AEDAT4", 320, 240, [])
        assert (len(batch), int(batch.p.sum())) == (111954, 55023)
        assert (int(batch.t_us[0]), int(batch.t_us[-1])) == (1605537493718345, 1605537494308262)
    assert digests(batch) == {
        "t": "4501ef229eb5b956",
        "x": "8e7f13a5c4619ad3",
        "y": "04379e968d5fa618",
        "p": "70e5618909d24333",
    }


def test_the_real_sample_cut_off_gives_the_events_before(shared_events, write):
    data = (shared_events / "tonic_sample.aedat4").read_bytes()
    reader = open_events(write(data[:500_000]))
    n = len(reader.read())
    assert 40_000 < n < 80_000
    assert reader.warnings[0].startswith("the file is cut off: it has 500,000 bytes")
