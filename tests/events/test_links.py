"""Files that name other files: not followed out of themselves, unless the user asks for it."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

import cv2
import h5py
import numpy as np
import pytest

from tests.events.test_hostile_files import P, T, X, Y
from velora_edge import open_events
from velora_edge.errors import InputError, RecordingError
from velora_edge.preprocessing.pictures import ImageFolder
from velora_edge.preprocessing.registry import open_event_source

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = dict(zip("txyp", (np.array(T), np.array(X), np.array(Y), np.array(P)), strict=True))
SECRET = np.arange(100, dtype="<u2") + 1000


@pytest.fixture(autouse=True)
def nothing_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VELORA_FOLLOW_LINKS", raising=False)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of somebody's, outside of the recording's folder."""
    path = tmp_path / "secret.bin"
    path.write_bytes(SECRET.tobytes())
    return path


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """An HDF5 file of somebody's."""
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        for name, column in COLUMNS.items():
            file[name] = column
        file["width"], file["height"], file["t_offset"] = 640, 480, 5
    return path


def external(path: Path, secret: Path) -> None:
    with h5py.File(path, "w") as file:
        for name, column in COLUMNS.items():
            if name == "x":
                file.create_dataset("events/x", (100,), "<u2", external=[(str(secret), 0, 200)])
            else:
                file[f"events/{name}"] = column


def test_external_storage_is_not_read(tmp_path: Path, secret: Path) -> None:
    external(tmp_path / "a.h5", secret)
    with pytest.raises(RecordingError, match="keeps its content in another file") as caught:
        open_events(tmp_path / "a.h5", sensor=(2000, 480))
    assert "VELORA_FOLLOW_LINKS=1" in str(caught.value)


def test_external_storage_is_read_where_the_user_asks_for_it(
    tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    external(tmp_path / "a.h5", secret)
    monkeypatch.setenv("VELORA_FOLLOW_LINKS", "1")
    with open_events(tmp_path / "a.h5", sensor=(2000, 480)) as reader:
        assert reader.read().x.tolist() == SECRET.tolist()


def test_a_virtual_dataset_is_not_read(tmp_path: Path, other: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file.create_group("events")
        for name, column in COLUMNS.items():
            layout = h5py.VirtualLayout((1 << 40,), column.dtype)
            layout[:] = h5py.VirtualSource(other, name, (1 << 40,))
            group.create_virtual_dataset(name, layout)
    with pytest.raises(RecordingError, match="is put together of other datasets"):
        open_events(tmp_path / "a.h5", sensor=(640, 480))


@pytest.mark.parametrize("linked", ["columns", "group"])
def test_links_to_another_hdf5_file_are_not_followed(tmp_path: Path, other: Path, linked: str) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        if linked == "group":
            file["events"] = h5py.ExternalLink(other, "/")
        else:
            for name in COLUMNS:
                file[f"events/{name}"] = h5py.ExternalLink(other, name)
    with pytest.raises(RecordingError):
        open_events(tmp_path / "a.h5")


def test_a_link_to_a_prophesee_recording_is_not_followed(tmp_path: Path) -> None:
    record = np.zeros(4, [("x", "<u2"), ("y", "<u2"), ("p", "<i2"), ("t", "<i8")])
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["events"] = record
    for name in ("CD", "CD/events"):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            target = "/" if name == "CD" else "/events"
            file[name] = h5py.ExternalLink(tmp_path / "other.h5", target)
        with pytest.raises(RecordingError):
            open_events(tmp_path / "a.h5", sensor=(640, 480))


def test_facts_beside_the_events_are_not_read_from_another_file(tmp_path: Path, other: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, column in COLUMNS.items():
            file[f"events/{name}"] = column
        for name in ("width", "height", "t_offset"):
            file[name] = h5py.ExternalLink(other, name)
    with open_events(tmp_path / "a.h5") as reader:
        assert (reader.width, reader.height) == (30, 20)
        assert reader.read().t_us.tolist() == T


def test_a_mat_file_s_links_are_not_followed(tmp_path: Path, other: Path) -> None:
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as file:
        for name in COLUMNS:
            file[name] = h5py.ExternalLink(other, name)
    with (tmp_path / "a.mat").open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file".ljust(512))
    with pytest.raises(RecordingError):
        open_events(tmp_path / "a.mat")


def test_a_rectification_map_s_links_are_not_followed(tmp_path: Path) -> None:
    from velora_edge.events.geometry.calibration_files import read_calibration

    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["rectify_map"] = np.zeros((4, 6, 2), np.float32)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["rectify_map"] = h5py.ExternalLink(tmp_path / "other.h5", "rectify_map")
    with pytest.raises(InputError):
        read_calibration(str(tmp_path / "a.h5"), (6, 4))


def folder_of(tmp_path: Path, times: str) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    picture = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    (folder / "a.png").write_bytes(picture)
    (tmp_path / "outside.png").write_bytes(picture)
    (folder / "timestamps.txt").write_text(times)
    return folder


@pytest.mark.parametrize("name", ["../outside.png", "{}/outside.png", "b/../../outside.png"])
def test_images_outside_of_their_folder_are_not_read(tmp_path: Path, name: str) -> None:
    folder = folder_of(tmp_path, f"{name.format(tmp_path)} 5\n")
    (folder / "b").mkdir()
    with pytest.raises(RecordingError, match="leads out of its folder"):
        ImageFolder(str(folder))


@pytest.mark.parametrize("times", ["1\n2\n", "a.png 1\nb.png 2\n"])
def test_links_to_images_outside_of_their_folder_are_not_followed(tmp_path: Path, times: str) -> None:
    folder = folder_of(tmp_path, times)
    (folder / "b.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(RecordingError, match="leads out of its folder"):
        ImageFolder(str(folder))


def test_a_folder_that_is_itself_a_link_is_read(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "1\n")
    (tmp_path / "link").symlink_to(folder)
    assert ImageFolder(str(tmp_path / "link")).times_us().tolist() == [1]


def test_images_elsewhere_are_read_where_the_user_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(tmp_path, "../outside.png 5\n")
    monkeypatch.setenv("VELORA_FOLLOW_LINKS", "1")
    assert ImageFolder(str(folder)).times_us().tolist() == [5]


@pytest.mark.parametrize("name", ["events.raw", "timestamps.txt", "triggers.csv", "recording.json"])
def test_a_recording_s_files_are_not_links_out_of_it(tmp_path: Path, name: str) -> None:
    from velora_edge.preprocessing.folder import read_recording

    folder, outside = tmp_path / "recording", tmp_path / "outside"
    folder.mkdir()
    (folder / "recording.json").write_text(json.dumps({"v": 1, "ended": "x"}))
    (folder / "events.raw").write_bytes(b"% evt 3.0\n% geometry 64x48\n% end\n\x00\x80")
    outside.write_bytes((folder / name).read_bytes() if (folder / name).exists() else b"5,1,1\n")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(outside)

    def read_all() -> None:
        recording = read_recording(folder)
        recording.times_us()
        recording.triggers()
        open_event_source(str(folder))

    with pytest.raises(RecordingError, match=re.escape("leads out of its folder")):
        read_all()


@pytest.mark.parametrize("name", ["timestamps.txt", "recording.json", "triggers.csv"])
def test_a_pipe_in_a_recording_s_place_is_not_waited_for(tmp_path: Path, name: str) -> None:
    from velora_edge.preprocessing.folder import read_recording

    folder = tmp_path / "recording"
    folder.mkdir()
    (folder / "recording.json").write_text(json.dumps({"v": 1, "ended": "x"}))
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    try:
        recording = read_recording(folder)
        assert recording.times_us().tolist() == []
        assert len(recording.triggers()) == 0
    except RecordingError:
        pass
