"""What a file from elsewhere may ask for: memory before it has shown data, nesting, numbers, other files.

One budget for all readers. A header may announce anything; a reader asks the budget before it allocates what
a header announces, and passes the file over or refuses it where that is out of proportion to the file. JSON,
YAML and whole numbers from files are read here too, so that whatever stands in them gives one `ValueError`.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import stat
from typing import TYPE_CHECKING, Any

from velora_edge.errors import RecordingError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from os import PathLike
    from pathlib import Path

ASSUMED_BYTES = 64 << 20
"""Any file may ask for so much, however small it is."""
RATIO = 16
"""And for so many times its own size, which no compression of events reaches."""
STREAMED_RATIO = 64
"""The same for what is decompressed in all while a file is read through, a piece at a time."""
LARGEST_PICTURE = 1 << 26
"""Pixels of a picture or a video's frame."""
LARGEST_TEXT = 64 << 20
"""Bytes of a file that is read as one text: JSON, a list of times."""
LARGEST_YAML = 1 << 20
"""Bytes of a YAML file, which take a second or so each megabyte."""
DEEPEST = 100
"""Levels of lists and mappings in each other."""
MOST_NODES = 1_000_000
"""Values of a YAML text once its aliases are written out."""
LARGEST_TIME = 1 << 62
"""Times in files lie between this and its negative, microseconds."""
FOLLOW_VARIABLE = "VELORA_FOLLOW_LINKS"
"""Set to 1 by users who let recordings and bundles name files outside of themselves."""
_LONGEST_INT = 20
_MOST_LINKS = 16
_ASSUMED_PIXELS, _PIXELS_A_BYTE = 1 << 24, 256


def check_request(path: Path, n_bytes: int, what: str, place: str = "") -> None:
    """Nothing, if the file may ask for so much at once.

    Raises:
        RecordingError: otherwise; names what asks.
    """
    Budget(path).check(n_bytes, what, place)


class Budget:
    """What one file may ask for.

    Args:
        path: the file.
        ratio: how many times its size all that is spent may come to; at once it is `RATIO` times at most.
        size: bytes, where `path` is a folder.

    Attributes:
        path: the file, for errors.
    """

    def __init__(self, path: Path, ratio: int = RATIO, *, size: int | None = None) -> None:
        self.path = path
        known = path.stat().st_size if size is None else size
        self._left, self._at_once = allowance(known, ratio), allowance(known)

    @property
    def left(self) -> int:
        """Bytes that may be asked for now."""
        return min(self._left, self._at_once)

    def check(self, n_bytes: int, what: str, place: str = "") -> None:
        """Nothing, if the file may ask for so much at once.

        Raises:
            RecordingError: otherwise; names what asks.
        """
        if n_bytes > self.left:
            raise RecordingError(
                f"{what} would take {n_bytes:,} bytes, out of proportion to a file of this size",
                path=self.path,
                place=place,
                remedy="the file is damaged, or made to exhaust memory; copy or record it again",
            )

    def spend(self, n_bytes: int, what: str, place: str = "") -> None:
        """As `check`, for what is kept: all that is spent together may be no more.

        Raises:
            RecordingError: as `check`.
        """
        self.check(n_bytes, what, place)
        self._left -= n_bytes


def allowance(size: int, ratio: int = RATIO) -> int:
    """Bytes that a file of `size` bytes may ask for."""
    return ASSUMED_BYTES + ratio * size


def check_picture(width: int, height: int, n_bytes: int = LARGEST_PICTURE) -> None:
    """Nothing, if a picture of that size is read.

    Args:
        width: pixels.
        height: pixels.
        n_bytes: that it is packed in, where that is known.

    Raises:
        ValueError: if it is larger than `LARGEST_PICTURE`, or out of proportion to its bytes.
    """
    most = min(LARGEST_PICTURE, _ASSUMED_PIXELS + _PIXELS_A_BYTE * n_bytes)
    if width * height > most:
        raise ValueError(f"a picture of {width}x{height} pixels; {most:,} are the most")


def read_bytes(path: str | PathLike[str], *, most: int = LARGEST_TEXT) -> bytes:
    """All of a file.

    Raises:
        OSError: if it cannot be read, or is a pipe or a device.
        ValueError: if it is longer than `most`.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would be waited for
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a plain file")
        data = file.read(most + 1) if status.st_size <= most else b""
    if len(data) > most or status.st_size > most:
        raise ValueError(f"longer than {most:,} bytes")
    return data


def read_text(path: str | PathLike[str], *, most: int = LARGEST_TEXT) -> str:
    """A file's text, UTF-8; a byte order mark is left out.

    Raises:
        OSError: if it cannot be read, or is a pipe or a device.
        ValueError: if it is too long, or not UTF-8.
    """
    data = read_bytes(path, most=most)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start:,}") from None


def load_json(text: str | bytes) -> Any:
    """The value that a JSON text holds.

    Raises:
        ValueError: if it is none, nests deeper than `DEEPEST`, or holds what other programs could not read:
            NaN, numbers beyond 64 bits, halves of surrogate pairs. The message is one line.
    """
    try:
        value = json.loads(text, parse_constant=_refuse_constant, parse_int=_parse_json_int)
    except RecursionError:
        raise ValueError(f"nested deeper than {DEEPEST} levels") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start:,}") from None
    except ValueError as error:
        raise ValueError(_first_line(error)) from None
    _check_tree(value)
    return value


def load_yaml(text: str, loader: type[Any] | None = None) -> Any:
    """The value that a YAML text holds, None for an empty one.

    Args:
        text: one document.
        loader: a subclass of `yaml.SafeLoader`; None for that itself.

    Raises:
        ValueError: if it is none, or nests or repeats itself beyond `DEEPEST` and `MOST_NODES`. The message
            is one line, and tells the line of the text where that is known.
    """
    import yaml

    try:
        reader = _bounded(loader or yaml.SafeLoader)(text)
        try:
            node = reader.get_single_node()
            if node is None:
                return None
            _check_nodes(node)
            value = _construct(reader, node)
        finally:
            reader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        raise ValueError(f"{where}{_first_line(error.problem or error.context or error)}") from None
    except RecursionError:
        raise ValueError(f"nested deeper than {DEEPEST} levels") from None
    except yaml.YAMLError as error:
        raise ValueError(_first_line(error)) from None
    _check_tree(value)
    return value


def _bounded(loader: type[Any]) -> type[Any]:
    """The loader, which gives up where it nests too deeply: the time that it takes is quadratic in that."""

    class Bounded(loader):
        def fetch_flow_collection_start(self, token: Any) -> None:
            if self.flow_level >= DEEPEST:
                raise RecursionError
            super().fetch_flow_collection_start(token)

        def add_indent(self, column: int) -> bool:
            if len(self.indents) >= DEEPEST:
                raise RecursionError
            return bool(super().add_indent(column))

    return Bounded


def _construct(reader: Any, node: Any) -> Any:
    try:
        return reader.construct_document(node)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        raise ValueError(f"a value that cannot be read ({_first_line(error)})") from None


def parse_int(text: str, most: int = LARGEST_TIME) -> int | None:
    """The whole number that a text is, None if it is none or farther from 0 than `most`."""
    digits = text.strip()
    if not re.fullmatch(r"[+-]?[0-9]{1,20}", digits):
        return None
    number = int(digits)
    return number if -most <= number <= most else None


def may_follow_links() -> bool:
    """Whether files may name other files anywhere: the user said so by `VELORA_FOLLOW_LINKS`."""
    return os.environ.get(FOLLOW_VARIABLE, "") not in ("", "0")


def check_inside(path: Path, folder: Path) -> None:
    """Nothing, if `path` lies in `folder` once all links are followed, or the user lets links be followed.

    Raises:
        RecordingError: if it leads out of the folder.
    """
    if may_follow_links():
        return
    try:
        found = path.resolve()
    except (OSError, ValueError, RuntimeError) as error:  # a name that no file can have, a circle of links
        raise RecordingError(f"leads nowhere ({error})", path=path, remedy="correct the name") from error
    if not found.is_relative_to(folder.resolve()):
        raise RecordingError(f"leads out of its folder, to {found}", path=path, remedy=follow_remedy())


def follow_remedy() -> str:
    """How to ask for files that name others."""
    return f"set {FOLLOW_VARIABLE}=1 if you trust whoever made it"


def inside(group: Any, name: str, depth: int = 0) -> Any:
    """The object of that name in the group, None if there is none in this file.

    Links to other files are not followed, unless the user lets them be.
    """
    import h5py

    if may_follow_links():
        return group.get(name)
    node = group.file if name.startswith("/") else group
    for part in filter(None, name.split("/")):
        links = node.id.links if isinstance(node, h5py.Group) else None
        key = part.encode("utf-8", "surrogateescape")
        if links is None or not links.exists(key):
            return None
        kind = links.get_info(key).type
        if kind == h5py.h5l.TYPE_HARD:
            node = node.get(part)
        elif kind == h5py.h5l.TYPE_SOFT and depth < _MOST_LINKS:
            node = inside(node, links.get_val(key).decode("utf-8", "replace"), depth + 1)
        else:
            return None
    return node


def is_inside(dataset: Any) -> bool:
    """Whether a dataset keeps its content itself, or the user lets it name other files."""
    return may_follow_links() or not (dataset.external or dataset.is_virtual)


def check_stored(path: Path, dataset: Any) -> None:
    """Nothing, if a dataset's content is in this file, and its chunks are in proportion to it.

    Raises:
        RecordingError: otherwise.
    """
    if not is_inside(dataset):
        where = f"in another file, {dataset.external[0][0]}" if dataset.external else ""
        problem = f"keeps its content {where}" if where else "is put together of other datasets"
        raise RecordingError(problem, path=path, place=dataset.name, remedy=follow_remedy())
    if dataset.chunks:
        chunk_bytes = math.prod(dataset.chunks) * dataset.dtype.itemsize
        check_request(path, chunk_bytes, "one chunk", dataset.name)


def is_in_proportion(dataset: Any) -> bool:
    """Whether all of a dataset may be read at once."""
    n_bytes = int(dataset.size or 0) * dataset.dtype.itemsize
    return n_bytes <= allowance(dataset.file.id.get_filesize())


def _check_tree(value: Any) -> None:
    """Refuse values that nest too deeply, or whose strings cannot be written down."""
    level: list[Any] = [value]
    for _ in range(DEEPEST):
        below: list[Any] = []
        for node in level:
            below.extend(_children(node))
        if not below:
            return
        level = below
    raise ValueError(f"nested deeper than {DEEPEST} levels")


def _children(node: Any) -> Iterable[Any]:
    if isinstance(node, dict):
        return [*node.keys(), *node.values()]
    if isinstance(node, (list, tuple, set)):
        return node
    if isinstance(node, str) and not node.isascii():
        try:
            node.encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("a text with half of a surrogate pair") from None
    return ()


def _parse_json_int(text: str) -> int:
    if len(text) > _LONGEST_INT:
        raise ValueError(f"a number of {len(text):,} digits")
    return int(text)


def _check_nodes(root: Any) -> None:
    """Refuse a graph of YAML nodes that is too large once aliases are written out, or that holds itself."""
    sizes: dict[int, float] = {}
    stack: list[tuple[Any, bool]] = [(root, False)]
    while stack:
        node, is_seen = stack.pop()
        children = _node_children(node)
        if is_seen:
            sizes[id(node)] = 1 + sum(sizes[id(child)] for child in children)
            if math.isinf(sizes[id(node)]):
                raise ValueError("a value that holds itself")
            if sizes[id(node)] > MOST_NODES:
                raise ValueError(f"aliases that stand for more than {MOST_NODES:,} values")
        elif id(node) not in sizes:
            sizes[id(node)] = math.inf  # found again before it is done: it holds itself
            stack.append((node, True))
            stack.extend((child, False) for child in children)


def _node_children(node: Any) -> list[Any]:
    value = node.value
    if not isinstance(value, list):
        return []
    return [part for item in value for part in (item if isinstance(item, tuple) else (item,))]


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _first_line(error: object) -> str:
    return (str(error) or type(error).__name__).strip().partition("\n")[0][:200]
