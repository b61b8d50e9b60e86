"""Throughput of a training loop: clips a second, time spent waiting for clips, the GPU's time in steps."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from velora_edge.train.batches import Batch


@dataclass(frozen=True)
class Throughput:
    """Throughput of some steps.

    Attributes:
        clips_per_s: of all processes together.
        data_wait: share of the time in which the loop waited for the next batch, 0 to 1.
        gpu_share: share of the time in which the GPU was in a step, 0 to 1, gaps within a step included; the
            rest is what data and the saving of states cost it. None on a CPU.
    """

    clips_per_s: float
    data_wait: float
    gpu_share: float | None = None

    def figures(self) -> dict[str, float]:
        """As the record of a run has them."""
        found = {"clips_per_s": self.clips_per_s, "data_wait": self.data_wait}
        return found if self.gpu_share is None else {**found, "gpu_share": self.gpu_share}

    def __str__(self) -> str:
        gpu = "" if self.gpu_share is None else f", the GPU {self.gpu_share:.0%} in steps"
        return f"{self.clips_per_s:.3g} clips/s, {self.data_wait:.0%} of the time waiting for clips{gpu}"


class ThroughputMeter:
    """Times the steps of a training loop. Validation, between two passes, is left out.

    Single-threaded: the training loop only.

    Args:
        processes: that train together, each with as many clips.
        make_mark: makes points in the GPU's queue of work, as `torch.cuda.Event`; None on a CPU.
        clock: seconds.
    """

    def __init__(
        self,
        processes: int = 1,
        make_mark: Callable[[], Any] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._processes, self._make_mark, self._clock = processes, make_mark, clock
        self._since = clock()
        self._recent, self._whole = _Sums(), _Sums()
        self._marks: list[tuple[Any, Any]] = []
        self._begun: Any = None

    @classmethod
    def on(cls, device: torch.device, processes: int) -> ThroughputMeter:
        """The meter for training on a device."""
        timed = functools.partial(torch.cuda.Event, enable_timing=True)
        return cls(processes, timed if device.type == "cuda" else None)

    def watch(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches of one pass, with the time that each one was waited for counted."""
        self._since = asked = self._clock()
        for batch in batches:
            self._recent.waited += self._clock() - asked
            self._begun = self._mark()
            yield batch
            asked = self._clock()

    def step_done(self, clips: int) -> None:
        """All work of the batch that `watch` gave last is queued, or done."""
        self._recent.clips += clips
        end = self._mark()
        if self._begun is not None and end is not None:
            self._marks.append((self._begun, end))

    def take(self) -> Throughput:
        """Throughput since the last call or the beginning of the pass; waits for the GPU."""
        for begin, end in self._marks:
            end.synchronize()
            self._recent.on_gpu += begin.elapsed_time(end) / 1e3
        self._marks.clear()
        now = self._clock()
        self._recent.seconds, self._since = now - self._since, now
        taken, self._recent = self._recent, _Sums()
        self._whole.add(taken)
        return self._throughput(taken)

    def whole(self) -> Throughput | None:
        """Throughput of all steps that were taken; None where there were none."""
        return self._throughput(self._whole) if self._whole.clips else None

    def _mark(self) -> Any:
        if self._make_mark is None:
            return None
        mark = self._make_mark()
        mark.record()
        return mark

    def _throughput(self, sums: _Sums) -> Throughput:
        seconds = max(sums.seconds, 1e-9)
        gpu_share = None if self._make_mark is None else min(1.0, sums.on_gpu / seconds)
        return Throughput(self._processes * sums.clips / seconds, min(1.0, sums.waited / seconds), gpu_share)


@dataclass
class _Sums:
    """Sums over steps: this process's clips, and seconds: in all, of waiting, of the GPU in steps."""

    clips: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    on_gpu: float = 0.0

    def add(self, other: _Sums) -> None:
        self.clips += other.clips
        self.seconds += other.seconds
        self.waited += other.waited
        self.on_gpu += other.on_gpu
