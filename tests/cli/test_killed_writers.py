"""A command that is killed while it writes leaves the old file whole, and the next one clears up after it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from velora_edge.datatypes import EventBatch
from velora_edge.events.writers import open_writer


def write_events(path: Path, n: int) -> None:
    i = np.arange(n)
    with open_writer(path, "EVT3", width=64, height=48) as writer:
        writer.write(
            EventBatch(
                (i * 20).astype(np.int64), (i % 60).astype(np.uint16), (i % 40).astype(np.uint16),
                (i % 2).astype(np.uint8),
            )
        )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["raw", "h5", "csv"])
def test_a_killed_conversion_leaves_the_old_file_and_the_next_one_no_part(
    tmp_path: Path, ending: str
) -> None:
    source, target = tmp_path / "in.raw", tmp_path / "out" / f"out.{ending}"
    write_events(source, 3_000_000)
    target.parent.mkdir()
    target.write_bytes(b"OLD")
    program = "from velora_cli.main import main; main()"
    command = [sys.executable, "-c", program, "convert", str(source), str(target), "--force", "--quiet"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while len(list(target.parent.iterdir())) < 2 and process.poll() is None and time.monotonic() < end:
        time.sleep(0.001)
    process.kill()
    process.wait()
    assert target.read_bytes() == b"OLD"
    assert len(list(target.parent.iterdir())) == 2
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    assert target.stat().st_size > 1000


def test_a_writer_does_not_follow_a_link_that_waits_in_its_part_s_place(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    for ending in ("raw", "h5", "csv"):
        target = tmp_path / f"out.{ending}"
        (tmp_path / f".{target.name}.{os.getpid()}.part").symlink_to(tmp_path / "victim")
        (tmp_path / f".{target.name}.part").symlink_to(tmp_path / "victim")
        with open_writer(target, {"raw": "EVT3", "h5": "HDF5", "csv": "CSV"}[ending], width=4, height=4):
            pass
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_summary_does_not_follow_a_link_that_waits_in_its_part_s_place(tmp_path: Path) -> None:
    from velora_runtime.app.session import write_summary

    (tmp_path / "victim").write_text("precious")
    (tmp_path / ".summary.json.part").symlink_to(tmp_path / "victim")
    write_summary(str(tmp_path / "summary.json"), {"pairs": 5})
    assert (tmp_path / "victim").read_text() == "precious"


def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what the disk was asked to have, in order."""
    asked: list[str] = []
    fsync = os.fsync

    def record(descriptor: int) -> None:
        asked.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    return asked


@pytest.mark.parametrize("format_name", ["EVT2", "EVT3", "HDF5", "CSV"])
def test_a_converted_file_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format_name: str
) -> None:
    asked = synced(monkeypatch)
    with open_writer(tmp_path / "out", format_name, width=4, height=4):
        pass
    assert len(asked) == 2
    assert asked[0].startswith(".out.")
    assert asked[1] == tmp_path.name
