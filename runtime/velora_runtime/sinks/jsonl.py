"""One JSON object a prediction, one prediction a line: schema version 1 (docs: runtime/README.md)."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from velora_edge.errors import InputError
from velora_runtime.sinks.base import Seen, Sink

if TYPE_CHECKING:
    from velora_edge.datatypes import Prediction
    from velora_runtime.sinks.base import SinkContext

SCHEMA_VERSION = 1


class JsonlSink(Sink):
    """Writes each prediction as a whole line at once, so that the file can be followed while it grows.

    Args:
        target: the file; what it held is replaced.
        context: not used.

    Raises:
        InputError: if it cannot be written.
    """

    name = "jsonl"

    def __init__(self, target: str, context: SinkContext) -> None:
        self._path = Path(target)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("wb", buffering=0)
            self._bytes = 0
        except OSError as error:
            raise _cannot_write(target, error) from error

    def take(self, seen: Seen) -> Prediction | None:
        """The prediction, where there is one."""
        return seen.prediction

    def write(self, item: Prediction) -> None:
        """Append a line, whole or not at all."""
        line = encode_line(item)
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(self._bytes)
            raise _cannot_write(self._path, error) from error
        self._bytes = self._file.tell()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def as_record(prediction: Prediction) -> dict[str, Any]:
    """A prediction as the object that schema version 1 describes."""
    return {
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


def encode_line(prediction: Prediction) -> bytes:
    """A prediction as a line of UTF-8 JSON with its newline."""
    return json.dumps(as_record(prediction), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _cannot_write(path: object, error: OSError) -> InputError:
    return InputError(
        f"cannot be written: {error.strerror}", path=str(path), remedy="choose another place with --out"
    )
