"""Class names: those of the published data sets, which ship with the package, and those of a user's file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from velora_edge.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

PublishedSet = Literal["pokerevent", "hardvs"]


def published_class_names(kind: PublishedSet) -> tuple[str, ...]:
    """The names of a published set's classes, in the order of its labels; 114 of PokerEvent, 300 of HARDVS.

    Five of PokerEvent's stand twice in its publishers' list; here the second one is `NAME (2)`.
    """
    file = Path(__file__).parent / "assets" / f"{kind}_classes.txt"
    return make_distinct(file.read_text(encoding="utf-8").splitlines())


def class_names_for(classes: int) -> tuple[str, ...] | None:
    """The names of the published set that has so many classes; None where none has."""
    return next((names for names in map(published_class_names, _sets()) if len(names) == classes), None)


def make_distinct(names: Iterable[str]) -> tuple[str, ...]:
    """The names in their order; the second of two that are alike is called `NAME (2)`, and so on."""
    seen: Counter[str] = Counter()
    distinct = []
    for name in names:
        seen[name] += 1
        distinct.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return tuple(distinct)


def read_labels(path: Path) -> tuple[str, ...]:
    """The names in the file; empty lines are passed over.

    Raises:
        InputError: if the file cannot be read, holds no name, or one name twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"cannot be read as text: {error}", path=path, remedy="give one class name a line"
        ) from error
    labels = [line.strip() for line in lines if line.strip()]
    if not labels:
        raise InputError("holds no class name", path=path, remedy="give one class name a line")
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise InputError(f"names {twice!r} twice", path=path, remedy="give each class a name of its own")
    return tuple(labels)


def _sets() -> tuple[PublishedSet, ...]:
    return get_args(PublishedSet)
