"""JSONL sink: one JSON object a line, schema version 1 (docs/guides/predictions.md).

A run that decides has a line for each start and end of an action too (docs/guides/decisions.md).
"""

from __future__ import annotations

import contextlib
import json
import sys
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from velora_edge.datatypes import Prediction
from velora_edge.errors import InputError
from velora_runtime.sinks.base import STANDARD_OUTPUT, Result, Sink

if TYPE_CHECKING:
    from velora_runtime.inference.decision import Action
    from velora_runtime.sinks.base import SinkContext

SCHEMA_VERSION = 1


class JsonlSink(Sink):
    """Writes each prediction as a whole line at once, so that the file can be followed while it grows.

    Args:
        target: the file; what it held is replaced. `-` is standard output; a pipe is as good as a file.
        context: not used.

    Raises:
        InputError: if it cannot be written.
        BrokenPipeError: from `write`, if whoever read it has closed the pipe.
    """

    name = "jsonl"
    takes_provisional = True

    def __init__(self, target: str, context: SinkContext) -> None:
        self._path = Path(target)
        try:
            self._file = self._open(target)
        except OSError as error:
            raise _cannot_write(target, error) from error
        self._is_file = target != STANDARD_OUTPUT and self._file.seekable()
        self._bytes = self._whole = 0

    def take(self, result: Result) -> Prediction | None:
        """The prediction, where there is one."""
        return result.prediction

    def take_action(self, action: Action) -> Action:
        """The action."""
        return action

    def write(self, item: Prediction | Action) -> None:
        """Append a line, whole or not at all."""
        line = encode_line(item)
        try:
            while line:
                written = self._file.write(line)
                line, self._bytes = line[written:], self._bytes + written
        except BrokenPipeError:
            raise
        except OSError as error:
            self._cut()
            raise _cannot_write(self._path, error) from error
        self._whole = self._bytes

    def close(self) -> None:
        """Close the file; standard output stays open."""
        self._file.close()

    def _open(self, target: str) -> FileIO:
        if target == STANDARD_OUTPUT:
            sys.stdout.flush()
            return FileIO(sys.stdout.fileno(), "wb", closefd=False)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return FileIO(self._path, "wb")

    def _cut(self) -> None:
        """Leave whole lines alone, where that can be."""
        if self._is_file:
            with contextlib.suppress(OSError):
                self._file.truncate(self._whole)


def as_record(prediction: Prediction) -> dict[str, Any]:
    """A prediction as the object that schema version 1 describes."""
    record: dict[str, Any] = {
        "v": SCHEMA_VERSION,
        "seq": prediction.seq,
        "t_us": prediction.t_us,
        "label": prediction.label,
        "score": round(prediction.score, 6),
        "top": [[label, round(score, 6)] for label, score in prediction.top],
        "events": prediction.events,
        "skew_us": prediction.skew_us,
        "latency_ms": {stage: round(value, 3) for stage, value in prediction.latency_ms.items()},
        "dropped": dict(prediction.dropped),
        "missing": list(prediction.missing),
    }
    marks = {"idle": prediction.is_idle, "provisional": prediction.is_provisional}
    return record | {name: True for name, is_so in marks.items() if is_so}


def as_action_record(action: Action) -> dict[str, Any]:
    """An action's start or end as the object that schema version 1 describes."""
    record: dict[str, Any] = {
        "v": SCHEMA_VERSION,
        "type": "action",
        "state": "start" if action.to_us is None else "end",
        "action": action.number,
        "label": action.label,
        "score": round(action.score, 6),
        "seq": action.seq,
        "t_us": action.t_us,
        "from_us": action.from_us,
    }
    return record if action.to_us is None else {**record, "to_us": action.to_us, "why": action.why}


def encode_line(item: Prediction | Action) -> bytes:
    """A prediction, or an action's start or end, as a line of UTF-8 JSON with its newline."""
    record = as_record(item) if isinstance(item, Prediction) else as_action_record(item)
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _cannot_write(path: object, error: OSError) -> InputError:
    return InputError(
        f"cannot be written: {error.strerror}", path=str(path), remedy="choose another place with --out"
    )
