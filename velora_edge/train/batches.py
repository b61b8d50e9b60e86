"""Batches whose content follows from the seed, the epoch and the step alone.

Not from the number of workers or processes, nor from where a run was interrupted: which clips make up a step
is a function of (seed, epoch), and each clip's variation one of (seed, epoch, clip). So a resumed run sees
what it would have seen, and two processes together see what one with twice the batch sees.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from velora_edge.data.clips.augment import apply, deform, draw, read_varied
from velora_edge.data.clips.clips import Pairs
from velora_edge.errors import VeloraError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from velora_edge.data.clips.augment import AugmentConfig
    from velora_edge.data.clips.clips import ClipSource
    from velora_edge.train.settings import TrainSection

_ORDER, _CLIP, _CORRUPTION = 0, 1, 2  # first words of the seeds of the kinds of generators
UNVARIED = -1
"""In place of an epoch: the clip as it is, for evaluation."""

Key = tuple[int, int]
"""A clip: (epoch, number in the data set)."""


@dataclass
class Batch:
    """Clips of one step.

    Attributes:
        rgb: uint8 [B, T, H, W, 3]; None where no clip has it. A clip that lacks it holds zeros.
        event: likewise.
        present: bool [B, 2], which cameras each clip has: rgb, event.
        label: int64 [B].
        index: int64 [B], the clips' numbers in the data set.
        numbers: int64 [B, T]; pairs of one number are the same images. None: each may be another.
    """

    rgb: torch.Tensor | None
    event: torch.Tensor | None
    present: torch.Tensor
    label: torch.Tensor
    index: torch.Tensor
    numbers: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.label)

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        moved = (None if part is None else part.to(device, non_blocking=True) for part in self.tensors())
        return Batch(*moved)  # type: ignore[arg-type]

    def tensors(self) -> tuple[torch.Tensor | None, ...]:
        """The parts in their order."""
        return self.rgb, self.event, self.present, self.label, self.index, self.numbers

    def __getitem__(self, which: slice) -> Batch:
        """Some of the clips."""
        parts = (None if part is None else part[which] for part in self.tensors())
        return Batch(*parts)  # type: ignore[arg-type]

    def pin_memory(self) -> Batch:
        """The same in memory that a GPU copies from; torch's loader calls it."""
        return Batch(*(None if part is None else part.pin_memory() for part in self.tensors()))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Variety:
    """Augmentation of a run's clips.

    Attributes:
        augment: geometry, light, noise and time.
        drop_rgb: share of clips whose RGB stream is left out.
        drop_event: share of clips whose event stream is left out.
        seed: of all draws.
    """

    augment: AugmentConfig
    drop_rgb: float
    drop_event: float
    seed: int


class ClipDataset(Dataset[tuple[Pairs, int, int]]):
    """Clips of a source by (epoch, number): varied, or as they are where the epoch is `UNVARIED`.

    Args:
        source: the data set.
        variety: how training clips are varied; None: not at all, whatever the epoch.
        blank: colour of an event image without events.
    """

    def __init__(
        self,
        source: ClipSource,
        variety: Variety | None = None,
        blank: tuple[int, int, int] = (255, 255, 255),
    ) -> None:
        self.source, self.variety, self.blank = source, variety, blank

    def __getitem__(self, key: Key) -> tuple[Pairs, int, int]:
        epoch, index = key
        label = self.source.items[index].label
        if self.variety is None or epoch == UNVARIED:
            return self.source.clip(index), label, index
        rng = np.random.default_rng((_CLIP, self.variety.seed, epoch, index))
        dice = np.random.default_rng((_CORRUPTION, self.variety.seed, epoch, index))
        pairs = read_varied(self.source, index, self.variety.augment, rng, dice)
        variation = draw(self.variety.augment, self.source.spec.image_size, rng)
        dropped = rng.random()
        variation = deform(variation, self.variety.augment, self.source.spec.image_size, rng)
        pairs = apply(pairs, variation, self.blank)
        return _drop(pairs, dropped, self.variety), label, index


def _drop(pairs: Pairs, drawn: float, variety: Variety) -> Pairs:
    """Leave out one camera where the draw says so; never the only one."""
    if pairs.rgb is None or pairs.event is None:
        return pairs
    if drawn < variety.drop_rgb:
        return Pairs(None, pairs.event)
    if drawn >= 1 - variety.drop_event:
        return Pairs(pairs.rgb, None)
    return pairs


def collate(clips: Sequence[tuple[Pairs, int, int]]) -> Batch:
    """Clips as one batch."""
    present = torch.tensor([[p.rgb is not None, p.event is not None] for p, _, _ in clips])
    label = torch.tensor([label for _, label, _ in clips])
    index = torch.tensor([index for _, _, index in clips])
    rgb = _stack([pairs.rgb for pairs, _, _ in clips])
    event = _stack([pairs.event for pairs, _, _ in clips])
    numbers = [pairs.numbers for pairs, _, _ in clips if pairs.numbers is not None]
    are_known = len(numbers) == len(clips)
    return Batch(
        rgb, event, present, label, index, torch.from_numpy(np.stack(numbers)) if are_known else None
    )


def _stack(images: Sequence[NDArray[np.uint8] | None]) -> torch.Tensor | None:
    shape = next((part.shape for part in images if part is not None), None)
    if shape is None:
        return None
    stacked = np.zeros((len(images), *shape), np.uint8)
    for row, part in zip(stacked, images, strict=True):
        if part is not None:
            row[:] = part
    return torch.from_numpy(stacked)


@dataclass(frozen=True)
class Share:
    """Share of every batch that this process takes.

    Attributes:
        rank: this process's number.
        processes: how many there are.
    """

    rank: int = 0
    processes: int = 1


class TrainSampler:
    """The clips of each step of one epoch, as this process's share of them; whole batches only.

    Args:
        members: int64[N], numbers of the training clips.
        batch_size: clips of a step, for each process.
        seed: of the order.
        share: this process's part.
    """

    def __init__(self, members: NDArray[np.int64], batch_size: int, seed: int, share: Share) -> None:
        self.members, self.batch_size, self.seed, self.share = members, batch_size, seed, share
        self.steps = len(members) // (batch_size * share.processes)
        """Steps in an epoch."""

    def batches(self, epoch: int, first: int = 0) -> list[list[Key]]:
        """Keys of the clips of each step of an epoch, from step `first` on."""
        order = np.random.default_rng((_ORDER, self.seed, epoch)).permutation(self.members)
        whole = self.batch_size * self.share.processes
        start = self.batch_size * self.share.rank
        return [
            [(epoch, int(i)) for i in order[step * whole + start :][: self.batch_size]]
            for step in range(first, self.steps)
        ]


class ClipLoader:
    """Reads batches of clips, ahead of need where it has workers, which live as long as it does.

    Single-threaded: one `read` at a time; the next one ends what is left of the one before.

    Args:
        dataset: the clips.
        workers: processes that read; 0: the caller's own.
        pin: put batches in memory that a GPU copies from while it computes.
    """

    def __init__(self, dataset: Dataset[Any], workers: int, *, pin: bool = False) -> None:
        self.workers = workers
        self._keys = _Keys()
        self._loader: DataLoader[Any] | None = DataLoader(
            _Reported(dataset),
            batch_sampler=self._keys,
            num_workers=workers,
            collate_fn=_collate_read,
            worker_init_fn=_begin_worker if workers else None,
            pin_memory=pin,
            persistent_workers=workers > 0,
            prefetch_factor=AHEAD if workers else None,
            generator=torch.Generator(),  # or making an iterator would draw from the global one
        )

    def read(self, batches: list[list[Key]]) -> Iterator[Batch]:
        """The batches, in their order.

        Args:
            batches: keys of each one's clips.

        Raises:
            DatasetError: if a clip cannot be read, as the data set raised it, whichever process read it.
        """
        assert self._loader is not None
        self._keys.batches = batches
        for batch in self._loader:
            if isinstance(batch, VeloraError):
                raise batch
            yield batch

    def close(self) -> None:
        """End the workers."""
        self._loader = None  # torch ends them with the last reference to its iterator


class _Keys:
    """Keys of the batches that a loader reads; torch asks for them at the beginning of each pass."""

    def __init__(self) -> None:
        self.batches: list[list[Key]] = []

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class _Reported(Dataset[Any]):
    """Clips by batches; an error of ours is given back as it is: torch would make a text of its traceback."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self._dataset = dataset

    def __getitems__(self, keys: list[Key]) -> list[tuple[Pairs, int, int]] | VeloraError:
        try:
            return [self._dataset[key] for key in keys]
        except VeloraError as error:
            return error


def _collate_read(clips: list[tuple[Pairs, int, int]] | VeloraError) -> Batch | VeloraError:
    return clips if isinstance(clips, VeloraError) else collate(clips)


def load(dataset: ClipDataset, batches: list[list[Key]], workers: int) -> Iterator[Batch]:
    """The batches of one pass, read ahead by `workers` processes."""
    return ClipLoader(dataset, workers).read(batches)


MOST_WORKERS, AHEAD = 8, 2
"""Workers that are taken unasked, at most, and batches that each one reads ahead."""
SHARED_MEMORY = Path("/dev/shm")


def count_workers(wanted: int | None, *, on_gpu: bool, batch_bytes: int) -> int:
    """Return how many processes read clips.

    Unasked, where a GPU trains: all cores but one, divided among the training processes of this host, as far
    as what is read ahead fits into half of the free shared memory (a container has 64 MB of it unless told
    otherwise). Where a CPU trains, none: it has no core that idles.

    Args:
        wanted: of the configuration; a number is taken as it is.
        on_gpu: whether a GPU trains.
        batch_bytes: of a batch.
    """
    if wanted is not None:
        return wanted
    if not on_gpu:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    share = (cores - 1) // processes
    if SHARED_MEMORY.is_dir():
        free = shutil.disk_usage(SHARED_MEMORY).free // processes
        share = min(share, free // 2 // ((AHEAD + 1) * batch_bytes))
    return min(MOST_WORKERS, share)


def evaluation_batches(
    members: NDArray[np.int64], batch_size: int, share: Share | None = None
) -> list[list[Key]]:
    """Keys of clips in their order, as this process's share of them; the last batch may be smaller."""
    share = share or Share()
    mine = members[share.rank :: share.processes]
    return [[(UNVARIED, int(i)) for i in mine[k : k + batch_size]] for k in range(0, len(mine), batch_size)]


def training_variety(config: TrainSection, augment: AugmentConfig) -> Variety:
    """Read the augmentation of a run's configuration."""
    return Variety(augment, config.drop_rgb, config.drop_event, config.seed)


def _begin_worker(worker: int) -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
