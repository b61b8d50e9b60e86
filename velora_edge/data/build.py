"""Packing a data set into one store of clips."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from velora_edge.data.clips.store import ClipStoreWriter
from velora_edge.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from velora_edge.data.clips.clips import ClipSource, Pairs

THREADS = 4


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
    """What is wrong by names, sizes, heads and tails: such as a frame that only one camera has."""
    for index in range(len(source)):
        yield from source.problems(index, deep=False)


def _place(problem: str) -> str:
    return problem.partition(": ")[0]


def _in_order(source: ClipSource, most_pairs: int | None) -> Iterator[Pairs | DatasetError]:
    """The recordings' pairs, read ahead by a few threads, or what was wrong with them."""
    if source.is_sequential:
        yield from (_read(source, index, most_pairs) for index in range(len(source)))
        return
    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(source), THREADS):
            indices = range(start, min(start + THREADS, len(source)))
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
