"""Files that are kept between runs: where they lie, and how one is replaced whole."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def cache_home() -> Path:
    """The user's folder for files that can be made again: `$XDG_CACHE_HOME`, else `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def replace_file(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write a file beside its place and move it there: a reader sees the old one or the new one, whole.

    Args:
        path: in a folder that exists.
        data: all of it.
        mode: its permissions.

    Raises:
        OSError: if it cannot be written; what was there before is still there, and nothing beside it.
    """
    with tempfile.NamedTemporaryFile("wb", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        part = Path(file.name)
    try:
        part.write_bytes(data)
        part.chmod(mode)
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
