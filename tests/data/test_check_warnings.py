"""What `velora dataset check` warns of: sets that can be read, and may not be what was meant."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from recordings import write_events

from velora_cli.main import velora
from velora_edge.bundle import EventInput
from velora_edge.data.build import check
from velora_edge.data.clips.clips import ClipSpec
from velora_edge.data.layouts.recordings import RuntimePacker, open_recordings

if TYPE_CHECKING:
    from pathlib import Path

SPEC = ClipSpec(length=4, image_size=(16, 16), event=EventInput(window_us=40_000))


def by_class(root: Path, *labels: str, takes: int = 3) -> Path:
    for label in labels:
        (root / label).mkdir(parents=True)
        for take in range(takes):
            write_events(root / label / f"{take}.raw", start_us=0, duration_us=400_000)
    return root


def segmented(root: Path, segments: str) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    write_events(root / "day.raw", start_us=0, duration_us=1_000_000, count=10_000)
    (root / "segments.csv").write_text(segments)
    return root


def warnings(root: Path, spec: ClipSpec = SPEC) -> list[str]:
    report = check(open_recordings(root, spec, RuntimePacker()))
    assert report.problems == ()
    return list(report.warnings)


def test_a_sound_set_has_none(tmp_path: Path) -> None:
    assert warnings(by_class(tmp_path, "wave", "rest")) == []


def test_class_folders_beside_a_segmented_recording_are_told(tmp_path: Path) -> None:
    root = segmented(by_class(tmp_path, "wave"), "start,end,label\n0,0.3,a1\n0.3,0.6,a1\n0.6,0.9,a1\n")
    (found,) = warnings(root)
    assert found.startswith("wave: 3 event files are not taken: where there is a segments.csv")


def test_an_end_beyond_the_recording_is_told(tmp_path: Path) -> None:
    root = segmented(tmp_path, "start,end,label\n0,0.3,wave\n0.3,0.6,wave\n0.6,7,wave\n")
    (found,) = warnings(root)
    assert found.startswith("day@0.6: ends at 7 s, the events at 0.9")


def test_segments_that_overlap_with_different_labels_are_told(tmp_path: Path) -> None:
    lines = "0,0.5,wave\n0.3,0.6,rest\n0.5,0.9,rest\n"
    root = segmented(tmp_path, "start,end,label\n" + lines)
    assert warnings(root)[0] == "day@0.3: rest begins 0.2 s before wave ends (day@0)"


@pytest.mark.parametrize(
    ("first", "second"), [("wave", "Wave"), ("wave", "waves"), ("circle", "circel_"), ("pick up", "pick_up")]
)
def test_labels_that_differ_by_a_letter_are_told(tmp_path: Path, first: str, second: str) -> None:
    alike = first != "circle"  # two letters changed places: two differences
    found = warnings(by_class(tmp_path, first, second))
    assert [line.endswith("by a letter at most: are they one?") for line in found] == [True] * alike


@pytest.mark.parametrize(("first", "second"), [("up", "us"), ("digit 1", "digit 2"), ("wave", "rest")])
def test_labels_that_mean_two_things_are_not(tmp_path: Path, first: str, second: str) -> None:
    assert warnings(by_class(tmp_path, first, second)) == []


def test_a_class_too_small_for_three_parts_is_told(tmp_path: Path) -> None:
    root = by_class(tmp_path, "wave", takes=2)
    assert warnings(root) == ["wave: 2 recordings; train, val and test need one each: record more"]


def test_recordings_shorter_than_the_models_clip_are_told(tmp_path: Path) -> None:
    root = by_class(tmp_path, "wave")
    (found,) = warnings(root, replace(SPEC, sampling="stride", stride=10))
    assert found == (
        "wave/0: 10 pairs, and a clip of the model spans 31; so do 2 more recordings: "
        "record longer, or make clip_length or stride smaller"
    )


def test_semicolons_are_told_for_what_they_are(tmp_path: Path) -> None:
    root = segmented(tmp_path, "start;end;label\n0;1;wave\n")
    (tmp_path / "two").mkdir()
    segmented(tmp_path / "two", "start,end,label\n0,0.9,wave\n")
    report = check(open_recordings(root, SPEC, RuntimePacker()))
    assert report.problems[0] == "segments.csv: expected columns separated by commas, got semicolons"


def test_warnings_are_printed_and_are_no_error(tmp_path: Path) -> None:
    done = CliRunner().invoke(velora, ["dataset", "check", str(by_class(tmp_path, "wave", takes=1))])
    assert done.exit_code == 0
    assert "warning: wave: 1 recording; train, val and test" in done.output
