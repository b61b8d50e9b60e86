"""Labelled segments of a recording: its `segments.csv`.

    start,end,label,split
    1.5,3.25,wave,train

Times are seconds from the recording's first pair, the end is excluded; the column `split` may be missing.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from velora_edge.errors import InputError, printable
from velora_edge.files import replace_file
from velora_edge.limits import LARGEST_TIME, read_text

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

SEGMENTS = "segments.csv"
PARTS = ("train", "val", "test")
"""Of a data set, as a segment's `split` names them."""
COLUMNS = ("start", "end", "label", "split")


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    """A labelled stretch of a recording.

    Attributes:
        start_us: where it begins, from the recording's first pair.
        end_us: where it ends, excluded.
        label: name of its class.
        split: train, val or test; empty where nothing is said.
    """

    start_us: int
    end_us: int
    label: str
    split: str = ""


@dataclass(frozen=True, slots=True)
class SegmentList:
    """Content of a `segments.csv`.

    Attributes:
        segments: in order of time.
        problems: what is wrong with the file, one sentence each; lines that are wrong are left out.
        unknown: columns that are not read, and would be lost if the file were written anew.
    """

    segments: tuple[Segment, ...]
    problems: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


def read_segments(file: Path, shown: str = SEGMENTS) -> SegmentList:
    """The segments of a file; whatever is wrong with it is told, not raised.

    Args:
        file: a `segments.csv`.
        shown: its name in `problems`.
    """
    problems: list[str] = []
    try:
        rows = csv.DictReader(read_text(file).splitlines(), skipinitialspace=True)
        names = rows.fieldnames or ()
        if len(names) == 1 and ";" in names[0]:
            return SegmentList((), (f"{shown}: expected columns separated by commas, got semicolons",))
        missing = {"start", "end", "label"} - set(names)
        if missing:
            return SegmentList((), (f"{shown}: the first line lacks {', '.join(sorted(missing))}",))
        read = [_segment(row, f"{shown}, line {rows.line_num}", problems) for row in rows]
    except (OSError, ValueError, csv.Error) as error:
        return SegmentList((), (f"{shown}: cannot be read: {error}",))
    segments = sorted((segment for segment in read if segment is not None), key=_place)
    return SegmentList(tuple(segments), tuple(problems), tuple(sorted(set(names) - set(COLUMNS))))


def write_segments(file: Path, segments: Iterable[Segment]) -> None:
    """Write all segments in order of time; the file is there whole, the old one or the new one.

    Raises:
        InputError: if one of them could not be read again.
        OSError: if the file cannot be written; what was there before is still there.
    """
    ordered = sorted(segments, key=_place)
    for segment in ordered:
        if problem := _problem(segment):
            raise InputError(problem, path=file)
    has_split = any(segment.split for segment in ordered)
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS if has_split else COLUMNS[:3])
    for segment in ordered:
        row = (_seconds(segment.start_us), _seconds(segment.end_us), segment.label)
        rows.writerow((*row, segment.split) if has_split else row)
    replace_file(file, text.getvalue().encode(), mode=0o644)


def _place(segment: Segment) -> tuple[int, int]:
    return segment.start_us, segment.end_us


def _seconds(t_us: int) -> str:
    """A time in seconds, to the microsecond, without zeros at its end."""
    return f"{t_us // 1_000_000}.{t_us % 1_000_000:06d}".rstrip("0").rstrip(".")


def _problem(segment: Segment) -> str | None:
    """What is wrong with a segment."""
    start, end, label, split = segment.start_us, segment.end_us, segment.label, segment.split
    if not 0 <= start < end <= LARGEST_TIME:
        return f"expected 0 <= start < end, got {start / 1e6:g} and {end / 1e6:g}"
    if not label:
        return "no label"
    if label != label.strip() or not label.isprintable():
        return f"expected a label of letters on one line, got {printable(repr(label), 40)}"
    if split and split not in PARTS:
        return f"expected the split train, val or test, got {printable(split, 40)!r}"
    return None


def _segment(row: dict[str, str], where: str, problems: list[str]) -> Segment | None:
    """The segment of a line; None where it is wrong."""
    try:
        start, end = float(row["start"]), float(row["end"])
    except (TypeError, ValueError):
        shown = (printable(repr(row[key]), 40) for key in ("start", "end"))
        problems.append(f"{where}: expected seconds, got start {next(shown)} and end {next(shown)}")
        return None
    label, part = (row["label"] or "").strip(), (row.get("split") or "").strip()
    split = part.lower()
    if not 0 <= start < end <= LARGEST_TIME / 1e6:
        problems.append(f"{where}: expected 0 <= start < end, got {start:g} and {end:g}")
    elif not label:
        problems.append(f"{where}: no label")
    elif split and split not in PARTS:
        problems.append(f"{where}: expected the split train, val or test, got {printable(part, 40)!r}")
    else:
        return Segment(round(start * 1e6), round(end * 1e6), label, split)
    return None
