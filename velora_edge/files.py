"""Files of our own: where they lie, and how they appear whole.

They are written beside their place, brought to the disk, and then moved there.

A file under construction is `.NAME.xxxxxxxx.part` in the folder of NAME, made anew (never through a link) and
locked while its writer lives. What a killed process left is recognised by its free lock, and removed by the
next one that writes NAME.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
import struct
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

_PART = ".part"
_TRIES = 100


def cache_home() -> Path:
    """The user's folder for files that can be made again: `$XDG_CACHE_HOME`, else `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def replace_file(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Give a file new content: a reader sees the old one or the new one, whole, also after a power cut.

    Args:
        path: in a folder that exists.
        data: all of it.
        mode: its permissions.

    Raises:
        OSError: if it cannot be written; what was there before is still there, and nothing beside it.
    """
    with PartFile(path) as part:
        part.path.chmod(mode)  # before there is anything in it that others may not read
        part.path.write_bytes(data)
        part.commit()


class _Part(ABC):
    """A file or folder under construction, locked while its writer lives."""

    path: Path
    _lock: int

    @abstractmethod
    def _remove(self) -> None:
        """Remove what is under construction."""

    def discard(self) -> None:
        """Remove it, unless it was moved to its place; does nothing the second time."""
        if self._lock >= 0:
            self._remove()
            self._unlock()

    def _unlock(self) -> None:
        os.close(self._lock)
        self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()


class PartFile(_Part):
    """A file under construction, empty at first; whoever writes it opens `path` by its name.

    Use as a context manager, or call `commit` or `discard`. Single-threaded.

    Args:
        target: the place that it goes to.
        ending: of its name, where a library wants a certain one.

    Attributes:
        path: where it is written.

    Raises:
        OSError: if the folder cannot be written to; from `commit` too, and then nothing is left of it.
    """

    def __init__(self, target: Path, ending: str = "") -> None:
        self._target = target
        remove_leftovers(target)
        self.path, self._lock = _create(target, _PART + ending)

    def commit(self) -> None:
        """Bring the content to the disk and move the file to its place."""
        try:
            _sync(self.path)
            self.path.replace(self._target)
            sync_folder(self._target.parent)
        except OSError:
            self.discard()
            raise
        self._unlock()

    def _remove(self) -> None:
        self.path.unlink(missing_ok=True)


class PartFolder(_Part):
    """A folder under construction, empty at first. Used as `PartFile` is.

    Args:
        target: the place that it goes to; an older folder there is replaced.

    Attributes:
        path: where it is written.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        remove_leftovers(target)
        for _ in range(_TRIES):
            self.path = _part_name(target, _PART)
            with contextlib.suppress(FileExistsError):
                self.path.mkdir(mode=0o700)
                break
        self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        with contextlib.suppress(OSError):  # no locks on this file system: then nobody removes it either
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def commit(self) -> None:
        """Bring all of it to the disk and move the folder to its place."""
        replace_folder(self.path, self._target)
        self._unlock()

    def _remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def replace_folder(new: Path, target: Path) -> None:
    """Move the finished folder `new` to `target`; what was there goes once the new one has its place.

    Both must lie on one file system. Killed at any moment, one of the two is there whole: at `target`, or the
    old one beside it, as `.TARGET.old`.
    """
    for folder, _, names in os.walk(new):
        for name in names:
            _sync(Path(folder, name))
        sync_folder(Path(folder))
    new.chmod(0o755)
    old = target.with_name(f".{target.name}.old")
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
    new.rename(target)
    sync_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Return once the disk has the folder's names."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that know no such thing
            raise
    finally:
        os.close(descriptor)


def remove_leftovers(target: Path) -> None:
    """Remove the parts of `target` that processes left that are gone; never raises."""
    pattern = re.compile(re.escape(f".{target.name}.") + r"[0-9a-f]{8}\.part(\.[a-z0-9]+)?")
    with contextlib.suppress(OSError):
        for place in target.parent.iterdir():
            if pattern.fullmatch(place.name) and not place.is_symlink():
                with contextlib.suppress(OSError):
                    _remove_if_free(place)


def _remove_if_free(place: Path) -> None:
    if place.is_dir():
        lock = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(place, ignore_errors=True)
        finally:
            os.close(lock)
        return
    lock = os.open(place, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        _lock_file(lock)
        place.unlink()
    finally:
        os.close(lock)


def _create(target: Path, ending: str) -> tuple[Path, int]:
    """A new file beside `target`, and a descriptor that keeps it locked."""
    for _ in range(_TRIES):
        place = _part_name(target, ending)
        try:
            lock = os.open(place, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
        except FileExistsError:
            continue
        with contextlib.suppress(OSError):  # no locks on this file system: then nobody removes it either
            _lock_file(lock)
        return place, lock
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))


def _part_name(target: Path, ending: str) -> Path:
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}{ending}")


def _lock_file(descriptor: int) -> None:
    """Lock a file for as long as the descriptor is open (`fcntl(2)`, open file description locks).

    Not by `flock`, which HDF5 asks for itself on every file that it opens.

    Raises:
        OSError: if somebody has locked it, or the file system knows no such locks.
    """
    whole = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, whole)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
