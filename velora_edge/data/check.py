"""What a data set holds and what is wrong with it, before anything is trained on it."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from velora_edge.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Callable

    from velora_edge.data.clips.clips import ClipSource

THREADS = 8


@dataclass(frozen=True)
class Report:
    """What was found.

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
    with ThreadPoolExecutor(1 if source.is_sequential else THREADS) as pool:
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
