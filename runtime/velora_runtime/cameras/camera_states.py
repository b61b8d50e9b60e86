"""What state each camera is in: as its source says, or else by what has come from it lately."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from velora_runtime.report.run_report import RunReport

STALLED_S = 2.0


class CameraStates:
    """Callable from any thread, by one at a time.

    Args:
        report: of the run.
        rgb: the RGB source, None where there is none.
        events: the event stream, likewise.
        now_s: a monotonic clock.
    """

    def __init__(
        self,
        report: RunReport,
        rgb: object | None,
        events: object | None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        pairs = report.pairs
        self._now_s = now_s
        self._cameras = {
            "rgb": (rgb, _Flow(lambda: report.frames.read)),
            "event": (events, _Flow(lambda: pairs.packed - pairs.without_events)),
        }

    def __call__(self) -> dict[str, str]:
        """State by camera: none, starting, live, stalled, or what the source says itself."""
        now_s = self._now_s()
        return {camera: _state(source, flow, now_s) for camera, (source, flow) in self._cameras.items()}


class _Flow:
    """Whether a count has grown lately."""

    def __init__(self, count: Callable[[], int]) -> None:
        self._count, self._last, self._grew_s = count, 0, float("-inf")

    def state(self, now_s: float) -> str:
        n = self._count()
        if n != self._last:
            self._last, self._grew_s = n, now_s
        if not n:
            return "starting"
        return "live" if now_s - self._grew_s <= STALLED_S else "stalled"


def _state(source: object | None, flow: _Flow, now_s: float) -> str:
    if source is None:
        return "none"
    said = getattr(source, "state", None)
    return str(getattr(said, "value", said)) if said is not None else flow.state(now_s)
