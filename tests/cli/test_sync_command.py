"""The command `velora sync`, from what a user types to what is printed, drawn and refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import cv2
import numpy as np

from tests.recordings import write_events
from tests.videos import write_video
from velora_cli.main import velora
from velora_edge.bundle import find_model
from velora_edge.console import run

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

ASSETS = find_model("demo").parent
DEMO = (str(ASSETS / "demo.raw"), str(ASSETS / "demo.mp4"))


def sync(*args: object) -> int:
    return run(velora, ["sync", *map(str, args)])


def test_it_prints_the_offset_its_confidence_and_the_option_that_uses_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert sync(*DEMO) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["offset", "confidence", "judged", "use"]
    assert lines[0].startswith("offset      +0.")
    assert lines[2] == "judged by   229 pictures"
    assert lines[3].startswith("use         velora-live MODEL --events ... --rgb ... --sync offset=")


def test_json_has_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert sync(*DEMO, "--json", "--duration", 4, "--search", 2) == 0
    facts = json.loads(capsys.readouterr().out)
    assert set(facts) == {
        *("v", "offset_us", "error_us", "confidence", "match", "next_match", "next_offset_us"),
        *("pictures", "sync"),
    }
    assert (facts["v"], facts["sync"]) == (1, f"offset={facts['offset_us']}")
    assert abs(facts["offset_us"]) < 5_000
    assert facts["confidence"] > 0.5


def test_the_plot_shows_the_best_offset_and_both_motions(tmp_path: Path) -> None:
    assert sync(*DEMO, "--plot", tmp_path / "new" / "p.png") == 0
    image = cv2.imread(str(tmp_path / "new" / "p.png"))
    assert image is not None
    assert image.shape == (640, 1100, 3)
    is_red = (image.astype(int) == (40, 40, 210)).all(axis=2)
    columns = np.flatnonzero(is_red[61:279].sum(axis=0) > 200)
    assert columns.tolist() == [565]  # the middle: offset 0 of offsets from -3.8 to 3.8 s
    blue, red = image[371:589, :, 0].astype(int), image[371:589, :, 2].astype(int)
    assert min((red > blue + 40).sum(), (blue > red + 40).sum()) > 500


def test_recordings_that_tell_no_offset_are_refused_and_drawn_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_events(tmp_path / "e.raw", start_us=0, duration_us=4_000_000, count=40_000)
    assert sync(tmp_path / "e.raw", DEMO[1], "--plot", tmp_path / "p.png") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"error: {tmp_path / 'e.raw'}: no offset can be told: the two do not move")
    assert printed.err.rstrip().endswith(
        "record more motion that does not repeat, or look further with --search S"
    )
    assert (tmp_path / "p.png").is_file()


def test_what_cannot_be_used_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "still.mp4", [33_333 * k if k else 0 for k in range(3)])
    (tmp_path / "file").write_text("")
    cases = [
        ((DEMO[0], "none"), "error: none: the offset is between two cameras"),
        (
            (DEMO[0], tmp_path / "still.mp4"),
            f"error: {tmp_path / 'still.mp4'}: expected 45 pictures at least",
        ),
        (("missing.raw", DEMO[1]), "error: missing.raw: no such file or folder"),
        (
            (*DEMO, "--plot", tmp_path / "file" / "p.png"),
            f"error: {tmp_path / 'file' / 'p.png'}: cannot be written",
        ),
    ]
    for args, start in cases:
        assert sync(*args) == 2
        lines = capsys.readouterr().err.splitlines()
        assert (len(lines), lines[0].startswith(start)) == (1, True), lines


def test_a_recordings_folder_stands_for_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its frames have the times that they were recorded with, so what is found is what is left over."""
    args = ["--events", DEMO[0], "--rgb", DEMO[1], "--sync", "offset=50000", "--pace", "max"]
    assert run(velora, ["record", str(tmp_path / "r"), *args]) == 0
    capsys.readouterr()
    assert sync(tmp_path / "r", "--json") == 0
    assert abs(json.loads(capsys.readouterr().out)["offset_us"] + 50_000) < 5_000
