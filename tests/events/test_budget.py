"""Small files that ask for gigabytes or minutes: refused or read in little memory, in one line."""

from __future__ import annotations

import io
import struct
import time
import tracemalloc
import zipfile
import zlib
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest

from tests.events import aedat4_writer
from tests.events.test_hostile_files import P, T, X, Y
from velora_edge import open_events
from velora_edge.errors import VeloraError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MOST_BYTES = 200 << 20
MOST_S = 30.0
"""Of the processor, with every allocation traced."""


def read_all(path: Path, sensor: tuple[int, int] | None = None) -> tuple[int, str]:
    """The events of a file, and the error or the warnings, after reading it within memory and time."""
    tracemalloc.start()
    begun = time.process_time()
    n, said = 0, ""
    try:
        with open_events(path, sensor=sensor) as reader:
            n = sum(len(batch) for batch in reader) + len(reader.triggers())
            said = "; ".join(reader.warnings)
    except VeloraError as error:
        said = str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert time.process_time() - begun < MOST_S
    assert peak < MOST_BYTES
    assert "\n" not in said
    return n, said


def columns(file: h5py.File, name: str = "events") -> None:
    for role, column in zip("txyp", (T, X, Y, P), strict=True):
        file.create_dataset(f"{name}/{role}", data=np.array(column))


def test_offsets_of_recordings_that_are_announced_and_not_there_are_not_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        columns(file)
        file.create_dataset("offsets", (1 << 26,), "<i8", chunks=(1 << 16,), compression="gzip")
    assert (tmp_path / "a.h5").stat().st_size < 100_000
    n, said = read_all(tmp_path / "a.h5")
    assert n == 100
    assert "recordings" not in said


@pytest.mark.parametrize("role", ["t", "x"])
def test_a_chunk_that_takes_a_gigabyte_is_refused(tmp_path: Path, role: str) -> None:
    rows = 1 << 27
    with h5py.File(tmp_path / "a.h5", "w") as file:
        columns(file)
        del file[f"events/{role}"]
        column = file.create_dataset(
            f"events/{role}", (rows,), "<i8", chunks=(rows,), compression="gzip", maxshape=(None,)
        )
        column.id.write_direct_chunk((0,), zlib.compress(bytes(1 << 20)))
    n, said = read_all(tmp_path / "a.h5")
    assert n == 0
    assert "would take 1,073,741,824 bytes" in said


def test_records_with_padding_are_refused(tmp_path: Path) -> None:
    head = io.BytesIO()
    kind = np.dtype([("t", "<i8"), ("x", "<u2"), ("y", "<u2"), ("p", "u1"), ("pad", "V100000000")])
    about = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": (1000,)}
    np.lib.format.write_array_header_1_0(head, about)
    with (
        zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("events.npy", "w", force_zip64=True) as member,
    ):
        member.write(head.getvalue())
        for _ in range(400):
            member.write(bytes(1 << 20))
    n, said = read_all(tmp_path / "a.npz")
    assert n == 0
    assert "records of 100,000,013 bytes" in said


def test_an_archive_of_thousands_of_arrays_is_refused(tmp_path: Path) -> None:
    array = io.BytesIO()
    np.save(array, np.zeros(1))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for k in range(4000):
            archive.writestr(f"a{k}.npy", array.getvalue())
    begun = time.process_time()
    n, said = read_all(tmp_path / "a.npz")
    assert n == 0
    assert "an archive of 4,000 files" in said
    assert time.process_time() - begun < 3.0


def trigger_packet(count: int) -> bytes:
    """A packet whose vector of triggers names one table again and again."""
    body = struct.pack("<I4sHHHxxiI", 16, b"TRIG", 6, 8, 4, 8, 4)
    body += struct.pack("<I", count) + bytes(4 * count)
    return struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_packets_of_triggers_that_unpack_to_millions_are_refused(tmp_path: Path, compression: str) -> None:
    if compression == "lz4":
        from lz4.frame import compress

        code = 1
    else:
        zstd = pytest.importorskip("backports.zstd", reason="Python 3.14 has its own")
        compress, code = zstd.compress, 3
    packets = [(0, aedat4_writer.events(list(zip(T, X, Y, P, strict=True)))), (1, trigger_packet(30_000_000))]
    streams = [aedat4_writer.stream(i, kind, size=(30, 20)) for i, kind in enumerate(("EVTS", "TRIG"))]
    data = aedat4_writer.recording(streams, packets, compression=code, compress=compress)
    (tmp_path / "a.aedat4").write_bytes(data)
    n, said = read_all(tmp_path / "a.aedat4")
    assert n == 100
    assert "packets of stream 1 are damaged" in said


def record(code: int, body: bytes) -> bytes:
    return bytes([code]) + struct.pack("<Q", len(body)) + body


def text(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


def mcap(chunks: int, inflated: int, compression: bytes, compress: Callable[[bytes], bytes]) -> bytes:
    """A bag whose chunks hold nothing, and much of it."""
    packed = compress(bytes(inflated))
    head = record(1, text(b"ros2") + text(b"x"))
    schema = struct.pack("<H", 1) + text(b"event_camera_msgs/msg/EventPacket") + text(b"ros2msg") + text(b"")
    channel = struct.pack("<HH", 1, 1) + text(b"/ev") + text(b"cdr") + struct.pack("<I", 0)
    chunk = (
        struct.pack("<QQQI", 0, 1, inflated, 0) + text(compression) + struct.pack("<Q", len(packed)) + packed
    )
    footer = record(2, struct.pack("<QQI", 0, 0, 0))
    body = head + record(3, schema) + record(4, channel) + record(6, chunk) * chunks
    return b"\x89MCAP0\r\n" + body + record(15, struct.pack("<I", 0)) + footer + b"\x89MCAP0\r\n"


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
@pytest.mark.parametrize("chunks", [1, 8])
def test_chunks_of_a_bag_that_unpack_to_hundreds_of_megabytes_are_refused(
    tmp_path: Path, compression: str, chunks: int
) -> None:
    pytest.importorskip("rosbags", reason="needs rosbags (the extra ros)")
    if compression == "lz4":
        from lz4.frame import compress
    else:
        zstd = pytest.importorskip("backports.zstd", reason="Python 3.14 has its own")
        compress = zstd.compress
    (tmp_path / "a.mcap").write_bytes(mcap(chunks, (300 << 20) // chunks, compression.encode(), compress))
    n, said = read_all(tmp_path / "a.mcap", (640, 480))
    assert n == 0
    assert "out of proportion" in said


def test_a_structure_of_matlabs_that_unpacks_to_hundreds_of_megabytes_is_refused(tmp_path: Path) -> None:
    scipy_io = pytest.importorskip("scipy.io", reason="needs SciPy (the extra mat)")
    many = np.zeros(40 << 20)
    scipy_io.savemat(tmp_path / "a.mat", {"TD": {"ts": many, "x": T}}, do_compression=True)
    del many
    n, said = read_all(tmp_path / "a.mat")
    assert n == 0
    assert "out of proportion" in said


def test_a_mat_file_of_version_7_3_that_announces_gigabytes_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as file:
        columns(file)
        file.create_dataset("z", (1 << 27,), "<f8", chunks=(1 << 16,), compression="gzip")
    with (tmp_path / "a.mat").open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file".ljust(512))
    n, said = read_all(tmp_path / "a.mat")
    assert n == 0
    assert "out of proportion" in said


def test_lines_without_end_are_not_gathered(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with path.open("wb") as file:
        file.write(b"t,x,y,p\n1,2,3,1\n")
        for _ in range(300):
            file.write(b"9" * (1 << 20))
    n, said = read_all(path)
    assert n == 1
    assert "lines are no events" in said


def test_a_picture_that_announces_gigabytes_is_not_decoded(tmp_path: Path) -> None:
    from velora_edge.errors import RecordingError
    from velora_edge.preprocessing.pictures import ImageFolder

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    for side in (20_000, 60_000):
        png = b"\x89PNG\r\n\x1a\n" + part(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
        png += part(b"IDAT", zlib.compress(bytes(1000))) + part(b"IEND", b"")
        (tmp_path / "a.png").write_bytes(png)
        (tmp_path / "timestamps.txt").write_text("1\n")
        with pytest.raises(RecordingError, match=f"{side}x{side} pixels"):
            ImageFolder(str(tmp_path))


@pytest.mark.parametrize(
    "head",
    [
        b"\xff\xd8\xff\xe0\x00\x10JFIF\0"
        + bytes(9)
        + b"\xff\xc0\x00\x11\x08\xea\x60\xea\x60\x03"
        + bytes(40),
        b"BM" + bytes(16) + struct.pack("<ii", 60_000, -60_000) + bytes(40),
        b"RIFF" + bytes(4) + b"WEBPVP8X" + bytes(8) + (59_999).to_bytes(3, "little") * 2 + bytes(40),
        b"II*\0\x08\0\0\0\x02\0" + struct.pack("<HHIIHHII", 256, 4, 1, 60_000, 257, 4, 1, 60_000) + bytes(40),
        b"MM\0*\0\0\0\x08\0\x02" + struct.pack(">HHIIHHII", 256, 4, 1, 60_000, 257, 4, 1, 60_000) + bytes(40),
    ],
)
def test_the_size_of_a_picture_is_read_before_it_is_decoded(head: bytes) -> None:
    from velora_edge.vision import decode_picture

    with pytest.raises(ValueError, match="60000x60000 pixels"):
        decode_picture(head)


def test_a_calibration_whose_aliases_stand_for_millions_of_numbers_is_refused(tmp_path: Path) -> None:
    from velora_edge.errors import InputError
    from velora_edge.events.geometry.calibration_files import read_calibration

    lines, before = ["a: &a [1,1,1,1,1,1,1,1,1,1]"], "a"
    for k in range(1, 8):
        lines.append(f"b{k}: &b{k} [{','.join(['*' + before] * 10)}]")
        before = f"b{k}"
    lines += [f"homography: *{before}", "resolution: [10, 10]"]
    (tmp_path / "a.yaml").write_text("\n".join(lines))
    tracemalloc.start()
    with pytest.raises(InputError, match="aliases"):
        read_calibration(str(tmp_path / "a.yaml"), (10, 10))
    assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    tracemalloc.stop()


def test_a_bag_of_ros_1_that_unpacks_to_hundreds_of_megabytes_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("rosbags", reason="needs rosbags (the extra ros)")
    import bz2

    from tests.fuzz.samples import bag

    whole = bag("bag")
    packed = bz2.compress(bytes(300 << 20))
    start = whole.index(b"#ROSBAG V2.0\n") + 13
    bag_header = int.from_bytes(whole[start : start + 4], "little")
    data_at = start + 4 + bag_header
    data_len = int.from_bytes(whole[data_at : data_at + 4], "little")
    chunk_at = data_at + 4 + data_len
    header = b"".join(
        struct.pack("<I", len(field)) + field
        for field in (b"op=\x05", b"compression=bz2", b"size=" + struct.pack("<I", 300 << 20))
    )
    old_header = int.from_bytes(whole[chunk_at : chunk_at + 4], "little")
    old_data = int.from_bytes(whole[chunk_at + 4 + old_header :][:4], "little")
    rest = whole[chunk_at + 8 + old_header + old_data :]
    chunk = struct.pack("<I", len(header)) + header + struct.pack("<I", len(packed)) + packed
    moved = len(chunk) - (8 + old_header + old_data)
    index = int.from_bytes(whole[whole.index(b"index_pos=") + 10 :][:8], "little") + moved
    data = bytearray(whole[:chunk_at] + chunk + rest)
    place = data.index(b"index_pos=") + 10
    data[place : place + 8] = index.to_bytes(8, "little")
    (tmp_path / "a.bag").write_bytes(data)
    n, said = read_all(tmp_path / "a.bag", (640, 480))
    assert n == 0
    assert "out of proportion" in said
