"""Where TensorRT's messages go: a file, the list of compiled layers, and the errors that a user sees."""

from __future__ import annotations

import logging
import threading
import weakref
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Sequence

LOG = logging.getLogger("velora.tensorrt")
KEPT = 8
LAYERS = "Layers:\n"
"""How the builder's message that lists what it compiled begins (TensorRT for RTX 1.7, severity VERBOSE)."""


class Messages:
    """What TensorRT said: to a file where one is given; otherwise warnings and errors to `logging`.

    Callable from any thread: a builder logs from several.
    """

    def __init__(self, file: TextIO | None = None) -> None:
        self._file, self._lock = file, threading.Lock()
        self._errors: list[str] = []
        self._layers = ""

    def add(self, level: str, text: str) -> None:
        """Take one message; `level` is a name of tensorrt.ILogger.Severity."""
        with self._lock:
            if text.startswith(LAYERS):
                self._layers = text
            if level in ("ERROR", "INTERNAL_ERROR"):
                self._errors = [*self._errors, text][-KEPT:]
            if self._file is not None and not self._file.closed:
                self._file.write(f"[{level}] {text}\n")
                self._file.flush()
        if self._file is None and level in ("WARNING", "ERROR", "INTERNAL_ERROR"):
            LOG.log(logging.WARNING if level == "WARNING" else logging.ERROR, text)

    def take_errors(self) -> Sequence[str]:
        """The errors since the last call, oldest first; at most the last eight."""
        with self._lock:
            errors, self._errors = self._errors, []
        return errors

    def take_layers(self) -> str:
        """The builder's list of compiled layers since the last call; empty where it printed none."""
        with self._lock:
            layers, self._layers = self._layers, ""
        return layers

    def explain(self) -> str:
        """The first of those errors as the tail of a sentence; empty where TensorRT said nothing."""
        errors = self.take_errors()
        return f": {errors[0].strip().splitlines()[0]}" if errors and errors[0].strip() else ""


_LOGGERS: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


def create_logger(trt: Any, messages: Messages) -> Any:
    """The process's one tensorrt.ILogger, which from now on hands everything to `messages`.

    TensorRT keeps the first logger that it is given and ignores every later one, with a warning.
    """
    if trt not in _LOGGERS:

        class Logger(trt.ILogger):
            messages: Messages

            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, msg: str) -> None:
                self.messages.add(severity.name, msg)

        _LOGGERS[trt] = Logger()
    logger = _LOGGERS[trt]
    logger.messages = messages
    return logger
