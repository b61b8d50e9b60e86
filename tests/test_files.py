"""Files and folders appear whole or not at all, and what killed processes left does not stay."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import pytest

from velora_edge import files
from velora_edge.files import PartFile, PartFolder, cache_home, remove_leftovers, replace_file


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Disk:
    """What a process asks of the disk, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        fsync, replace = os.fsync, Path.replace

        def record_fsync(descriptor: int) -> None:
            self.asked.append(f"fsync {Path(f'/proc/self/fd/{descriptor}').readlink().name[:3]}")
            fsync(descriptor)

        def record_replace(path: Path, target: Path) -> Path:
            self.asked.append("rename")
            return replace(path, target)

        monkeypatch.setattr(os, "fsync", record_fsync)
        monkeypatch.setattr(Path, "replace", record_replace)


def test_the_content_is_on_the_disk_before_the_name_and_the_name_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dir").mkdir()
    disk = Disk(monkeypatch)
    replace_file(tmp_path / "dir" / "a", b"after")
    assert disk.asked == ["fsync .a.", "rename", "fsync dir"]


def test_a_part_lies_beside_its_place_and_is_gone_once_it_is_there(tmp_path: Path) -> None:
    with PartFile(tmp_path / "a.bin") as part:
        part.path.write_bytes(b"x")
        (name,) = names(tmp_path)
        assert name.startswith(".a.bin.")
        assert name.endswith(".part")
        part.commit()
    assert names(tmp_path) == ["a.bin"]


def test_a_new_file_has_the_permissions_that_the_user_gives_new_files(tmp_path: Path) -> None:
    with PartFile(tmp_path / "a") as part:
        part.commit()
    (tmp_path / "b").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_file_for_its_owner_alone_is_so_from_its_first_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes, write_bytes = [], Path.write_bytes

    def record(path: Path, data: bytes) -> int:
        modes.append(path.stat().st_mode & 0o777)
        return write_bytes(path, data)

    monkeypatch.setattr(Path, "write_bytes", record)
    replace_file(tmp_path / "key", b"secret")
    assert modes == [0o600]


def test_a_part_that_is_not_finished_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"before")
    with contextlib.suppress(ValueError), PartFile(tmp_path / "a") as part:
        part.path.write_bytes(b"half")
        raise ValueError("broken")
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"before"


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"before")

    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space"):
        replace_file(tmp_path / "a", b"after")
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"before"


def test_a_part_is_never_opened_through_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / ".a.00000000.part").symlink_to("victim")
    tokens = iter(["00000000", "11111111"])
    monkeypatch.setattr(files.secrets, "token_hex", lambda n: next(tokens))
    replace_file(tmp_path / "a", b"after")
    assert (tmp_path / "victim").read_text() == "precious"
    assert (tmp_path / "a").read_bytes() == b"after"


KILLED = """
import sys, time
from pathlib import Path
from velora_edge.files import PartFile, PartFolder
file, folder = PartFile(Path(sys.argv[1]) / "a.h5"), PartFolder(Path(sys.argv[1]) / "b.velora")
(folder.path / "inner").mkdir()
(folder.path / "inner" / "x").write_text("x")
file.path.write_bytes(b"half")
print("ready", flush=True)
time.sleep(60)
"""


def test_parts_of_a_killed_process_are_removed_and_those_of_one_that_lives_are_not(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, env=dict(os.environ)
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    for name in ("a.h5", "b.velora"):
        remove_leftovers(tmp_path / name)
    assert len(names(tmp_path)) == 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with PartFile(tmp_path / "a.h5"), PartFolder(tmp_path / "b.velora"):
        assert len(names(tmp_path)) == 2
    assert names(tmp_path) == []


def test_other_peoples_files_are_left_alone(tmp_path: Path) -> None:
    kept = [".a.part", ".a.0000000g.part", ".ab.00000000.part", "a.00000000.part", ".a.00000000.party"]
    for name in kept:
        (tmp_path / name).touch()
    (tmp_path / ".a.22222222.part").symlink_to(tmp_path / ".a.part")
    os.mkfifo(tmp_path / ".a.33333333.part")
    begun = time.monotonic()
    remove_leftovers(tmp_path / "a")
    assert time.monotonic() - begun < 1.0
    assert set(kept) | {".a.22222222.part"} <= set(names(tmp_path))


def test_hdf5_locks_a_part_as_any_other_file(tmp_path: Path) -> None:
    with PartFile(tmp_path / "a.h5") as part:
        with h5py.File(part.path, "w", locking=True) as file:
            file["x"] = 5
        part.commit()
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["x"][()] == 5


def test_a_folder_is_on_the_disk_before_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a"
    target.mkdir()
    (target / "old").touch()
    disk = Disk(monkeypatch)
    with PartFolder(target) as part:
        (part.path / "new").write_text("x")
        part.commit()
    assert names(tmp_path) == ["a"]
    assert names(target) == ["new"]
    assert disk.asked[0] == "fsync new"
    assert disk.asked[-1] == f"fsync {tmp_path.name[:3]}"


def test_a_file_is_replaced_with_the_permissions_that_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"before")
    replace_file(tmp_path / "a", b"after", mode=0o644)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert ((tmp_path / "a").read_bytes(), (tmp_path / "a").stat().st_mode & 0o777) == (b"after", 0o644)


def test_where_it_cannot_be_moved_to_its_place_nothing_is_left_beside_it(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(IsADirectoryError):
        replace_file(tmp_path / "a", b"after")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_the_users_cache_is_where_the_desktops_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_home() == tmp_path
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert cache_home() == Path("/home/somebody/.cache")
