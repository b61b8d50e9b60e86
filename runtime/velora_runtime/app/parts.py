"""Predictions of an archive on disk: a Parquet file for each recording, a report with a line for each.

    OUT/demo-3f9c2b7a1d04/run.json        model and options; the digits are their digest
    OUT/demo-3f9c2b7a1d04/report.jsonl    what became of each recording
    OUT/demo-3f9c2b7a1d04/day1_door-8c1e00b7-a9d2f364b0c1.parquet
                                          a recording's rows; the digits: of its name, of its content

A part is written under another name and moved to its place when it is complete, so one that has its name
needs not be made again. Its bytes follow from the recording, the model and the options: it holds no time and
no latency.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from dataclasses import asdict, dataclass
from glob import escape
from typing import TYPE_CHECKING, Any, Literal

from velora_edge.datatypes import Prediction
from velora_edge.errors import InputError, MissingExtraError
from velora_edge.files import PartFile, replace_file
from velora_runtime.sinks.base import Result, Sink
from velora_runtime.sinks.jsonl import as_action_record, as_record

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

    from velora_runtime.inference.decision import Action

SCHEMA_VERSION = 1
ROWS_AT_ONCE = 20_000
"""Rows of a row group: what a long recording holds in memory before it is written."""
RUN, REPORT = "run.json", "report.jsonl"


def load_pyarrow() -> Any:
    """PyArrow, with its module for Parquet.

    Raises:
        MissingExtraError: if it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError(error.name or "pyarrow", "archive", "velora predict") from error
    return pyarrow


def make_schema(metadata: Mapping[str, str]) -> Any:
    """The Arrow schema of all parts: the fields of `--out`'s lines, less `v` and `latency_ms`.

    `recording` comes first. Fields of actions are null in the row of a prediction, and the other way round.
    """
    arrow = load_pyarrow()
    text, score, number = arrow.string(), arrow.float64(), arrow.int64()
    return arrow.schema(
        [
            ("recording", text),
            ("type", text),
            ("seq", number),
            ("t_us", number),
            ("label", text),
            ("score", score),
            ("top", arrow.list_(arrow.struct([("label", text), ("score", score)]))),
            ("events", number),
            ("skew_us", number),
            ("dropped", arrow.struct([("rgb", number), ("events", number)])),
            ("missing", arrow.list_(text)),
            ("idle", arrow.bool_()),
            ("provisional", arrow.bool_()),
            ("state", text),
            ("action", number),
            ("from_us", number),
            ("to_us", number),
            ("why", text),
        ],
        metadata=dict(metadata),
    )


def as_row(recording: str, item: Prediction | Action) -> dict[str, Any]:
    """A prediction, or an action's start or end, as a row of a part."""
    if not isinstance(item, Prediction):
        return {"recording": recording, **as_action_record(item)}
    record = as_record(item)
    top = [{"label": label, "score": score} for label, score in record["top"]]
    return {"recording": recording, "type": "prediction", **record, "top": top}


def count_rows(part: Path) -> int:
    """The rows of a part, by its metadata."""
    return int(load_pyarrow().parquet.read_metadata(part).num_rows)


class ParquetPart(Sink):
    """A part under construction, and the sink that fills it.

    Use as a context manager. A part that is not committed leaves nothing behind.

    Args:
        path: where it goes, in a folder that exists.
        recording: its name, for each row.
        metadata: of the file.

    Attributes:
        rows: taken so far.

    Raises:
        InputError: if it cannot be written; from `write`, `close` and `commit` too.
    """

    name = "parquet"
    takes_provisional = True

    def __init__(self, path: Path, recording: str, metadata: Mapping[str, str]) -> None:
        self.rows = 0
        self._path, self._recording, self._waiting = path, recording, list[dict[str, Any]]()
        self._arrow, self._schema = load_pyarrow(), make_schema(metadata)
        with self._told():
            self._part = PartFile(path)
            self._writer = self._arrow.parquet.ParquetWriter(
                str(self._part.path), self._schema, compression="zstd"
            )

    def take(self, result: Result) -> Prediction | None:
        """The prediction, where there is one."""
        return result.prediction

    def take_action(self, action: Action) -> Action:
        """The action."""
        return action

    def write(self, item: Prediction | Action) -> None:
        """Add a row."""
        self.rows += 1
        self._waiting.append(as_row(self._recording, item))
        if len(self._waiting) >= ROWS_AT_ONCE:
            self._write_waiting()

    def close(self) -> None:
        """Write the rows that wait, and the file's end. May be called again."""
        if self._writer.is_open:
            try:
                self._write_waiting()
            finally:
                with self._told():
                    self._writer.close()

    def commit(self) -> None:
        """Close it and give it its name; parts of other states of the same recording are removed."""
        self.close()
        with self._told():
            self._part.commit()
        for other in self._path.parent.glob(f"{escape(self._path.name.rpartition('-')[0])}-*.parquet"):
            if other != self._path:
                other.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(InputError):
            self.close()
        self._part.discard()

    def _write_waiting(self) -> None:
        rows, self._waiting = self._waiting, []
        if rows:
            with self._told():
                self._writer.write_table(self._arrow.Table.from_pylist(rows, schema=self._schema))

    @contextlib.contextmanager
    def _told(self) -> Any:
        try:
            yield
        except OSError as error:
            raise InputError(
                f"cannot be written: {error.strerror or error}",
                path=self._path,
                remedy="choose another --out",
            ) from error


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a recording: a line of the report.

    Attributes:
        recording: its name.
        state: `done`; `kept`, where its part was there already; `failed`.
        part: the file of its rows, in the run's folder; None where it failed.
        digest: of the recording's name and content.
        stamp: digest of its files' names, sizes and times of change: while it stays, so does the other one.
        rows: in the part.
        recording_s: between the first pair and the last, seconds.
        wall_s: what it took.
        engine: that computed it.
        notes: what was odd, and what was chosen.
        error: why it failed, one line.
    """

    recording: str
    state: Literal["done", "kept", "failed"]
    part: str | None = None
    digest: str = ""
    stamp: str = ""
    rows: int | None = None
    recording_s: float | None = None
    wall_s: float | None = None
    engine: str | None = None
    notes: tuple[str, ...] = ()
    error: str | None = None

    @classmethod
    def from_json(cls, text: str) -> Outcome:
        """What `to_json` gave.

        Raises:
            ValueError: if it is something else.
        """
        said = json.loads(text)
        try:
            return cls(**{**said, "notes": tuple(said["notes"])})
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"expected a line of {REPORT}, got {text[:60]!r}") from error

    def to_json(self) -> str:
        """One line of JSON, without its end."""
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":"))


class Report:
    """The report of a run's folder, which grows by a line for each recording; locked while it is open.

    Opening it keeps the lines of recordings whose parts are there, and drops those of failures, which are
    tried again. Use as a context manager. Single-threaded.

    Args:
        folder: of the run; made where it is not there.
        about: what `run.json` tells.

    Attributes:
        known: the lines by recording.

    Raises:
        InputError: if it cannot be written, or another run writes it.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self._path = folder / REPORT
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = (folder / ".lock").open("a")
            self._claim()
            replace_file(folder / RUN, (json.dumps(about, indent=2) + "\n").encode(), mode=0o644)
            self.known = {one.recording: one for one in _read(self._path) if _has_part(folder, one)}
            lines = "".join(one.to_json() + "\n" for one in self.known.values())
            replace_file(self._path, lines.encode(), mode=0o644)
            self._file = self._path.open("ab", buffering=0)
        except OSError as error:
            raise InputError(
                f"cannot be written: {error.strerror}", path=folder, remedy="choose another --out"
            ) from error

    def add(self, outcome: Outcome) -> None:
        """Append a line."""
        self._file.write(outcome.to_json().encode() + b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._lock.close()

    def _claim(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise InputError(
                "another velora predict writes here",
                path=self._path.parent,
                remedy="wait for it, or choose another --out",
            ) from error
        except OSError:  # no locks on this file system
            pass


def _read(path: Path) -> Iterable[Outcome]:
    """The lines that are whole: the last one may not be, where a run was killed."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            yield Outcome.from_json(line)


def _has_part(folder: Path, outcome: Outcome) -> bool:
    return outcome.part is not None and os.sep not in outcome.part and (folder / outcome.part).is_file()
