"""Telling formats apart by a file's first bytes; nothing heavy is imported here."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"


def is_hdf5(head: bytes, path: Path) -> bool:
    """HDF5; the superblock may come after a user block of 512 bytes or a power of two times that."""
    return any(head[at:].startswith(_HDF5_MAGIC) for at in (0, 512, 1024, 2048)) and not is_mat(head, path)


def is_mat(head: bytes, path: Path) -> bool:
    """MATLAB's files from version 5 on; those of version 7.3 are HDF5 behind 512 bytes of text."""
    return head.startswith((b"MATLAB 5.0 MAT-file", b"MATLAB 7.3 MAT-file"))
