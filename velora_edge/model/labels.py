"""Class names from a text file, one a line, in the order of the logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from velora_edge.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path


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
