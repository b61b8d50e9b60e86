from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from toy_runs import SIDE, T

from velora_edge.data.clips.augment import AugmentConfig
from velora_edge.data.clips.clips import ClipSpec
from velora_edge.data.clips.store import ClipStore
from velora_edge.train.batches import (
    Batch,
    ClipDataset,
    Share,
    TrainSampler,
    Variety,
    collate,
    evaluation_batches,
    load,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MEMBERS = np.arange(100, 123, dtype=np.int64)


@pytest.fixture
def store(toy_clips: Path) -> Iterator[ClipStore]:
    opened = ClipStore(toy_clips, ClipSpec(length=T, image_size=(SIDE, SIDE)))
    yield opened
    opened.close()


def same(first: Batch, second: Batch) -> bool:
    pairs = zip(first.tensors(), second.tensors(), strict=True)
    return all((a is None and b is None) or torch.equal(a, b) for a, b in pairs)  # type: ignore[arg-type]


def test_an_epoch_takes_each_clip_at_most_once_in_whole_batches() -> None:
    batches = TrainSampler(MEMBERS, 5, seed=0, share=Share()).batches(epoch=0)
    numbers = [index for batch in batches for _, index in batch]
    assert [len(batch) for batch in batches] == [5, 5, 5, 5]
    assert len(set(numbers)) == 20
    assert set(numbers) <= set(MEMBERS.tolist())


def test_epochs_and_seeds_differ_in_order() -> None:
    sampler = TrainSampler(MEMBERS, 5, seed=0, share=Share())
    orders = [
        [i for batch in batches for _, i in batch]
        for batches in (
            sampler.batches(0),
            sampler.batches(1),
            TrainSampler(MEMBERS, 5, seed=1, share=Share()).batches(0),
        )
    ]
    assert orders[0] != orders[1]
    assert orders[0] != orders[2]
    assert orders[0] == [i for batch in sampler.batches(0) for _, i in batch]


def test_an_epoch_goes_on_from_any_step() -> None:
    sampler = TrainSampler(MEMBERS, 5, seed=0, share=Share())
    assert sampler.batches(3, first=2) == sampler.batches(3)[2:]


def test_two_processes_together_take_what_one_takes_with_twice_the_batch() -> None:
    whole = TrainSampler(MEMBERS, 6, seed=0, share=Share()).batches(2)
    halves = [TrainSampler(MEMBERS, 3, seed=0, share=Share(rank, 2)).batches(2) for rank in (0, 1)]
    assert [a + b for a, b in zip(*halves, strict=True)] == whole


def test_evaluation_shares_cover_everything_once() -> None:
    parts = [evaluation_batches(MEMBERS, 4, Share(rank, 3)) for rank in range(3)]
    numbers = sorted(index for part in parts for batch in part for _, index in batch)
    assert numbers == MEMBERS.tolist()


def test_a_clips_variation_follows_from_seed_epoch_and_number_alone(store: ClipStore) -> None:
    variety = Variety(AugmentConfig(shift=0.2, brightness=0.3), 0.3, 0.3, seed=1)
    first, second = ClipDataset(store, variety), ClipDataset(store, variety)
    _ = [first[(0, i)] for i in range(5)]
    assert same(collate([first[(4, 7)]]), collate([second[(4, 7)]]))
    assert not same(collate([first[(4, 7)]]), collate([first[(5, 7)]]))


def test_evaluation_gives_the_same_clip_in_every_epoch(store: ClipStore) -> None:
    plain = ClipDataset(store)
    assert same(collate([plain[(0, 3)]]), collate([plain[(9, 3)]]))


def test_cameras_are_dropped_at_their_rates_and_never_both(store: ClipStore) -> None:
    varied = ClipDataset(store, Variety(AugmentConfig(), 0.25, 0.5, seed=0))
    present = torch.cat([collate([varied[(epoch, 0)]]).present for epoch in range(400)])
    assert present.any(dim=1).all()
    assert float((~present[:, 0]).float().mean()) == pytest.approx(0.25, abs=0.06)
    assert float((~present[:, 1]).float().mean()) == pytest.approx(0.5, abs=0.06)


def test_a_clip_that_lacks_a_camera_holds_zeros_and_says_so(store: ClipStore) -> None:
    whole, without = ClipDataset(store), ClipDataset(store, Variety(AugmentConfig(), 1.0, 0.0, seed=0))
    batch = collate([whole[(0, 0)], without[(0, 1)]])
    assert batch.present.tolist() == [[True, True], [False, True]]
    assert batch.rgb is not None
    assert int(batch.rgb[1].sum()) == 0
    assert batch.label.tolist() == [0, 1]
    assert batch.index.tolist() == [0, 1]
    assert collate([without[(0, 1)]]).rgb is None


def test_workers_give_what_the_process_itself_gives(store: ClipStore) -> None:
    varied = ClipDataset(store, Variety(AugmentConfig(shift=0.2), 0.2, 0.2, seed=0))
    keys = TrainSampler(np.arange(16, dtype=np.int64), 4, 0, Share()).batches(0)
    alone, helped = list(load(varied, keys, 0)), list(load(varied, keys, 2))
    assert len(alone) == len(helped) == 4
    assert all(same(a, b) for a, b in zip(alone, helped, strict=True))


def test_loading_draws_nothing_from_the_global_generator(store: ClipStore) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    list(load(ClipDataset(store), [[(0, 0)]], 0))
    assert torch.equal(torch.rand(1), expected)


def test_part_of_a_batch_keeps_its_clips_together() -> None:
    batch = Batch(
        None,
        torch.arange(4).view(4, 1),
        torch.tensor([[False, True]] * 4),
        torch.arange(4) * 10,
        torch.arange(4) * 100,
    )
    part = batch[1:3]
    assert part.rgb is None
    assert part.event is not None
    assert part.event.tolist() == [[1], [2]]
    assert part.label.tolist() == [10, 20]
    assert len(part) == 2
