"""Single keys from the terminal, while a run writes to it."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

POLL_S = 0.2


class KeyReader:
    """Calls a function for each key that has one, in a thread of its own; does nothing without a terminal.

    Ctrl-C and Ctrl-Z keep their effect. The terminal is as it was once `close` has returned.

    Args:
        actions: what each key does; an action must not raise.
        fd: the terminal's file descriptor.
    """

    def __init__(self, actions: Mapping[str, Callable[[], None]], fd: int = 0) -> None:
        self._actions, self._fd = actions, fd
        self._ended = threading.Event()
        self._before: list[object] | None = None
        self._thread = threading.Thread(target=self._work, name="keys", daemon=True)
        if _is_foreground(fd):
            import termios
            import tty

            self._before = termios.tcgetattr(fd)
            tty.setcbreak(fd)
            self._thread.start()

    @property
    def is_listening(self) -> bool:
        """There is a terminal."""
        return self._before is not None

    def close(self) -> None:
        """Stop, and leave the terminal as it was. May be called again."""
        self._ended.set()
        if self._before is not None:
            import termios

            self._thread.join(5 * POLL_S)
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)  # type: ignore[arg-type]

    def _work(self) -> None:
        while not self._ended.is_set():
            if not select.select([self._fd], [], [], POLL_S)[0]:
                continue
            try:
                typed = os.read(self._fd, 32)
            except OSError:
                return
            if not typed:
                return
            for key in typed.decode(errors="ignore"):
                if key in self._actions:
                    self._actions[key]()


def _is_foreground(fd: int) -> bool:
    """A terminal, and ours to read: a process in the background that reads one is stopped."""
    try:
        return os.isatty(fd) and sys.platform != "win32" and os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return False
