"""Changed, cut and random bytes, for every format read as arrays: one clear error or events, nothing else."""

from __future__ import annotations

import io
import random
import struct
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest

from tests.events import aedat4_writer
from tests.events.ecf_encoder import RUNS, encode_ecf
from velora_edge import open_events
from velora_edge.errors import VeloraError
from velora_edge.events.formats.hdf5.ecf import FILTER_ID

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

T, X, Y, P = (
    list(range(0, 400, 4)),
    [i % 30 for i in range(100)],
    [i % 20 for i in range(100)],
    [i % 2 for i in range(100)],
)


def plain_hdf5() -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, column in zip("txyp", (T, X, Y, P), strict=True):
            file.create_dataset(f"events/{name}", data=np.array(column), chunks=(32,), compression="gzip")
        file["t_offset"] = 5
    return buffer.getvalue()


def prophesee_hdf5() -> bytes:
    event = np.dtype(
        {"names": list("xypt"), "formats": ["<u2", "<u2", "<i2", "<i8"], "offsets": [0, 2, 4, 8]}
    )
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["geometry"] = np.bytes_("640x480")
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((128,))
        properties.set_filter(FILTER_ID, h5py.h5z.FLAG_OPTIONAL)
        space = h5py.h5s.create_simple((100,), (h5py.h5s.UNLIMITED,))
        kind = h5py.h5t.py_create(event, logical=True)
        dataset = h5py.h5d.create(file.create_group("CD").id, b"events", kind, space, properties)
        dataset.write_direct_chunk((0,), encode_ecf(T, X, Y, P, RUNS))
    return buffer.getvalue()


def dat() -> bytes:
    words = b"".join(
        struct.pack("<II", t, x | y << 14 | p << 28) for t, x, y, p in zip(T, X, Y, P, strict=True)
    )
    return b"% Data file containing CD events.\n% Version 2\n\x0c\x08" + words


def aedat2() -> bytes:
    words = b"".join(
        struct.pack(">II", (239 - x) << 12 | (179 - y) << 22 | p << 11, t)
        for t, x, y, p in zip(T, X, Y, P, strict=True)
    )
    other = struct.pack(">IIIIII", 1 << 31 | 5 << 12, 17, 0x402, 18, 0x8000_0C00, 19)
    header = b"#!AER-DAT2.0\r\n# AEChip: eu.seebetter.ini.chips.davis.DAVIS240C\r\n#End Of ASCII Header\r\n"
    return header + words[:40] + other + words[40:]


def nmnist() -> bytes:
    return b"".join(bytes([x, y, p << 7, t >> 8, t & 255]) for t, x, y, p in zip(T, X, Y, P, strict=True))


def aedat4() -> bytes:
    packets = [(0, aedat4_writer.events(list(zip(T, X, Y, P, strict=True))))]
    packets += [(1, aedat4_writer.triggers([(5, 1)])), (2, aedat4_writer.frame({6: 2, 7: 2}, bytes(4)))]
    streams = [
        aedat4_writer.stream(i, kind, size=(30, 20)) for i, kind in enumerate(("EVTS", "TRIG", "FRME"))
    ]
    return aedat4_writer.recording(streams, packets)


def npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([T, X, Y, P]).T)
    return buffer.getvalue()


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, t=T, x=X, y=Y, p=P)
    return buffer.getvalue()


def mat() -> bytes:
    scipy_io = pytest.importorskip("scipy.io", reason="needs SciPy (the extra mat)")
    buffer = io.BytesIO()
    scipy_io.savemat(buffer, {"TD": {"ts": T, "x": X, "y": Y, "p": P}}, do_compression=True)
    return buffer.getvalue()


def csv() -> bytes:
    return b"t,x,y,p\n" + b"".join(b"%d,%d,%d,%d\n" % row for row in zip(T, X, Y, P, strict=True))


FORMATS = [plain_hdf5, prophesee_hdf5, dat, aedat2, nmnist, aedat4, npy, npz, mat, csv]


def read_everything(path: Path) -> None:
    """Opens and reads all that a reader gives; our own errors are fine."""
    try:
        with open_events(path) as reader:
            for batch in reader:
                assert len(batch) == len(batch.x) == len(batch.y) == len(batch.p) > 0
                assert int(batch.x.max()) < reader.width
                assert int(batch.y.max()) < reader.height
            reader.triggers()
            for _ in getattr(reader, "frames", list)():
                pass
    except VeloraError as error:
        message = str(error)
    else:
        message = ""
    assert "\n" not in message


@pytest.mark.parametrize("make", FORMATS)
def test_the_file_itself_is_read(make: Callable[[], bytes], tmp_path: Path) -> None:
    path = tmp_path / "recording.bin"
    path.write_bytes(make())
    assert open_events(path).read().x.tolist() == X


@pytest.mark.parametrize("make", FORMATS)
def test_changed_bytes_give_one_error_or_events(make: Callable[[], bytes], tmp_path: Path) -> None:
    whole, rng, path = make(), random.Random(7), tmp_path / "changed.bin"
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 1, 2, 8))):
            data[rng.randrange(len(data))] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
        path.write_bytes(bytes(data))
        read_everything(path)


@pytest.mark.parametrize("make", FORMATS)
def test_cut_files_give_one_error_or_events(make: Callable[[], bytes], tmp_path: Path) -> None:
    whole, rng, path = make(), random.Random(11), tmp_path / "cut.bin"
    for n in sorted(rng.sample(range(1, len(whole)), 40)):
        path.write_bytes(whole[:n])
        read_everything(path)


@pytest.mark.parametrize("make", FORMATS)
def test_a_valid_start_before_random_bytes_gives_one_error_or_events(
    make: Callable[[], bytes], tmp_path: Path
) -> None:
    whole, rng, path = make(), random.Random(13), tmp_path / "random.bin"
    for _ in range(40):
        path.write_bytes(whole[: rng.randrange(len(whole))] + rng.randbytes(rng.randrange(2000)))
        read_everything(path)


def test_random_bytes_are_no_recording_or_give_one_error(tmp_path: Path) -> None:
    rng, path = random.Random(17), tmp_path / "random.bin"
    for n in (1, 2, 5, 8, 100, 5000):
        for _ in range(20):
            path.write_bytes(rng.randbytes(n))
            read_everything(path)
