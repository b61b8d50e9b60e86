from __future__ import annotations

import os

import numpy as np
import pytest

from tests.recordings import write_events
from velora_edge import open_events
from velora_edge.errors import RecordingError
from velora_edge.events.seek_index import FileBytes


def read_all(file, piece):
    memory, found = bytearray(piece), b""
    while n := file.read_into(memoryview(memory)):
        found += memory[:n]
    return found


@pytest.mark.parametrize("start", [0, 1, 4095, 4096, 20_000])
def test_every_byte_from_the_start_comes_once(tmp_path, start):
    data = np.random.default_rng(2).bytes(20_000)
    (tmp_path / "file").write_bytes(data)
    file = FileBytes(tmp_path / "file", start)
    assert read_all(file, 3000) == data[start:]
    assert file.position == 20_000
    file.close()
    assert file.is_closed


def test_a_file_that_grows_is_followed(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"one")
    file = FileBytes(path)
    assert read_all(file, 10) == b"one"
    with path.open("ab") as more:
        more.write(b"two")
    assert read_all(file, 10) == b"two"
    file.close()


def cut_at(path, size):
    with path.open("r+b") as file:
        file.truncate(size)


@pytest.mark.parametrize("left", [0, 3000, 19_999])
def test_a_file_that_is_cut_while_it_is_read_gives_one_error(tmp_path, left):
    path = tmp_path / "file"
    path.write_bytes(bytes(20_000))
    file = FileBytes(path)
    assert file.read_into(memoryview(bytearray(5000))) == 5000
    cut_at(path, left)
    with pytest.raises(RecordingError) as caught:
        file.read_into(memoryview(bytearray(5000)))
    assert str(caught.value) == (
        f"{path}, byte 5,000: the file was cut while it was read: it had 20,000 bytes and has {left:,}; "
        "let whoever writes it finish, then read it again"
    )
    file.close()


def test_a_recording_that_is_cut_between_two_batches_gives_one_error(tmp_path):
    path = tmp_path / "e.raw"
    write_events(path, count=400_000, duration_us=4_000_000)
    reader = open_events(path)
    batches = iter(reader)
    assert len(next(batches)) > 0
    cut_at(path, 100_000)
    with pytest.raises(RecordingError, match=r"e\.raw, byte [\d,]+: the file was cut while it was read"):
        list(batches)
    assert len(reader.read()) < 400_000  # a new pass takes the file as it is now


def test_an_empty_file_has_no_bytes(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    file = FileBytes(tmp_path / "file")
    assert read_all(file, 10) == b""
    file.close()


def test_a_pipe_is_read_to_its_end(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    both = os.open(path, os.O_RDWR)
    os.write(both, b"header" + b"payload")
    file = FileBytes(path, 6)
    os.close(both)
    assert read_all(file, 4) == b"payload"
    file.close()
