"""Options, state and results of a recorder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from velora_edge.preprocessing.folder import Facts


@dataclass(frozen=True, slots=True)
class RecordOptions:
    """Options of a recorder.

    Attributes:
        folder: a recording begins here with the run; None: when it is asked for.
        parent: later recordings and clips go to folders in this one, named by date and time.
        keep_us: how far back a clip reaches; 0: no clips.
        keep_bytes: that the last seconds may take in memory.
        waits: at pace max the pipeline waits for the recorder, and nothing is lost.
    """

    folder: Path | None = None
    parent: Path = Path("recordings")
    keep_us: int = 0
    keep_bytes: int = 256 << 20
    waits: bool = False


@dataclass(frozen=True, slots=True)
class RecordResult:
    """A recording or clip that has ended.

    Attributes:
        folder: where it is.
        why: why it ended: "asked for", "end of the run", "clip", or what went wrong.
        is_whole: nothing went wrong.
        facts: what its `recording.json` says.
        n_bytes: its size.
    """

    folder: Path
    why: str
    is_whole: bool
    facts: Facts
    n_bytes: int

    @property
    def seconds(self) -> float:
        """Time between its first frame or prediction and its last."""
        first_us, last_us = self.facts.first_us, self.facts.last_us
        return 0.0 if first_us is None or last_us is None else (last_us - first_us) / 1e6

    def line(self) -> str:
        """For people."""
        lost = "".join(f", {n:,} {what.replace('_', ' ')} lost" for what, n in self._lost() if n)
        return f"recorded {self.folder}: {self.seconds:.2f} s, {self.n_bytes / 1e6:.1f} MB, {self.why}{lost}"

    def as_dict(self) -> dict[str, object]:
        """For the summary; every value is a plain one."""
        return {
            "folder": str(self.folder),
            "why_ended": self.why,
            "whole": self.is_whole,
            "seconds": round(self.seconds, 6),
            "bytes": self.n_bytes,
            "counts": dict(self.facts.counts),
            "dropped": dict(self.facts.dropped),
        }

    def _lost(self) -> list[tuple[str, int]]:
        return [(what, n) for what, n in self.facts.dropped.items() if what != "gaps"]


@dataclass(frozen=True, slots=True)
class RecorderState:
    """State of a recorder.

    Attributes:
        folder: that is being written, None if there is none.
        n_bytes: written to it so far.
        frames: of video in it.
        seconds: between its first frame or prediction and its last.
        kept_us: how far back a clip would reach.
        kept_bytes: what the last seconds take.
        saving: clips that are being written.
        results: all that have ended, oldest first.
    """

    folder: Path | None = None
    n_bytes: int = 0
    frames: int = 0
    seconds: float = 0.0
    kept_us: int = 0
    kept_bytes: int = 0
    saving: int = 0
    results: tuple[RecordResult, ...] = ()
