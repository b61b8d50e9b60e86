"""Check of a data set before training, and its packing into one store of clips."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge import __version__
from velora_edge.bundle import values_sha256
from velora_edge.console import progress
from velora_edge.data.clips.store import ClipStore, ClipStoreWriter
from velora_edge.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from velora_edge.data.clips.clips import ClipSource, Pairs
    from velora_edge.data.layouts.recordings import RecordingSet


CHECK_THREADS = 8
LETTERS = 4
"""Names of fewer letters may differ by one and mean two things."""
LEAST_OF_A_CLASS = 3
"""One for each of train, val and test."""


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
        warnings: what may be meant otherwise, likewise.
    """

    kind: str
    cameras: tuple[str, ...]
    labels: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    pairs: tuple[int, int, int] | None
    problems: tuple[str, ...]
    warnings: tuple[str, ...] = ()

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
            "warnings": list(self.warnings),
        }


def check(source: ClipSource, *, deep: bool = True, tick: Callable[[], None] = lambda: None) -> Report:
    """Look at every recording.

    Args:
        source: the set.
        deep: decode every image and every event.
        tick: called after each recording.
    """

    def look(index: int) -> tuple[list[str], list[str]]:
        found = source.problems(index, deep=deep), source.warnings(index) if deep else []
        tick()
        return found

    problems, warnings = list(source.set_problems()), list(source.set_warnings())
    with ThreadPoolExecutor(1 if source.is_sequential else CHECK_THREADS) as pool:
        for wrong, odd in pool.map(look, range(len(source))):
            problems += wrong
            warnings += odd
    counts: dict[str, dict[str, int]] = {label: {} for label in source.labels}
    for item in source.items:
        of_class = counts[source.labels[item.label]]
        of_class[item.split or "-"] = of_class.get(item.split or "-", 0) + 1
    problems += [f"{label}: the class has no recordings" for label, parts in counts.items() if not parts]
    warnings += [*_alike(source.labels), *_too_small(counts)]
    lengths = _lengths(source)
    if lengths is not None:
        warnings += _too_short(source)
    return Report(
        source.kind,
        source.cameras,
        source.labels,
        counts,
        lengths,
        tuple(problems + _twice(source)),
        tuple(warnings),
    )


def require_sound(source: ClipSource) -> None:
    """Look at every recording without decoding it.

    Raises:
        DatasetError: with everything that is wrong.
    """
    problems = list(check(source, deep=False).problems)
    problems = [problem for problem in problems if not problem.endswith("the class has no recordings")]
    if problems:
        raise DatasetError(problems, path=source.path, remedy="mend the set, or set data.skip_damaged")


def _lengths(source: ClipSource) -> tuple[int, int, int] | None:
    try:
        lengths = sorted(source.pairs(index) for index in range(len(source)))
    except DatasetError:
        return None
    return (lengths[0], lengths[len(lengths) // 2], lengths[-1]) if lengths else None


def _twice(source: ClipSource) -> list[str]:
    names = Counter(item.name for item in source.items)
    return [f"{name}: the name is given {count} times" for name, count in names.items() if count > 1]


def _alike(labels: Sequence[str]) -> Iterator[str]:
    """Names of classes that may be meant to be one: they differ by case, spaces, or one letter."""
    for first, second in itertools.combinations(sorted(labels), 2):
        plain = [re.sub(r"[\s_-]", "", label).lower() for label in (first, second)]
        if plain[0] == plain[1] or (min(map(len, plain)) >= LETTERS and _differ_by_one(*plain)):
            yield f"{second}: differs from the class {first} by a letter at most: are they one?"


def _differ_by_one(first: str, second: str) -> bool:
    """Whether one letter put in, left out or replaced makes one word of the other; digits count as names."""
    if abs(len(first) - len(second)) > 1:
        return False
    short, long = sorted((first, second), key=len)
    at = next((k for k, letter in enumerate(short) if letter != long[k]), len(short))
    rest = short[at + 1 :] if len(short) == len(long) else short[at:]
    return rest == long[at + 1 :] and long[at].isalpha() and not short[at : at + 1].isdigit()


def _too_small(counts: dict[str, dict[str, int]]) -> Iterator[str]:
    """Classes that cannot be in all of train, val and test, where nobody has published a split."""
    for label, parts in counts.items():
        of_class = parts.get("-", 0)
        if 0 < of_class < LEAST_OF_A_CLASS and len(parts) == 1:
            recordings = f"{of_class} recording{'s' * (of_class > 1)}"
            yield f"{label}: {recordings}; train, val and test need one each: record more"


def _too_short(source: ClipSource) -> Iterator[str]:
    """Recordings in which a clip of the model does not fit, so that pairs are taken twice."""
    spec = source.spec
    span = spec.length if spec.sampling == "spread" else (spec.length - 1) * spec.stride + 1
    short = [(source.items[k].name, n) for k in range(len(source)) if (n := source.pairs(k)) < span]
    if short:
        name, pairs = min(short, key=lambda one: one[1])
        yield (
            f"{name}: {pairs} pairs, and a clip of the model spans {span}"
            + (f"; so do {len(short) - 1} more recordings" if len(short) > 1 else "")
            + ": record longer, or make clip_length or stride smaller"
        )


BUILD_THREADS = 4


def build_store(
    source: ClipSource,
    path: Path,
    *,
    most_pairs: int | None = None,
    skip: Callable[[str], None] | None = None,
    tick: Callable[[], None] = lambda: None,
) -> int:
    """Pack every recording of a set; the file is there once it is whole.

    Args:
        source: the set.
        path: where the store goes.
        most_pairs: of longer recordings, keep so many, evenly spread; None: all.
        skip: leave out recordings that cannot be read; called with each problem. None: any is an error.
        tick: called after each recording.

    Returns:
        How many pairs were packed.

    Raises:
        DatasetError: with everything that could not be read; nothing is written then. With `skip`, if nothing
            can be read.
    """
    problems, packed = [*source.set_problems()], 0
    if skip is None:
        problems += _quick_problems(source)
    else:
        _tell_all(problems, skip)
        problems = []
    places = {_place(problem) for problem in problems}
    labels, frames = source.labels, source.event_frames
    rate_hz = source.rate_hz if most_pairs is None else None
    with ClipStoreWriter(
        path, labels, source.cameras, source.spec, str(source.path), frames, rate_hz
    ) as writer:
        for index, read in enumerate(_in_order(source, most_pairs, np.arange(len(source)))):
            found: Sequence[str] = ()
            if isinstance(read, DatasetError):
                found = [problem for problem in read.problems if _place(problem) not in places]
            elif not problems:
                try:
                    packed += writer.add(source.items[index], read)
                except DatasetError as error:
                    found = error.problems
            if skip is None:
                problems += found
            else:
                _tell_all(found, skip)
            tick()
        if skip is not None and not packed:
            problems = ["no recording can be read"]
        if problems:
            remedy = "nothing was written; mend the set, or pass over what is damaged by --skip-damaged"
            raise DatasetError(problems, path=source.path, remedy=remedy)
        writer.finish()
    return packed


def pack_once(
    source: RecordingSet,
    folder: Path,
    *,
    skip_damaged: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> ClipStore:
    """The store of a set of recordings: the one that was packed of them before, or a new one.

    It is found again by a digest of the recordings' files and of the form of the images. The set is closed.

    Args:
        source: the set, with its packer.
        folder: where such stores are kept.
        skip_damaged: leave out recordings that cannot be read.
        say: gets one line, and what is left out.

    Raises:
        DatasetError: as `build_store`.
    """
    spec, name = source.spec, source.path.resolve().stem
    form = [__version__, spec.event.model_dump(mode="json"), spec.rgb.model_dump(mode="json")]
    facts = [source.digest(), *form, spec.image_size, spec.length * spec.stride, skip_damaged]
    file = folder / f"{name}-{values_sha256(facts)[:16]}.h5"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        say(f"{source.path}: packing {len(source)} recordings into {file}, where the next run finds them")
        skip = (lambda problem: say(f"left out: {problem}")) if skip_damaged else None
        with progress(len(source), "packing") as tick:
            build_store(source, file, skip=skip, tick=tick)
    else:
        say(f"{source.path}: packed before, in {file}")
    source.close()
    return ClipStore(file, spec)


def leave_out_damaged(
    source: ClipSource,
    members: NDArray[np.int64],
    tell: Callable[[str], None],
    tick: Callable[[], None] = lambda: None,
) -> NDArray[np.int64]:
    """Those of a set's recordings that can be read whole; each one is read once to find out.

    A set is divided before this, so that a recording's part does not change with what is damaged elsewhere.

    Args:
        source: the set.
        members: int64[N], numbers of recordings.
        tell: called with each problem of the set's lists, and of each recording that is left out.
        tick: called after each recording.

    Raises:
        DatasetError: if none is left.
    """
    _tell_all(source.set_problems(), tell)
    kept = []
    for index, read in zip(members, _in_order(source, None, members), strict=True):
        if isinstance(read, DatasetError):
            _tell_all(read.problems, tell)
        else:
            kept.append(index)
        tick()
    if not kept:
        raise DatasetError(["no recording can be read"], path=source.path, remedy="copy the set again")
    return np.array(kept, np.int64)


def _tell_all(problems: Sequence[str], tell: Callable[[str], None]) -> None:
    for problem in problems:
        tell(problem)


def _quick_problems(source: ClipSource) -> Iterator[str]:
    """List problems by names, sizes, heads and tails, such as a frame that only one camera has."""
    for index in range(len(source)):
        yield from source.problems(index, deep=False)


def _place(problem: str) -> str:
    return problem.partition(": ")[0]


def _in_order(
    source: ClipSource, most_pairs: int | None, members: NDArray[np.int64]
) -> Iterator[Pairs | DatasetError]:
    """The recordings' pairs, read ahead by a few threads, or what was wrong with them."""
    if source.is_sequential:
        yield from (_read(source, int(index), most_pairs) for index in members)
        return
    with ThreadPoolExecutor(BUILD_THREADS) as pool:
        for start in range(0, len(members), BUILD_THREADS):
            some = members[start : start + BUILD_THREADS]
            yield from pool.map(lambda index: _read(source, int(index), most_pairs), some)


def _read(source: ClipSource, index: int, most_pairs: int | None) -> Pairs | DatasetError:
    try:
        pairs = source.pairs(index)
        which = np.arange(pairs, dtype=np.int64)
        if most_pairs is not None and pairs > most_pairs:
            which = ((np.arange(most_pairs) + 0.5) * pairs / most_pairs).astype(np.int64)
        return source.read(index, which)
    except DatasetError as error:
        return error
