"""An HDF5 file that threads share and that every process opens for itself."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

import h5py

from velora_edge.errors import DatasetError

if TYPE_CHECKING:
    from pathlib import Path


class Hdf5File:
    """Opened for reading when first asked for; anew in each process, since handles do not survive a fork.

    Callable from any thread.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._opened: tuple[int, h5py.File] | None = None

    def __call__(self) -> h5py.File:
        """The open file.

        Raises:
            DatasetError: if it cannot be opened.
        """
        with self._lock:
            if self._opened is None or self._opened[0] != os.getpid():
                try:
                    self._opened = os.getpid(), h5py.File(self.path, "r")
                except OSError as error:
                    reason = str(error).splitlines()[0]
                    raise DatasetError(
                        [f"cannot be read as HDF5: {reason}"], path=self.path, remedy="copy or make it again"
                    ) from error
            return self._opened[1]

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            if self._opened is not None and self._opened[0] == os.getpid():
                self._opened[1].close()
            self._opened = None
