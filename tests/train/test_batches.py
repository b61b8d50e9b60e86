from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset
from toy_runs import SIDE, T

from velora_edge.data.clips.augment import AugmentConfig
from velora_edge.data.clips.clips import ClipSpec, Pairs
from velora_edge.data.clips.store import ClipStore
from velora_edge.errors import DatasetError
from velora_edge.train import batches as module
from velora_edge.train.batches import (
    UNVARIED,
    Batch,
    ClipDataset,
    ClipLoader,
    Share,
    TrainSampler,
    Variety,
    collate,
    count_workers,
    evaluation_batches,
    load,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

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


def test_clips_of_an_evaluation_are_not_varied(store: ClipStore) -> None:
    varied = ClipDataset(store, Variety(AugmentConfig(shift=0.2, brightness=0.3), 1.0, 0.0, seed=1))
    ((key,),) = evaluation_batches(np.array([3], np.int64), 1)
    assert key == (UNVARIED, 3)
    assert same(collate([varied[key]]), collate([ClipDataset(store)[(0, 3)]]))


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


class ReaderIds(Dataset[Any]):
    """Clips whose label is the process that read them."""

    def __getitem__(self, key: tuple[int, int]) -> tuple[Pairs, int, int]:
        return Pairs(None, np.zeros((1, 1, 1, 3), np.uint8)), os.getpid(), key[1]


def one_by_one(count: int) -> list[list[tuple[int, int]]]:
    return [[(0, number)] for number in range(count)]


def test_workers_live_from_one_pass_to_the_next_and_end_with_their_loader() -> None:
    loader = ClipLoader(ReaderIds(), workers=2)
    passes = [{int(batch.label[0]) for batch in loader.read(one_by_one(4))} for _ in range(2)]
    assert passes[0] == passes[1]
    assert len(passes[0] - {os.getpid()}) == 2
    loader.close()
    for process in passes[0]:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_pass_that_was_broken_off_leaves_nothing_to_the_next(workers: int) -> None:
    loader = ClipLoader(ReaderIds(), workers)
    assert next(loader.read(one_by_one(6))).index.tolist() == [0]
    assert [batch.index.tolist() for batch in loader.read([[(1, 7)], [(1, 8), (1, 9)]])] == [[7], [8, 9]]
    loader.close()


class Damaged(Dataset[Any]):
    """Clips of which the second cannot be read."""

    def __getitem__(self, key: tuple[int, int]) -> tuple[Pairs, int, int]:
        if key[1] == 1:
            raise DatasetError(["a: cut off", "b: missing"], path=Path("set.h5"), remedy="copy it again")
        return ReaderIds()[key]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_the_data_comes_as_it_was_raised_whichever_process_read(workers: int) -> None:
    loader = ClipLoader(Damaged(), workers)
    reading = loader.read(one_by_one(3))
    assert next(reading).index.tolist() == [0]
    with pytest.raises(DatasetError) as caught:
        next(reading)
    assert str(caught.value) == "set.h5: a: cut off; b: missing; copy it again"
    assert caught.value.problems == ("a: cut off", "b: missing")
    loader.close()


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Sets how many cores, how many training processes and how much free shared memory this host has."""

    def have(cores: int, processes: int = 1, shared_mb: int | None = 10_000) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
        monkeypatch.setattr(module, "SHARED_MEMORY", tmp_path / "none" if shared_mb is None else tmp_path)
        free = SimpleNamespace(free=(shared_mb or 0) * 10**6)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: free)

    return have


BATCH = 20 * 10**6


def test_workers_that_are_asked_for_are_taken(host: Any) -> None:
    host(1)
    assert count_workers(3, on_gpu=False, batch_bytes=BATCH) == 3
    assert count_workers(0, on_gpu=True, batch_bytes=BATCH) == 0


@pytest.mark.parametrize(
    ("cores", "processes", "expected"), [(1, 1, 0), (2, 1, 1), (6, 1, 5), (64, 1, 8), (16, 4, 3), (8, 8, 0)]
)
def test_a_gpu_is_fed_by_the_cores_that_its_process_has_left(
    cores: int, processes: int, expected: int, host: Any
) -> None:
    host(cores, processes)
    assert count_workers(None, on_gpu=True, batch_bytes=BATCH) == expected


def test_a_cpu_that_trains_reads_by_itself(host: Any) -> None:
    host(16)
    assert count_workers(None, on_gpu=False, batch_bytes=BATCH) == 0


@pytest.mark.parametrize(("shared_mb", "expected"), [(64, 0), (130, 1), (500, 4), (None, 8)])
def test_workers_do_not_read_ahead_more_than_shared_memory_holds(
    shared_mb: int | None, expected: int, host: Any
) -> None:
    host(64, shared_mb=shared_mb)
    assert count_workers(None, on_gpu=True, batch_bytes=BATCH) == expected


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


HARSH = AugmentConfig(
    noise=0.1, hot_pixels=0.02, rgb_noise=0.1, stale_rgb=0.5, window=1.0, warp=0.5, delay_pairs=1
)


def test_noise_and_time_follow_from_seed_epoch_and_number_alone(store: ClipStore) -> None:
    variety = Variety(HARSH, 0.0, 0.0, seed=1)
    first, second = ClipDataset(store, variety), ClipDataset(store, variety)
    _ = [first[(0, i)] for i in range(5)]
    assert same(collate([first[(4, 7)]]), collate([second[(4, 7)]]))
    assert not same(collate([first[(4, 7)]]), collate([first[(5, 7)]]))


def test_noise_changes_neither_the_geometry_nor_the_cameras_that_are_dropped(store: ClipStore) -> None:
    calm, noisy = (AugmentConfig(shift=0.2, hot_pixels=hot) for hot in (0.0, 1e-9))
    datasets = [ClipDataset(store, Variety(augment, 0.3, 0.3, seed=1)) for augment in (calm, noisy)]
    for epoch in range(20):
        first, second = (collate([dataset[(epoch, 3)]]) for dataset in datasets)
        assert same(first, second)
