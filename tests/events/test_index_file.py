"""Indices that somebody changed, made up, or took along: the events are those of the recording, whatever."""

from __future__ import annotations

import json
import os
import random
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest

from velora_edge import open_events
from velora_edge.datatypes import EventBatch
from velora_edge.events.formats.raw.raw_index import RawIndex
from velora_edge.events.seek_index import IndexFile
from velora_edge.events.writers import open_writer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Rows = NDArray[np.int64]

MIDDLE_US = 20_000_000
KINDS = ["EVT2", "EVT2.1", "EVT3", "CSV", "DAT"]


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Indices of short files, with places close to each other, and a cache of the test's own."""
    monkeypatch.setattr("velora_edge.events.seek_index.INDEX_FROM_BYTES", 1)
    monkeypatch.setattr("velora_edge.events.formats.raw.raw_index.SPACING_BYTES", 1 << 9)
    for name in ("arrays.PAIRS", "csv_text.LINES"):
        monkeypatch.setattr(f"velora_edge.events.formats.{name}", 16)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write(path: Path, kind: str) -> None:
    """A recording of 40 s whose times need several time words."""
    t = np.arange(4000, dtype=np.int64) * 10_000
    i = np.arange(len(t))
    if kind == "DAT":
        words = np.stack([t, i % 30 | (i % 20) << 14], 1).astype("<u4")
        path.write_bytes(b"% Data file containing CD events.\n% Version 2\n\x0c\x08" + words.tobytes())
        return
    batch = EventBatch(t, (i % 30).astype(np.uint16), (i % 20).astype(np.uint16), (i % 2).astype(np.uint8))
    with open_writer(path, kind, width=64, height=48) as writer:
        writer.write(batch)


def events_from(path: Path, t_us: int = MIDDLE_US) -> list[int]:
    with open_events(path, sensor=(64, 48)) as reader:
        return [int(t) for batch in reader.between(t_us) for t in batch.t_us]


def index_of(path: Path) -> Path:
    return path.with_name(path.name + ".vidx")


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_anywhere_in_an_index_changes_no_event(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "recording"
    write(path, kind)
    expected = events_from(path)
    assert len(expected) == 2000
    whole, rng = index_of(path).read_bytes(), random.Random(1)
    rows_at = whole.index(b"}\n") + 2
    for k in range(200):
        data = bytearray(whole)
        data[rng.randrange(rows_at if k % 2 else 0, len(data))] ^= 1 << rng.randrange(8)
        index_of(path).write_bytes(data)
        assert events_from(path) == expected


def forge(path: Path, change: Callable[[Rows], None]) -> None:
    """Put the changed rows of a whole index beside a `.raw` file, with all that a stranger can know."""
    reader = open_events(path)
    with RawIndex(reader) as index:  # type: ignore[arg-type]
        index._place_after(1 << 61)
        rows = np.zeros((len(index.checkpoints) + 1, 7), np.int64)
        rows[:-1, :5] = index.checkpoints
        rows[-1] = (*index._memory, index._position)
        kept = index._index_file
    change(rows)
    head = {"kind": kept._kind, "rows": len(rows), "is_complete": True, **kept._identity()}
    data = b"VELORA INDEX 1\n" + json.dumps(head).encode() + b"\n" + rows.astype("<i8").tobytes()
    index_of(path).write_bytes(data)


def latest(rows: Rows) -> None:
    rows[1:-1, 1] = np.arange(len(rows) - 2)


def wraps(rows: Rows) -> None:
    rows[1:-1, 3] += 1


def positions(rows: Rows) -> None:
    rows[1:-1, 0] += 1


def far_away(rows: Rows) -> None:
    rows[1:-1, 0] = (1 << 62) + np.arange(len(rows) - 2)
    latest(rows)


def last_position(rows: Rows) -> None:
    rows[-1, -1] = 1 << 62


def memory(rows: Rows) -> None:
    rows[-1, :6] = [9, 1 << 60, 1 << 60, -5, 1 << 60, 1 << 60]


@pytest.mark.parametrize("kind", ["EVT2", "EVT2.1", "EVT3"])
@pytest.mark.parametrize("change", [latest, wraps, positions, far_away, last_position, memory])
def test_a_forged_index_changes_no_event(tmp_path: Path, kind: str, change: Callable[[Rows], None]) -> None:
    path = tmp_path / "recording.raw"
    write(path, kind)
    forge(path, change)
    assert events_from(path) == list(range(MIDDLE_US, 40_000_000, 10_000))


@pytest.mark.parametrize("change", [positions, far_away, last_position])
def test_places_that_the_recording_does_not_have_are_not_gone_to(
    tmp_path: Path, change: Callable[[Rows], None]
) -> None:
    path = tmp_path / "recording.raw"
    write(path, "EVT3")
    expected = events_from(path)
    reader = open_events(path)
    with RawIndex(reader) as index:  # type: ignore[arg-type]
        kept = index._index_file
    rows, is_complete = kept.load()
    assert len(rows) > 2
    change(rows)
    kept.save(rows, is_complete=is_complete)  # signed, as a fault of our own would be
    assert events_from(path) == expected


def test_a_word_that_is_no_time_is_not_gone_to(tmp_path: Path) -> None:
    path = tmp_path / "recording.raw"
    write(path, "EVT3")
    assert events_from(path) == list(range(MIDDLE_US, 40_000_000, 10_000))
    reader = open_events(path)
    with RawIndex(reader) as index:  # type: ignore[arg-type]
        kept = index._index_file
    rows, is_complete = kept.load()
    times_us = (rows[1:-1, 1] + 1).tolist()
    rows[1:-1, 0] += 2  # the word after the time word
    kept.save(rows, is_complete=is_complete)
    for t_us in times_us:
        kept.save(rows, is_complete=is_complete)
        assert events_from(path, t_us) == list(range(-(-t_us // 10_000) * 10_000, 40_000_000, 10_000))


def test_an_index_of_another_machine_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "recording.raw"
    write(path, "EVT3")
    kept = IndexFile(path, "kind", 2)
    kept.save(np.array([[1, 2]]), is_complete=True)
    assert kept.load()[0].tolist() == [[1, 2]]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    assert kept.load()[0].tolist() == []


def test_an_index_of_what_the_file_held_before_an_archive_put_it_back_is_stale(tmp_path: Path) -> None:
    path = tmp_path / "recording.raw"
    write(path, "EVT3")
    kept = IndexFile(path, "kind", 2)
    kept.save(np.array([[1, 2]]), is_complete=True)
    status, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert kept.load()[0].tolist() == []


def test_an_index_is_not_written_through_a_link(tmp_path: Path) -> None:
    path, victim = tmp_path / "recording.raw", tmp_path / "victim"
    write(path, "EVT3")
    victim.write_text("precious")
    index_of(path).with_name(f"{index_of(path).name}.{os.getpid()}.part").symlink_to(victim)
    IndexFile(path, "kind", 2).save(np.array([[1, 2]]), is_complete=True)
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("kind", ["CSV", "NPY", "HDF5"])
def test_the_events_between_two_times_are_all_found_where_times_are_in_disorder(
    tmp_path: Path, kind: str
) -> None:
    t = np.concatenate([np.arange(0, 900_000), np.arange(100_000, 400_000)]) * 10
    i = np.arange(len(t))
    x, y, p = i % 30, i % 20, i % 2
    path = tmp_path / "recording"
    if kind == "NPY":
        with path.open("wb") as file:
            np.save(file, np.stack([t, x, y, p], 1))
    elif kind == "HDF5":
        with h5py.File(path, "w") as file:
            for name, column in zip("txyp", (t, x, y, p), strict=True):
                file[f"events/{name}"] = column
    else:
        with open_writer(path, kind, width=64, height=48) as writer:
            writer.write(EventBatch(t, x.astype(np.uint16), y.astype(np.uint16), p.astype(np.uint8)))
    with open_events(path, sensor=(64, 48)) as reader:
        found = np.concatenate([batch.t_us for batch in reader.between(1_500_000, 1_600_000)])
    assert found.tolist() == t[(t >= 1_500_000) & (t < 1_600_000)].tolist()
