"""What must hold at the end: nothing unaccounted for, nothing grown, every refusal one line."""

from __future__ import annotations

import os
import re
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MOST_GROWTH_MB_MIN, MOST_GROWTH_MB = 1.0, 24.0
"""Memory may grow by the one or, in a short run, by the other: buffers of a camera that came back, say."""
MOST_MORE_DESCRIPTORS, MOST_MORE_THREADS = 4, 8
"""A viewer more, a camera that is just connecting; a recording's video encoder alone has six threads."""
LONGEST_LINE = 600
LINES_AT_LEAST, LINES_PER_FAULT = 30, 4


@dataclass(frozen=True)
class Sample:
    """The process at one moment.

    Attributes:
        s: since the beginning.
        rss_mb: resident memory.
        descriptors: that are open.
        threads: that it has.
    """

    s: float
    rss_mb: float
    descriptors: int
    threads: int

    @classmethod
    def of(cls, pid: int, s: float) -> Sample:
        """What /proc says now."""
        status = Path(f"/proc/{pid}/status").read_text()
        said = {key: int(value) for key, value in re.findall(r"(VmRSS|Threads):\s+(\d+)", status)}
        return cls(s, said["VmRSS"] / 1024, len(os.listdir(f"/proc/{pid}/fd")), said["Threads"])  # noqa: PTH208


def rise(samples: Sequence[Sample], value: Callable[[Sample], float]) -> float:
    """From the median of the first third to that of the last."""
    third = max(1, len(samples) // 3)
    first, last = samples[:third], samples[-third:]
    return statistics.median(map(value, last)) - statistics.median(map(value, first))


def grown(samples: Sequence[Sample]) -> list[str]:
    """What did not stay as it was, one sentence each."""
    minutes = (samples[-1].s - samples[0].s) / 60 * 2 / 3
    memory = rise(samples, lambda sample: sample.rss_mb)
    found = []
    if memory > max(MOST_GROWTH_MB, MOST_GROWTH_MB_MIN * minutes):
        found.append(f"memory has grown by {memory:.1f} MB in {minutes:.1f} minutes")
    for what, most, more in (
        ("descriptors", MOST_MORE_DESCRIPTORS, rise(samples, lambda sample: sample.descriptors)),
        ("threads", MOST_MORE_THREADS, rise(samples, lambda sample: sample.threads)),
    ):
        if more > most:
            found.append(f"{more:.0f} more {what}")
    return found


def unaccounted(report: dict[str, Any], predictions: int) -> list[str]:
    """Events, frames, pairs and predictions of which the summary does not tell what became."""
    found = []

    def equal(what: str, came: int, told: int) -> None:
        if came != told:
            found.append(f"{what}: {came:,} came, {told:,} are accounted for")

    events, frames = report["cameras"]["event"]["events"], report["cameras"]["rgb"]["frames"]
    seen = report["events"]["in_windows"] + report["events"]["skipped"]
    equal(
        "events",
        events["received"],
        seen + events["early"] + events["unread"] + sum(events["dropped"].values()),
    )
    unseen = frames["early"] + frames["overrun"] + frames["unread"]
    equal("frames", frames["received"], report["frames"]["read"] + unseen)
    equal("predictions", report["predictions"], predictions)
    return found


def untidy(said: str, faults: int, secrets: Sequence[str]) -> list[str]:
    """What is wrong with standard error: more than a line for each thing, a traceback, a secret."""
    lines = said.splitlines()
    found = [f"not a line of ours: {line[:200]}" for line in lines if not re.match(r"(velora|error): ", line)]
    found += [f"a line of {len(line)} characters: {line[:200]}" for line in lines if len(line) > LONGEST_LINE]
    if len(lines) > LINES_AT_LEAST + LINES_PER_FAULT * faults:
        found.append(f"{len(lines)} lines for {faults} faults")
    return found + ["a password or token was told" for secret in secrets if secret in said]
