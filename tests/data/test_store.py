from __future__ import annotations

import multiprocessing
import pickle
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import h5py
import hdf5plugin
import numpy as np
import pytest

from velora_edge.bundle import EventInput
from velora_edge.data.clips.clips import ClipSpec, Item, Pairs
from velora_edge.data.clips.store import ClipStore, ClipStoreWriter
from velora_edge.errors import DatasetError

if TYPE_CHECKING:
    from pathlib import Path

SPEC = ClipSpec(length=2, image_size=(4, 6))
LABELS = ("a", "b")


def images(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 4, 6, 3), np.uint8)


def write(path: Path, spec: ClipSpec = SPEC) -> list[Pairs]:
    recordings = [Pairs(images(3, 0), images(3, 1)), Pairs(images(2, 2), images(2, 3))]
    with ClipStoreWriter(path, LABELS, ("rgb", "event"), spec, "somewhere") as writer:
        writer.add(Item("first", 1, "train"), recordings[0])
        writer.add(Item("second", 0), recordings[1])
        writer.finish()
    return recordings


def test_what_was_packed_is_read(tmp_path: Path) -> None:
    recordings = write(tmp_path / "s.h5")
    store = ClipStore(tmp_path / "s.h5", SPEC)
    assert store.labels == LABELS
    assert store.cameras == ("rgb", "event")
    assert store.items == [Item("first", 1, "train"), Item("second", 0, None)]
    assert [store.pairs(i) for i in range(2)] == [3, 2]
    which = np.array([0, 0, 2])
    pairs = store.read(0, which)
    np.testing.assert_array_equal(pairs.rgb, recordings[0].rgb[which])  # type: ignore[index]
    np.testing.assert_array_equal(pairs.event, recordings[0].event[which])  # type: ignore[index]
    np.testing.assert_array_equal(store.read(1, np.array([1])).event, recordings[1].event[1:])  # type: ignore[index]
    assert [store.problems(i, deep=True) for i in range(2)] == [[], []]
    store.close()


@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"compression": "gzip"},
        dict(hdf5plugin.Blosc2(cname="lz4", clevel=5, filters=hdf5plugin.Blosc2.SHUFFLE)),  # until 0041
    ],
    ids=["none", "gzip", "blosc2"],
)
def test_images_are_read_whatever_compressed_them(filters: dict[str, Any], tmp_path: Path) -> None:
    recordings = write(tmp_path / "s.h5")
    with h5py.File(tmp_path / "s.h5", "a") as file:
        stored = file["event"][:]
        del file["event"]
        file.create_dataset("event", data=stored, chunks=(1, 4, 6, 3), **filters)
    store = ClipStore(tmp_path / "s.h5", SPEC)
    which = np.array([0, 2, 2])
    np.testing.assert_array_equal(store.read(0, which).event, recordings[0].event[which])  # type: ignore[index]
    store.close()


def test_a_camera_that_was_not_there_is_not_read(tmp_path: Path) -> None:
    with ClipStoreWriter(tmp_path / "s.h5", LABELS, ("event",), SPEC, "") as writer:
        writer.add(Item("only", 0), Pairs(None, images(1, 0)))
        writer.finish()
    store = ClipStore(tmp_path / "s.h5", SPEC)
    assert store.cameras == ("event",)
    assert store.read(0, np.array([0, 0])).rgb is None
    store.close()


def test_a_failure_leaves_what_was_there_before(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    write(path)
    before = path.read_bytes()
    with ClipStoreWriter(path, LABELS, ("rgb", "event"), SPEC, "") as writer:
        writer.add(Item("first", 0), Pairs(images(1, 0), images(1, 0)))
        with pytest.raises(DatasetError, match="second: has no rgb images"):
            writer.add(Item("second", 0), Pairs(None, images(1, 0)))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["s.h5"]


def test_another_form_than_the_models_is_refused_with_all_differences(tmp_path: Path) -> None:
    write(tmp_path / "s.h5")
    wanted = ClipSpec(length=2, image_size=(8, 8), event=EventInput(window_us=5, fit="stretch"))
    with pytest.raises(DatasetError) as caught:
        ClipStore(tmp_path / "s.h5", wanted)
    assert caught.value.problems == (
        "images are 6x4, the model takes 8x8",
        "event.window_us is 33333, the model takes 5",
        "event.fit is crop, the model takes stretch",
    )
    assert "velora dataset build somewhere OUT.h5" in str(caught.value)


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "s.h5")
    with h5py.File(tmp_path / "s.h5", "a") as file:
        file.attrs["version"] = 99
    with pytest.raises(DatasetError, match="version 99 of the format; this velora-edge reads 1"):
        ClipStore(tmp_path / "s.h5", SPEC)


def test_damage_inside_is_found_by_reading_everything(tmp_path: Path) -> None:
    write(tmp_path / "s.h5")
    with h5py.File(tmp_path / "s.h5", "r") as file:
        chunk = file["event"].id.get_chunk_info(4)
    data = bytearray((tmp_path / "s.h5").read_bytes())
    data[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    (tmp_path / "s.h5").write_bytes(data)
    store = ClipStore(tmp_path / "s.h5", SPEC)
    assert store.problems(0, deep=True) == []
    (problem,) = store.problems(1, deep=True)
    assert problem.startswith("second: ")
    store.close()


def test_a_file_that_is_no_hdf5_says_so(tmp_path: Path) -> None:
    (tmp_path / "s.h5").write_text("text")
    with pytest.raises(DatasetError, match="cannot be read as HDF5"):
        ClipStore(tmp_path / "s.h5", SPEC)


def _sum_of(store: ClipStore) -> int:
    event = store.read(0, np.array([0, 1])).event
    assert event is not None
    return int(event.sum())


def test_other_processes_open_the_file_for_themselves(tmp_path: Path) -> None:
    recordings = write(tmp_path / "s.h5")
    store = ClipStore(tmp_path / "s.h5", SPEC)
    expected = int(recordings[0].event[:2].sum())  # type: ignore[index]
    assert _sum_of(pickle.loads(pickle.dumps(store))) == expected
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_sum_of, (store,)) == expected
    store.close()


def test_the_rate_of_pairs_is_kept_and_the_specs_stands_in_for_one_that_is_not(tmp_path: Path) -> None:
    rates = []
    for name, packed_hz in (("known.h5", 25.0), ("unknown.h5", None)):
        with ClipStoreWriter(tmp_path / name, LABELS, ("event",), SPEC, "", rate_hz=packed_hz) as writer:
            writer.add(Item("only", 0), Pairs(None, images(1, 0)))
            writer.finish()
        for spec in (SPEC, replace(SPEC, rate_hz=10.0)):
            store = ClipStore(tmp_path / name, spec)
            rates.append(store.rate_hz)
            store.close()
    assert rates == [25.0, 25.0, None, 10.0]
