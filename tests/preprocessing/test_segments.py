"""`segments.csv`: what is written is read again, and what is wrong with a file is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from velora_edge.errors import InputError
from velora_edge.preprocessing.segments import Segment, SegmentList, read_segments, write_segments

if TYPE_CHECKING:
    from pathlib import Path


def test_segments_are_written_in_order_of_time_and_read_again(tmp_path: Path) -> None:
    file = tmp_path / "segments.csv"
    early, late = Segment(0, 1_250_000, "wave, fast"), Segment(2_000_001, 3_000_000, "rest")
    write_segments(file, [late, early])
    assert file.read_text() == 'start,end,label\n0,1.25,"wave, fast"\n2.000001,3,rest\n'
    assert read_segments(file) == SegmentList((early, late))


def test_parts_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "segments.csv"
    segments = (Segment(0, 1_000_000, "wave", "val"), Segment(1_000_000, 2_000_000, "rest"))
    write_segments(file, segments)
    assert file.read_text() == "start,end,label,split\n0,1,wave,val\n1,2,rest,\n"
    assert read_segments(file).segments == segments


def test_columns_that_would_be_lost_are_named(tmp_path: Path) -> None:
    file = tmp_path / "segments.csv"
    file.write_text("start,end,label,who,Note\n0,1,wave,me,x\n")
    assert read_segments(file) == SegmentList((Segment(0, 1_000_000, "wave"),), (), ("Note", "who"))


def test_lines_that_are_wrong_are_told_and_left_out(tmp_path: Path) -> None:
    file = tmp_path / "segments.csv"
    file.write_text("start,end,label,split\n1,0,wave,\n0,x,wave,\n0,1,,\n0,1,wave,all\n2,3,wave,TEST\n")
    read = read_segments(file)
    assert read.segments == (Segment(2_000_000, 3_000_000, "wave", "test"),)
    assert read.problems == (
        "segments.csv, line 2: expected 0 <= start < end, got 1 and 0",
        "segments.csv, line 3: expected seconds, got start '0' and end 'x'",
        "segments.csv, line 4: no label",
        "segments.csv, line 5: expected the split train, val or test, got 'all'",
    )


@pytest.mark.parametrize(
    ("segment", "problem"),
    [
        (Segment(5, 5, "wave"), "expected 0 <= start < end"),
        (Segment(-1, 5, "wave"), "expected 0 <= start < end"),
        (Segment(0, 5, ""), "no label"),
        (Segment(0, 5, "wave\n0,1,rest"), "expected a label of letters on one line"),
        (Segment(0, 5, "wave", "all"), "expected the split train, val or test"),
    ],
)
def test_what_could_not_be_read_again_is_refused_and_the_old_file_stays(
    tmp_path: Path, segment: Segment, problem: str
) -> None:
    file = tmp_path / "segments.csv"
    write_segments(file, [Segment(0, 1, "rest")])
    before = file.read_bytes()
    with pytest.raises(InputError, match=problem):
        write_segments(file, [segment])
    assert file.read_bytes() == before
