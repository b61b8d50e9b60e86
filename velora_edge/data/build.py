"""Check of a data set before training, and its packing into one store of clips."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge.data.clips.store import ClipStoreWriter
from velora_edge.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from velora_edge.data.clips.clips import ClipSource, Pairs


CHECK_THREADS = 8


@dataclass(frozen=True)
class Report:
    """Result of a check.

    Attributes:
        kind: name of the set's layout.
        cameras: that recorded it.
        labels: class names.
        counts: recordings by class name and by published part ("-" where none is published).
        pairs: shortest, median and longest recording, pairs; None where a recording cannot be counted.
        problems: one sentence each, beginning with the place.
    """

    kind: str
    cameras: tuple[str, ...]
    labels: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    pairs: tuple[int, int, int] | None
    problems: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The report as plain values."""
        pairs = None if self.pairs is None else dict(zip(("min", "median", "max"), self.pairs, strict=True))
        return {
            "kind": self.kind,
            "cameras": list(self.cameras),
            "classes": len(self.labels),
            "recordings": sum(sum(parts.values()) for parts in self.counts.values()),
            "counts": self.counts,
            "pairs": pairs,
            "problems": list(self.problems),
        }


def check(source: ClipSource, *, deep: bool = True, tick: Callable[[], None] = lambda: None) -> Report:
    """Look at every recording.

    Args:
        source: the set.
        deep: decode every image and every event.
        tick: called after each recording.
    """

    def look(index: int) -> list[str]:
        found = source.problems(index, deep=deep)
        tick()
        return found

    problems = list(source.set_problems())
    with ThreadPoolExecutor(1 if source.is_sequential else CHECK_THREADS) as pool:
        for found in pool.map(look, range(len(source))):
            problems += found
    counts: dict[str, dict[str, int]] = {label: {} for label in source.labels}
    for item in source.items:
        of_class = counts[source.labels[item.label]]
        of_class[item.split or "-"] = of_class.get(item.split or "-", 0) + 1
    problems += [f"{label}: the class has no recordings" for label, parts in counts.items() if not parts]
    return Report(
        source.kind, source.cameras, source.labels, counts, _lengths(source), tuple(problems + _twice(source))
    )


def require_sound(source: ClipSource) -> None:
    """Look at every recording without decoding it.

    Raises:
        DatasetError: with everything that is wrong.
    """
    problems = list(check(source, deep=False).problems)
    problems = [problem for problem in problems if not problem.endswith("the class has no recordings")]
    if problems:
        raise DatasetError(problems, path=source.path, remedy="mend the set, or take these out of it")


def _lengths(source: ClipSource) -> tuple[int, int, int] | None:
    try:
        lengths = sorted(source.pairs(index) for index in range(len(source)))
    except DatasetError:
        return None
    return (lengths[0], lengths[len(lengths) // 2], lengths[-1]) if lengths else None


def _twice(source: ClipSource) -> list[str]:
    names = Counter(item.name for item in source.items)
    return [f"{name}: the name is given {count} times" for name, count in names.items() if count > 1]


BUILD_THREADS = 4


def build_store(
    source: ClipSource,
    path: Path,
    *,
    most_pairs: int | None = None,
    tick: Callable[[], None] = lambda: None,
) -> int:
    """Pack every recording of a set; the file is there once it is whole.

    Args:
        source: the set.
        path: where the store goes.
        most_pairs: of longer recordings, keep so many, evenly spread; None: all.
        tick: called after each recording.

    Returns:
        How many pairs were packed.

    Raises:
        DatasetError: with everything that could not be read; nothing is written then.
    """
    problems, packed = [*source.set_problems(), *_quick_problems(source)], 0
    places = {_place(problem) for problem in problems}
    with ClipStoreWriter(path, source.labels, source.cameras, source.spec, str(source.path)) as writer:
        for index, read in enumerate(_in_order(source, most_pairs)):
            if isinstance(read, DatasetError):
                problems += [problem for problem in read.problems if _place(problem) not in places]
            elif not problems:
                try:
                    packed += writer.add(source.items[index], read)
                except DatasetError as error:
                    problems += error.problems
            tick()
        if problems:
            remedy = "nothing was written; mend the set, or take these out of it"
            raise DatasetError(problems, path=source.path, remedy=remedy)
        writer.finish()
    return packed


def _quick_problems(source: ClipSource) -> Iterator[str]:
    """List problems by names, sizes, heads and tails, such as a frame that only one camera has."""
    for index in range(len(source)):
        yield from source.problems(index, deep=False)


def _place(problem: str) -> str:
    return problem.partition(": ")[0]


def _in_order(source: ClipSource, most_pairs: int | None) -> Iterator[Pairs | DatasetError]:
    """The recordings' pairs, read ahead by a few threads, or what was wrong with them."""
    if source.is_sequential:
        yield from (_read(source, index, most_pairs) for index in range(len(source)))
        return
    with ThreadPoolExecutor(BUILD_THREADS) as pool:
        for start in range(0, len(source), BUILD_THREADS):
            indices = range(start, min(start + BUILD_THREADS, len(source)))
            yield from pool.map(lambda index: _read(source, index, most_pairs), indices)


def _read(source: ClipSource, index: int, most_pairs: int | None) -> Pairs | DatasetError:
    try:
        pairs = source.pairs(index)
        which = np.arange(pairs, dtype=np.int64)
        if most_pairs is not None and pairs > most_pairs:
            which = ((np.arange(most_pairs) + 0.5) * pairs / most_pairs).astype(np.int64)
        return source.read(index, which)
    except DatasetError as error:
        return error
