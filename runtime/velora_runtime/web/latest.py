"""What a run shows at this moment: the pipeline leaves it here, the server looks when it likes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from velora_runtime.report.metrics import RunMetrics
from velora_runtime.report.run_report import STAGES
from velora_runtime.sinks.base import Sink

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from velora_edge.datatypes import Prediction
    from velora_runtime.inference.decision import Decided
    from velora_runtime.sinks.base import Seen

PICTURES_HZ, UNWATCHED_HZ = 15, 1
"""Pictures are copied and compressed at most this often, however many pairs there are and whoever watches;
copied the less often if nobody has watched for a second."""
SPELLS_KEPT = 60


@dataclass(frozen=True, slots=True)
class Spell:
    """A time during which one label was the best, or was decided on in a run that decides.

    Attributes:
        label: that label.
        t0_us: time of its first prediction.
        t1_us: of its last.
        score: the highest.
    """

    label: str
    t0_us: int
    t1_us: int
    score: float


@dataclass(frozen=True, slots=True)
class Scene:
    """One moment, never changed.

    Attributes:
        number: of the moment, from 1; 0 before the first.
        prediction: None while the first clip is not full.
        missing: pairs that lack until it is.
        skew_us: of the pair.
        rgb: uint8[H, W, 3], the newest picture; None where there is no RGB camera, or it is gone.
        event: uint8[H, W, 3], an event frame of the last moments, likewise.
        seen_s: when, on the machine's monotonic clock.
        decided: what is held to be going on; None in a run that does not decide.
    """

    number: int = 0
    prediction: Prediction | None = None
    missing: int = 0
    skew_us: int | None = None
    rgb: NDArray[np.uint8] | None = None
    event: NDArray[np.uint8] | None = None
    seen_s: float = 0.0
    decided: Decided | None = None


class Latest(Sink):
    """Keeps the newest scene, the history of labels and the metrics.

    `take` is called by the inference thread and takes microseconds; everything may be read from any thread.

    Attributes:
        scene: the newest.
        history: labels one after the other, the newest last; replaced, never changed.
        metrics: for `/metrics`.
        watched_s: when somebody last asked for a picture, on the machine's monotonic clock.
    """

    name = "page"
    room = 1

    def __init__(self) -> None:
        self.scene = Scene()
        self.metrics = RunMetrics(STAGES)
        self.history: tuple[Spell, ...] = ()
        self._copied_s = self.watched_s = float("-inf")

    def take(self, seen: Seen) -> None:
        """Replace the scene; nothing is left for `write`."""
        self.metrics.observe(seen)
        if seen.prediction is not None:
            self._extend_history(seen.decided or seen.prediction, seen.prediction.t_us)
        pair, last, now_s = seen.pair, self.scene, time.monotonic()
        event = None if pair.event is None else last.event
        most_hz = PICTURES_HZ if now_s - self.watched_s < 1 else UNWATCHED_HZ
        if pair.event is not None and (event is None or now_s - self._copied_s >= 1 / most_hz):
            event, self._copied_s = pair.event.image.copy(), now_s
        rgb = None if pair.rgb is None else pair.rgb.image
        self.scene = Scene(
            last.number + 1, seen.prediction, seen.missing, pair.skew_us, rgb, event, now_s, seen.decided
        )

    def write(self, item: object) -> None:
        """Never called."""

    def _extend_history(self, said: Prediction | Decided, t_us: int) -> None:
        before, spell = self.history, Spell(said.label, t_us, t_us, said.score)
        if before and before[-1].label == said.label:
            last = before[-1]
            before, spell = before[:-1], Spell(said.label, last.t0_us, t_us, max(last.score, said.score))
        self.history = (*before[1 - SPELLS_KEPT :], spell)
