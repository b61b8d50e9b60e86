"""Where TensorRT's messages go: a file, and the last errors for the one line that a user sees."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Sequence

LOG = logging.getLogger("velora.tensorrt")
KEPT = 8


class Messages:
    """What TensorRT said: to a file where one is given; otherwise warnings and errors to `logging`.

    Callable from any thread: a builder logs from several.
    """

    def __init__(self, file: TextIO | None = None) -> None:
        self._file, self._lock = file, threading.Lock()
        self._errors: list[str] = []

    def add(self, level: str, text: str) -> None:
        """Take one message; `level` is a name of tensorrt.ILogger.Severity."""
        with self._lock:
            if level in ("ERROR", "INTERNAL_ERROR"):
                self._errors = [*self._errors, text][-KEPT:]
            if self._file is not None:
                self._file.write(f"[{level}] {text}\n")
                self._file.flush()
        if self._file is None and level in ("WARNING", "ERROR", "INTERNAL_ERROR"):
            LOG.log(logging.WARNING if level == "WARNING" else logging.ERROR, text)

    def take_errors(self) -> Sequence[str]:
        """The errors since the last call, oldest first; at most the last eight."""
        with self._lock:
            errors, self._errors = self._errors, []
        return errors

    def explain(self) -> str:
        """The first of those errors as the tail of a sentence; empty where TensorRT said nothing."""
        errors = self.take_errors()
        return f": {errors[0].strip().splitlines()[0]}" if errors and errors[0].strip() else ""


def create_logger(trt: Any, messages: Messages) -> Any:
    """A tensorrt.ILogger that hands everything to `messages`; it must outlive what was created with it."""

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            messages.add(severity.name, msg)

    return Logger()
