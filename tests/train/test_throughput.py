from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from velora_edge.train.batches import Batch
from velora_edge.train.throughput import Throughput, ThroughputMeter

if TYPE_CHECKING:
    from collections.abc import Iterator


def clips(count: int) -> Batch:
    return Batch(None, None, torch.zeros(count, 2), torch.zeros(count), torch.zeros(count))


class Clock:
    """Seconds that pass only where somebody says so."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def batches(self, waits_s: list[float]) -> Iterator[Batch]:
        """Batches of 4 clips, each after its time."""
        for wait_s in waits_s:
            self.now_s += wait_s
            yield clips(4)


def run_pass(meter: ThroughputMeter, clock: Clock, waits_s: list[float], step_s: float) -> None:
    for batch in meter.watch(clock.batches(waits_s)):
        clock.now_s += step_s
        meter.step_done(len(batch))


def test_clips_a_second_and_the_share_of_waiting() -> None:
    clock = Clock()
    meter = ThroughputMeter(clock=clock)
    run_pass(meter, clock, [0.5, 0.25, 0.25], step_s=1.0)
    assert meter.take() == Throughput(clips_per_s=3.0, data_wait=0.25)


def test_what_passes_between_two_passes_is_left_out() -> None:
    clock = Clock()
    meter = ThroughputMeter(clock=clock)
    run_pass(meter, clock, [1.0], step_s=1.0)
    first = meter.take()
    clock.now_s += 1000.0
    run_pass(meter, clock, [0.0], step_s=2.0)
    assert (first, meter.take()) == (Throughput(2.0, 0.5), Throughput(2.0, 0.0))
    assert meter.whole() == Throughput(2.0, 0.25)


def test_each_part_of_a_pass_counts_once() -> None:
    clock = Clock()
    meter = ThroughputMeter(clock=clock)
    taken = []
    for batch in meter.watch(clock.batches([1.0, 3.0])):
        clock.now_s += 1.0
        meter.step_done(len(batch))
        taken.append(meter.take())
    assert taken == [Throughput(2.0, 0.5), Throughput(1.0, 0.75)]
    assert meter.whole() == Throughput(8 / 6, 4 / 6)


def test_processes_that_train_together_count_their_clips_together() -> None:
    clock = Clock()
    meter = ThroughputMeter(processes=3, clock=clock)
    run_pass(meter, clock, [0.0], step_s=2.0)
    assert meter.take() == Throughput(6.0, 0.0)


def test_a_run_without_steps_has_no_throughput() -> None:
    assert ThroughputMeter().whole() is None


class Queue:
    """A GPU that reaches each mark `late_s` after it was put in the queue."""

    def __init__(self, clock: Clock, late_s: float) -> None:
        self.clock, self.late_s = clock, late_s

    def mark(self) -> Mark:
        return Mark(self)


class Mark:
    def __init__(self, queue: Queue) -> None:
        self.queue, self.reached_s = queue, float("nan")

    def record(self) -> None:
        self.reached_s = self.queue.clock.now_s + self.queue.late_s

    def synchronize(self) -> None:
        self.queue.clock.now_s = max(self.queue.clock.now_s, self.reached_s)

    def elapsed_time(self, end: Mark) -> float:
        return 1e3 * (end.reached_s - self.reached_s)


def test_a_gpu_that_waits_for_clips_is_not_in_steps() -> None:
    clock = Clock()
    meter = ThroughputMeter(make_mark=Queue(clock, late_s=0.0).mark, clock=clock)
    run_pass(meter, clock, [3.0, 3.0], step_s=1.0)
    assert meter.take() == Throughput(1.0, 0.75, 0.25)


def test_work_that_is_still_queued_is_waited_for() -> None:
    clock = Clock()
    meter = ThroughputMeter(make_mark=Queue(clock, late_s=2.0).mark, clock=clock)
    run_pass(meter, clock, [0.0], step_s=2.0)
    assert meter.take() == Throughput(1.0, 0.0, 0.5)


@pytest.mark.parametrize(
    ("throughput", "line"),
    [
        (Throughput(12.34, 0.051), "12.3 clips/s, 5% of the time waiting for clips"),
        (Throughput(210.0, 0.0, 0.98), "210 clips/s, 0% of the time waiting for clips, the GPU 98% in steps"),
    ],
)
def test_its_line_names_what_is_known(throughput: Throughput, line: str) -> None:
    assert str(throughput) == line


def test_its_figures_leave_out_a_gpu_that_is_not_there() -> None:
    assert Throughput(2.0, 0.5).figures() == {"clips_per_s": 2.0, "data_wait": 0.5}
    assert Throughput(2.0, 0.5, 0.25).figures() == {"clips_per_s": 2.0, "data_wait": 0.5, "gpu_share": 0.25}
