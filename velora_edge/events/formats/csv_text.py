"""Reader of events as text: one event a line; commas, semicolons, tabs or blanks; column names optional."""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from velora_edge.errors import RecordingError
from velora_edge.events.formats.arrays import ColumnReader
from velora_edge.events.formats.columns import guess_order, match_names, unit_in_name
from velora_edge.events.seek_index import PlaceIndex

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import TextIO

    from velora_edge.events.formats.arrays import Columns
    from velora_edge.events.seek_index import Place

LINES = 1 << 16
_MAX_LINE_CHARACTERS = 1 << 12
_COMMENTS = ("#", "%", "//")
_GEOMETRY = re.compile(r"geometry\s*[:= ]\s*(\d{1,5})\s*[x,]\s*(\d{1,5})", re.IGNORECASE)
_WORDS = {"true": "1", "false": "0", "on": "1", "off": "0"}
_EMPTY = np.empty(0)
_NO_BYTE = 1 << 60
"""Text files may give more than a byte for a place: what their decoder remembers as well."""


class CsvReader(ColumnReader):
    """A text file of events.

    Columns go by their names (`t,x,y,p` and what `column_names` knows; `t_s`, `time [ns]` tell the unit); and
    without names by their values. Lines that begin with # or % are comments, of which `geometry` is read; so
    is a first line of two numbers, the sensor's. Lines that are no event are left out and told.

    Args:
        path: the file.
        sensor: width and height, before what the file tells.

    Raises:
        RecordingError: if no four columns of events can be found.
    """

    def __init__(self, path: Path, *, sensor: tuple[int, int] | None = None) -> None:
        self.path, self.warnings = path, []
        self._sensor_in_file: tuple[int, int] | None = None
        names, first_rows = self._read_start()
        self._separator = next((s for s in ",;\t" if s in first_rows[0]), None)
        self._places, unit = self._find_places(names, first_rows)
        t_word = first_rows[0].split(self._separator)[self._places[0]].strip()
        self._types = [np.int64 if re.fullmatch(r"[+-]?\d+", t_word) else np.float64, *[np.float64] * 3]
        warnings = self.warnings
        super().__init__(path, "CSV", sensor or self._sensor_in_file, time_unit=unit)
        self.warnings[:0] = warnings

    def columns(self, place: Any = None) -> Iterator[Columns]:
        """The lines in pieces, from a byte and the number of lines before it on."""
        for table, _ in self._pieces(*(place or self._first)):
            yield table

    def find_place(self, t_us: int) -> Place:
        """A byte, and the number of lines before it."""
        if self._first[0] >= _NO_BYTE:
            return self._first

        def walk(place: Place) -> Iterator[tuple[int | None, Place]]:
            for (t, _, _, _), after in self._pieces(*place):
                times = self.times_us(t)
                if after is not None:
                    yield (int(times.max()) if len(times) else None), after

        kind = f"CSV {self._places} {self._time_unit}"
        return PlaceIndex(self.path, kind, self._first, walk).find(t_us)

    def _pieces(self, byte: int, at: int) -> Iterator[tuple[Columns, Place | None]]:
        """The lines' columns, and the place after them, None where it cannot be told."""
        bad, first_bad = 0, 0
        size = self.path.stat().st_size
        with _open(self.path) as file:
            file.seek(byte)
            while lines := list(islice(_lines(file), LINES)):
                table = self._parse_fast(lines)
                if table is None:
                    table, bad_here = self._parse_line_by_line(lines)
                    first_bad = first_bad or (at + bad_here[0] + 1 if bad_here else 0)
                    bad += len(bad_here)
                at += len(lines)
                byte = file.tell()
                self.done = byte / size if byte <= size else None
                yield table, (byte, at) if byte < _NO_BYTE else None
        if bad:
            self.warn(f"{bad:,} lines are no events and were left out (first: line {first_bad:,})")

    def _read_start(self) -> tuple[list[str] | None, list[str]]:
        """The columns' names, if there are any, and the first rows."""
        names: list[str] | None = None
        rows: list[str] = []
        self._header_lines = byte = 0
        with _open(self.path) as file:
            for line in islice(_lines(file), 1000):
                text = line.strip().lstrip("\ufeff")
                is_comment = text.startswith(_COMMENTS)
                if not rows and (is_comment or not text or not _is_row(text)):
                    self._header_lines += 1
                    byte = file.tell()
                    names = self._read_header_line(text) or names
                elif text and not is_comment:
                    rows.append(text)
        self._first = byte, self._header_lines
        if not rows:
            raise RecordingError("no line of four numbers", path=self.path, remedy="expected columns t,x,y,p")
        return names, rows

    def _read_header_line(self, text: str) -> list[str] | None:
        """The names in it, if it is a line of names; takes in what it tells of the sensor."""
        geometry = _GEOMETRY.search(text) or re.fullmatch(r"(\d{1,5})[ ,;\t]+(\d{1,5})", text)
        if geometry and 0 < int(geometry[1]) <= 65536 and 0 < int(geometry[2]) <= 65536:
            self._sensor_in_file = int(geometry[1]), int(geometry[2])
        words = [w.strip().strip("\"'") for w in re.split(r"[,;\t]", text.lstrip("#%/ "))]
        words = words if len(words) > 3 else text.lstrip("#%/ ").split()
        return words if match_names(words) else None

    def _find_places(self, names: list[str] | None, rows: list[str]) -> tuple[list[int], str | None]:
        """Places of t, x, y and p in a line, and the unit that the time's name tells."""
        matched = match_names(names) if names else None
        if names and matched:
            places = [names.index(matched[role]) for role in "txyp"]
            if max(places) < len(rows[0].split(self._separator)):
                return places, unit_in_name(matched["t"])
        numbers = [_numbers(row.split(self._separator)[:4]) or [] for row in rows]
        table = np.array([row for row in numbers if len(row) == 4], np.float64)
        order = guess_order(table) if len(table) else None
        if order is None:
            raise RecordingError(
                "expected columns t, x, y, p, but neither the third nor the fourth holds only 0, 1 and -1",
                path=self.path,
                place=f"line {self._header_lines + 1}",
                remedy="put a line with the columns' names first, such as t,x,y,p",
            )
        if order != "txyp":
            self.warn(f"the columns have no names; taken as {', '.join(order)} by their values")
        return [order.index(role) for role in "txyp"], None

    def _parse_fast(self, lines: list[str]) -> Columns | None:
        if not any(line.strip() for line in lines):
            return _EMPTY, _EMPTY, _EMPTY, _EMPTY
        dtype = [(role, kind) for role, kind in zip("txyp", self._types, strict=True)]
        try:
            rows = np.loadtxt(
                lines, dtype, comments=None, delimiter=self._separator, usecols=self._places, ndmin=1
            )
        except ValueError:
            return None
        return rows["t"], rows["x"], rows["y"], rows["p"]

    def _parse_line_by_line(self, lines: list[str]) -> tuple[Columns, list[int]]:
        """The columns, and which of the lines are no events."""
        good: list[list[Any]] = []
        bad: list[int] = []
        for i, line in enumerate(lines):
            text = line.strip()
            if not text or text.startswith(_COMMENTS):
                continue
            words = text.split(self._separator)
            row = _numbers([words[k] for k in self._places]) if len(words) > max(self._places) else None
            if row is None or not all(map(np.isfinite, row)):
                bad.append(i)
            else:
                good.append(row)
        if not good:
            return (_EMPTY, _EMPTY, _EMPTY, _EMPTY), bad
        columns = zip(*good, strict=True)
        return cast("Columns", tuple(np.array(c, _narrow(c)) for c in columns)), bad


def _open(path: Path) -> TextIO:
    return path.open(encoding="utf-8", errors="replace", newline=None)


def _lines(file: TextIO) -> Iterator[str]:
    """Lines of bounded length; of an endless one comes the beginning, which is no event."""
    while line := file.readline(_MAX_LINE_CHARACTERS):
        yield line
        while len(line) == _MAX_LINE_CHARACTERS and not line.endswith("\n"):
            line = file.readline(_MAX_LINE_CHARACTERS)


def _is_row(text: str) -> bool:
    words = re.split(r"[,;\s]+", text.strip())
    return len(words) >= 4 and _numbers(words[:4]) is not None


def _numbers(words: list[str]) -> list[Any] | None:
    """The words as integers where they are, or floats; None if one of them is no number."""
    numbers: list[Any] = []
    for word in words:
        plain = _WORDS.get(word.strip().lower(), word.strip())
        try:
            numbers.append(int(plain) if re.fullmatch(r"[+-]?\d{1,18}", plain) else float(plain))
        except ValueError:
            return None
    return numbers


def _narrow(column: tuple[Any, ...]) -> type:
    return np.int64 if all(isinstance(value, int) for value in column) else np.float64
