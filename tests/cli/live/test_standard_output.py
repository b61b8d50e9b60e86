"""`--out -`: lines on standard output alone, and a reader that has had enough."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.fakes import write_tiny_bundle
from tests.recordings import write_events

if TYPE_CHECKING:
    from pathlib import Path

CODE = "from velora_cli.main import main; main()"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of windows of 100 us, and 40,000 of them."""
    folder = tmp_path_factory.mktemp("runs")
    event = write_tiny_bundle(folder / "m.velora").manifest.event.model_copy(update={"window_us": 100})
    write_tiny_bundle(folder / "m.velora", 3, event=event)
    write_events(folder / "long.raw", start_us=0, duration_us=4_000_000, count=40_000)
    return folder


def command(*options: str) -> list[str]:
    return [sys.executable, "-c", CODE, "live", "m.velora", "--events", "long.raw", "--pace", "max", *options]


def test_standard_output_has_lines_of_json_and_nothing_else(folder: Path) -> None:
    done = subprocess.run(
        command("--out", "-", "--duration", "0.01"), cwd=folder, capture_output=True, text=True, check=True
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["seq"] for line in lines] == list(range(2, 100))
    assert "100 pairs, 98 predictions" in done.stderr


@pytest.mark.parametrize("out", [("--out", "-"), ("--out", "/dev/stdout", "--quiet"), ()])
def test_a_reader_that_closes_the_pipe_ends_the_run_without_an_error(
    folder: Path, out: tuple[str, ...]
) -> None:
    with subprocess.Popen(
        command(*out, "--record", f"rec{len(out)}"),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read().decode()
        assert process.wait(120) == 0
    assert [line for line in said.splitlines() if "rror" in line or "Traceback" in line] == []
    assert "recorded rec" in said


def test_a_pipe_in_a_file_s_place_is_written_to(folder: Path) -> None:
    live = shlex.join(command("--out", "/dev/stdout", "--quiet", "--duration", "0.01"))
    done = subprocess.run(
        f"{live} | head -n 3",
        shell=True,
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert [json.loads(line)["seq"] for line in done.stdout.splitlines()] == [2, 3, 4]
    assert "Illegal seek" not in done.stderr
