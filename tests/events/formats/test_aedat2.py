from __future__ import annotations

import struct

import numpy as np
import pytest

from velora_edge import open_events
from velora_edge.errors import RecordingError
from velora_edge.events.formats import arrays

VERSION, END = b"#!AER-DAT2.0\r\n", b"#End Of ASCII Header\r\n"
DVS_CHIP = b"# AEChip: ch.unizh.ini.jaer.chip.retina.DVS128\r\n"
DAVIS_CHIP = b"# AEChip: eu.seebetter.ini.chips.davis.DAVIS240C\r\n"
DVS, DAVIS = VERSION + DVS_CHIP + END, VERSION + DAVIS_CHIP + END
FRAME, IMU, EXTERNAL = 1 << 31, 0x8000_0C00, 0x400


def dvs128(x, y, p) -> int:
    return (127 - x) << 1 | (127 - y) << 8 | (1 - p)


def davis(x, y, p, sensor=(240, 180)) -> int:
    return (sensor[0] - 1 - x) << 12 | (sensor[1] - 1 - y) << 22 | p << 11


def pairs(*words) -> bytes:
    return b"".join(struct.pack(">II", *word) for word in words)


@pytest.fixture
def write(tmp_path):
    def write(data: bytes):
        path = tmp_path / "recording.aedat"
        path.write_bytes(data)
        return path

    return write


def rows(reader):
    b = reader.read()
    return list(zip(b.t_us.tolist(), b.x.tolist(), b.y.tolist(), b.p.tolist(), strict=True))


def edges(reader):
    found = reader.triggers()
    return list(zip(found.t_us.tolist(), found.id.tolist(), found.p.tolist(), strict=True))


def test_a_dvs128_counts_from_the_lower_right_corner_and_its_polarity_bit_is_off(write):
    reader = open_events(write(DVS + pairs((0x0000, 5), (0x7FFF, 6), (0x00FE, 7))))
    assert rows(reader) == [(5, 127, 127, 1), (6, 0, 0, 0), (7, 0, 127, 1)]
    assert (reader.format, reader.width, reader.height, reader.warnings) == ("AEDAT 2.0", 128, 128, [])


def test_a_davis_counts_from_the_lower_right_corner_and_its_polarity_bit_is_on(write):
    reader = open_events(write(DAVIS + pairs((0, 5), (239 << 12 | 179 << 22 | 1 << 11, 6))))
    assert rows(reader) == [(5, 239, 179, 0), (6, 0, 0, 1)]
    assert (reader.width, reader.height, reader.warnings) == (240, 180, [])


def test_samples_of_frames_and_of_the_inertial_sensor_are_no_events(write):
    words = [(FRAME | davis(1, 2, 0) | 77, 1), (davis(3, 4, 1), 2), (FRAME | 1 << 10, 3), (IMU | 5 << 12, 4)]
    reader = open_events(write(DAVIS + pairs(*words)))
    assert rows(reader) == [(2, 3, 4, 1)]
    assert reader.warnings == [
        "the file holds samples of frames or of an inertial sensor too, which are not read"
    ]


def test_external_inputs_are_trigger_edges(write):
    words = [(EXTERNAL, 1), (davis(3, 4, 1), 2), (EXTERNAL | 2, 3), (EXTERNAL | 3, 4), (IMU, 5)]
    reader = open_events(write(DAVIS + pairs(*words)))
    assert edges(reader) == [(1, 0, 1), (3, 0, 0), (4, 0, 1)]
    assert rows(reader) == [(2, 3, 4, 1)]
    assert edges(open_events(write(DVS + pairs((0x8000, 7), (dvs128(1, 1, 1), 8))))) == [(7, 0, 1)]


@pytest.mark.parametrize("camera", [b"DAVIS346blue", b"Davis346mini"])
def test_the_camera_gives_the_sensor(write, camera):
    header = VERSION + b"# AEChip: a.b." + camera + b"\r\n" + END
    reader = open_events(write(header + pairs((davis(345, 0, 1, (346, 260)), 1))))
    assert (reader.width, reader.height, rows(reader)) == (346, 260, [(1, 345, 0, 1)])


def test_a_camera_of_other_addresses_is_refused(write):
    header = VERSION + b"# AEChip: org.ine.telluride.jaer.CochleaAMS1c\r\n" + END
    with pytest.raises(RecordingError, match="the camera is CochleaAMS1c, whose addresses are not known"):
        open_events(write(header + pairs((1, 1))))


def test_a_header_without_a_camera_leaves_it_to_the_addresses(write):
    small = open_events(write(VERSION + END + pairs((dvs128(4, 5, 1), 1), (dvs128(6, 7, 0), 2))))
    assert (small.width, small.height, rows(small)) == (128, 128, [(1, 4, 5, 1), (2, 6, 7, 0)])
    word = davis(300, 5, 1, (346, 260))
    large = open_events(write(VERSION + END + pairs((FRAME | 1023 << 12, 0), (word, 1), (word, 2))))
    assert (large.width, large.height) == (346, 260)
    assert large.warnings == [
        "the header does not name the camera; by its addresses it is a DAVIS of 346x260"
    ]
    assert rows(open_events(write(VERSION + END + pairs((word, 1))), sensor=(346, 260))) == [(1, 300, 5, 1)]


def test_addresses_beyond_the_sensor_are_dropped_and_told(write):
    reader = open_events(write(DAVIS + pairs((240 << 12, 1), (180 << 22, 2), (davis(0, 0, 1), 3))))
    assert rows(reader) == [(3, 0, 0, 1)]
    assert reader.warnings == ["2 events lie outside the sensor of 240x180 and were dropped"]


def test_a_header_without_an_end_ends_before_what_is_no_text(write):
    hash_word = ord("#") << 24 | 1 << 11
    older = VERSION + b"# created Thu Dec 03\r\n" + DAVIS_CHIP
    reader = open_events(write(older + pairs((hash_word, 10), (hash_word, 10))))
    assert reader.read().t_us.tolist() == [10, 10]


def test_text_after_the_headers_end_is_events(write):
    reader = open_events(write(DVS + b"# no "[:4] + struct.pack(">I", 9) + pairs((dvs128(1, 2, 1), 10))))
    assert reader.read().t_us.tolist() == [9, 10]


def test_times_wrap_across_batches(write, monkeypatch):
    monkeypatch.setattr(arrays, "PAIRS", 2)
    times = [4_000_000_000, (1 << 32) - 1, 3, 2_500_000_000, 4_000_000_000, 1]
    reader = open_events(write(DVS + pairs(*((0, t) for t in times))))
    wrap = 1 << 32
    assert [batch.t_us.tolist() for batch in reader] == [
        [4_000_000_000, wrap - 1],
        [wrap + 3, wrap + 2_500_000_000],
        [wrap + 4_000_000_000, 2 * wrap + 1],
    ]


@pytest.mark.parametrize("lost", range(1, 8))
def test_a_file_cut_off_inside_an_event_gives_the_events_before(write, lost):
    reader = open_events(write((DVS + pairs((0, 1), (0, 2)))[:-lost]))
    assert reader.read().t_us.tolist() == [1]
    assert reader.warnings == [f"the file is cut off: the last {8 - lost} bytes are half an event"]


@pytest.mark.parametrize("data", [DVS, DVS + bytes(7), VERSION])
def test_a_file_without_an_event_is_refused(write, data):
    with pytest.raises(RecordingError, match="the AEDAT file ends with its header; copy or record it again"):
        open_events(write(data))


@pytest.mark.parametrize("version", [b"1.0", b"3.1"])
def test_other_versions_are_refused_with_advice(write, version):
    with pytest.raises(RecordingError, match=r"AEDAT .* is not read; AEDAT 2.0 and AEDAT 4 are; convert it"):
        open_events(write(b"#!AER-DAT" + version + b"\r\n" + pairs((0, 1))))


def test_real_recordings_agree_with_their_words_taken_one_by_one(shared_objects):
    """The formula is that of jAER's DVS128 class, looked at in pictures: upright, ON where light grows."""
    for path in sorted(shared_objects.glob("*.aedat")):
        data = path.read_bytes()
        words = np.frombuffer(data[data.index(END) + len(END) :], ">u4").reshape(-1, 2).astype(np.int64)
        reader = open_events(path)
        batch = reader.read()
        assert (reader.width, reader.height, reader.warnings) == (128, 128, [])
        assert batch.t_us.tolist() == words[:, 1].tolist()
        assert batch.x.tolist() == (127 - words[:, 0] // 2 % 128).tolist()
        assert batch.y.tolist() == (127 - words[:, 0] // 256 % 128).tolist()
        assert batch.p.tolist() == (1 - words[:, 0] % 2).tolist()
