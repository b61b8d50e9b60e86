"""Parts of the GPU check in the order of their worth, and the loop that runs them against a deadline."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

LEAST_S = 10.0
"""A part is not begun with less left: a process needs as much to start and to open its backends."""
TESTS_S = 45.0
"""Kept for the tests at the end."""
PART_S = 100.0
"""The most that a part may take before it is tried without the backend that holds it up."""
NOT_REACHED = "not reached: the time was up"


@dataclass(frozen=True)
class Part:
    """What one process measures.

    Attributes:
        model: its name in the preparation.
        precision: of the graphs.
        kind: `backends`, side by side; `compiled`, torch.compile beside torch; `card`, its facts and rate.
    """

    model: str
    precision: str
    kind: str = "backends"

    @property
    def name(self) -> str:
        """For people, and for the file of results."""
        words = (self.model, self.precision, "" if self.kind == "backends" else self.kind)
        return " ".join(word for word in words if word)


CARD = Part("", "", "card")
_ORDER = (
    *(("demo", "fp16"), ("vit-s", "fp16"), ("vit-s", "int8"), ("demo", "int8")),
    *(("vit-b", "fp16"), ("vit-b", "int8"), ("vit-s", "fp8"), ("vit-s", "bf16"), ("vit-s", "fp32")),
    *(("vit-s", "bf16", "compiled"), ("vit-b", "fp8"), ("demo", "fp32"), ("demo", "bf16"), ("demo", "fp8")),
    *(("vit-b", "bf16"), ("vit-b", "fp32"), ("vit-b", "bf16", "compiled")),
    *(("vit-s", "fp16", "compiled"), ("vit-s", "fp32", "compiled"), ("vit-b", "fp16", "compiled")),
)


def plan(models: Sequence[str], precisions: Sequence[str]) -> list[Part]:
    """The card, then every part of these models and precisions, the most valuable first."""
    parts = [Part(*words) for words in _ORDER]
    return [CARD, *(part for part in parts if part.model in models and part.precision in precisions)]


@dataclass
class Row:
    """One line of the table.

    Attributes:
        model, precision, backend: what was run.
        graph: `step`, one pair of a stream, or `clip`, a whole clip at once; empty where nothing ran.
        cuda_graph: replayed as a CUDA graph; None where that has no meaning.
        p50_ms, p99_ms: from the images on the host to the logits on the host.
        runs: how many were timed.
        host_ms: in which the host was busy, copying and queueing, and did not wait; median.
        share: of the card's bf16 rate that the graph's arithmetic was done at.
        relative: largest difference of a logit from fp32 on the CPU, by the largest logit.
        same_label: the best label is fp32's.
        layers: what the compiled layers compute in, attention fused, what fell back.
        reason: why there are no figures, or what is to be known of them.
    """

    model: str
    precision: str
    backend: str
    graph: str = ""
    cuda_graph: bool | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    runs: int = 0
    host_ms: float | None = None
    share: float | None = None
    relative: float | None = None
    same_label: bool | None = None
    layers: str = ""
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For the file of results."""
        return asdict(self)


@dataclass
class Deadline:
    """How much is left.

    Attributes:
        seconds: from now on.
        clock: seconds that never go back.
    """

    seconds: float
    clock: Callable[[], float] = time.monotonic
    _begun: float = field(init=False)

    def __post_init__(self) -> None:
        self._begun = self.clock()

    def left(self) -> float:
        """Seconds; negative when it has passed."""
        return self.seconds - (self.clock() - self._begun)


@dataclass
class Outcome:
    """How a part's process ended.

    Attributes:
        reason: empty where it ended well.
        at: the backend that it was at when it died; empty where that is not known.
    """

    reason: str = ""
    at: str = ""


Launch = "Callable[[Part, Sequence[str], float], Iterator[dict[str, Any] | Outcome]]"
"""Runs a part without the named backends for at most so many seconds: messages, then how it ended."""


def run_parts(
    parts: Sequence[Part], launch: Any, deadline: Deadline, done: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    """Messages of all parts as they come: `row`, `facts`, and `done` after each part.

    A part whose process dies, or takes too long, is started again without the backend that it was at, which
    becomes a row.

    Args:
        parts: in their order.
        launch: see `Launch`.
        deadline: after it the other parts are rows that say so.
        done: names of parts that an earlier run has done.
    """
    for part in parts:
        if part.name in done:
            continue
        if deadline.left() - TESTS_S < LEAST_S:
            yield {"row": Row(part.model, part.precision, part.kind, reason=NOT_REACHED).as_dict()}
            continue
        yield from _run_part(part, launch, deadline)
        yield {"done": part.name}


def _run_part(part: Part, launch: Any, deadline: Deadline) -> Iterator[dict[str, Any]]:
    skipped: list[str] = []
    while True:
        outcome = Outcome()
        for message in launch(part, skipped, min(PART_S, deadline.left() - TESTS_S)):
            if isinstance(message, Outcome):
                outcome = message
            else:
                yield message
        if not outcome.reason:
            return
        backend = outcome.at or part.kind
        yield {"row": Row(part.model, part.precision, backend, reason=outcome.reason).as_dict()}
        if not outcome.at or outcome.at in skipped or deadline.left() - TESTS_S < LEAST_S:
            return
        skipped.append(outcome.at)
