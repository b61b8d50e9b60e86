from __future__ import annotations

import numpy as np
import pytest

from velora_edge.data.clips.clips import Item, SplitConfig, fingerprint, split_items


def items(count: int, classes: int = 2) -> list[Item]:
    return [Item(f"clip{i}", i % classes) for i in range(count)]


def test_parts_share_nothing_and_cover_everything() -> None:
    parts = split_items(items(40), SplitConfig())
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(40))


def test_every_class_gives_its_share_to_each_part() -> None:
    every = items(60, classes=3)
    parts = split_items(every, SplitConfig(val=0.2, test=0.25))
    labels = {split: np.bincount([every[i].label for i in which]).tolist() for split, which in parts.items()}
    assert labels == {"train": [11, 11, 11], "val": [4, 4, 4], "test": [5, 5, 5]}


def test_a_recordings_part_does_not_depend_on_the_order_of_files() -> None:
    every = items(40)
    forward = split_items(every, SplitConfig())
    backward = split_items(every[::-1], SplitConfig())
    for split, which in forward.items():
        names = {every[i].name for i in which}
        assert names == {every[::-1][i].name for i in backward[split]}


def test_another_seed_makes_other_parts() -> None:
    first, second = (split_items(items(40), SplitConfig(seed=seed)) for seed in (0, 1))
    assert first["test"].tolist() != second["test"].tolist()


def test_published_parts_are_kept_and_validation_comes_out_of_training() -> None:
    every = [Item(f"clip{i}", 0, "test" if i < 10 else "train") for i in range(30)]
    parts = split_items(every, SplitConfig(val=0.2))
    assert parts["test"].tolist() == list(range(10))
    assert len(parts["val"]) == 4
    assert set(parts["val"]) | set(parts["train"]) == set(range(10, 30))


def test_published_validation_is_kept() -> None:
    every = [Item(f"clip{i}", 0, ("train", "val", "test")[i % 3]) for i in range(9)]
    parts = split_items(every, SplitConfig())
    assert {split: which.tolist() for split, which in parts.items()} == {
        "train": [0, 3, 6],
        "val": [1, 4, 7],
        "test": [2, 5, 8],
    }


def test_a_share_of_nothing_takes_nothing() -> None:
    parts = split_items(items(10), SplitConfig(val=0, test=0))
    assert {split: len(which) for split, which in parts.items()} == {"train": 10, "val": 0, "test": 0}


def test_shares_that_leave_nothing_to_train_on_are_a_problem() -> None:
    assert SplitConfig(val=0.5, test=0.5).problems() == [
        "val: together with test must leave something to train on"
    ]


def test_the_fingerprint_follows_names_and_labels_not_the_order() -> None:
    every = items(5)
    assert fingerprint(every) == fingerprint(every[::-1])
    assert fingerprint(every) != fingerprint([*every[:4], Item("clip4", 1)])


@pytest.mark.parametrize("field", ["val", "test"])
def test_a_share_lies_between_0_and_1(field: str) -> None:
    with pytest.raises(ValueError, match="less than 1"):
        SplitConfig(**{field: 1.0})
