"""Training, validation and test: three parts that share no recording, the same ones on every machine."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from velora_edge.config import Section
from velora_edge.data.clips.clips import SPLITS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from velora_edge.data.clips.clips import Item, Split


class SplitConfig(Section):
    """How recordings are divided where a set's publishers did not.

    Attributes:
        val: share that validation takes of each class's training recordings; it chooses the checkpoint.
        test: share that the test takes of each class, where no test part is published; read once, at the end.
        seed: another seed makes other parts.
    """

    val: float = Field(0.1, ge=0, lt=1)
    test: float = Field(0.2, ge=0, lt=1)
    seed: int = 0

    def problems(self) -> list[str]:
        """See `Section.problems`."""
        return (
            ["val: together with test must leave something to train on"] if self.val + self.test >= 1 else []
        )


def split_items(items: Sequence[Item], config: SplitConfig) -> dict[Split, NDArray[np.int64]]:
    """Which recordings make up each part: int64[n] numbers of items, ascending.

    Published parts are kept. Where a set publishes no test part, the test takes its share of each class; the
    same for validation, which is never taken from a published test part. A recording's part follows from its
    name, its class and the seed, not from the order of the files.
    """
    parts: dict[Split, list[int]] = {
        split: [i for i, item in enumerate(items) if item.split == split] for split in SPLITS
    }
    free = [i for i, item in enumerate(items) if item.split is None]
    if not parts["test"]:
        parts["test"], free = _take(items, free, config.test, f"test:{config.seed}")
    if not parts["val"]:
        pool = sorted(free + parts["train"])
        share = config.val / (1 - config.test) if free else config.val
        parts["val"], rest = _take(items, pool, share, f"val:{config.seed}")
        parts["train"] = rest
    else:
        parts["train"] += free
    return {split: np.array(sorted(parts[split]), np.int64) for split in SPLITS}


def fingerprint(items: Iterable[Item]) -> str:
    """A digest of a set's names and labels: the same for the same recordings, whatever folder they lie in."""
    digest = hashlib.sha256()
    for item in sorted(items, key=lambda item: item.name):
        digest.update(f"{item.name}\0{item.label}\n".encode())
    return digest.hexdigest()


def _take(items: Sequence[Item], pool: Sequence[int], share: float, salt: str) -> tuple[list[int], list[int]]:
    """Divide `pool` into what is taken, `share` of each class, and what is left."""
    by_class: dict[int, list[int]] = defaultdict(list)
    for index in pool:
        by_class[items[index].label].append(index)
    taken: list[int] = []
    for members in by_class.values():
        members.sort(key=lambda i: hashlib.sha256(f"{salt}:{items[i].name}".encode()).digest())
        taken += members[: round(share * len(members))]
    left = set(pool) - set(taken)
    return taken, sorted(left)
