"""Terminal sink: one line that is rewritten, or plain lines where that is not possible."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from velora_edge.datatypes import Prediction
from velora_runtime.sinks.base import Result, Sink

if TYPE_CHECKING:
    from rich.live import Live

    from velora_runtime.inference.decision import Action
    from velora_runtime.sinks.base import SinkContext

REFRESH_S = 0.1
"""The line that changes is drawn at most this often."""


class TerminalSink(Sink):
    """A line with label, score, latencies and drops; one more for each start and end of an action.

    Args:
        target: not used.
        context: tells whether there will be actions.
    """

    name = "terminal"
    takes_provisional = True

    def __init__(self, target: str, context: SinkContext) -> None:
        self._live: Live | None = None
        self._drawn_s = 0.0
        self._last: Prediction | None = None
        self._decides = context.decides
        if sys.stdout.isatty():
            from rich.live import Live

            self._live = Live(auto_refresh=False)
            self._live.start()

    def take(self, result: Result) -> Prediction | None:
        """The prediction, where there is one."""
        return result.prediction

    def take_action(self, action: Action) -> Action:
        """The action."""
        return action

    def write(self, item: Prediction | Action) -> None:
        """Show it; on a terminal, actions, or else labels that have just changed, stay above the line."""
        if self._live is None:
            print(as_line(item) if isinstance(item, Prediction) else as_action_line(item), flush=True)
            return
        if not isinstance(item, Prediction):
            self._live.console.print(as_action_line(item), highlight=False, markup=False)
            return
        if not self._decides and self._last is not None and item.label != self._last.label:
            self._live.console.print(as_line(self._last), highlight=False, markup=False)
        self._last = item
        now_s = time.monotonic()
        if now_s - self._drawn_s >= REFRESH_S:
            self._draw(now_s)

    def close(self) -> None:
        """Leave the last prediction on the screen."""
        if self._live is not None:
            self._draw(time.monotonic())
            self._live.stop()

    def _draw(self, now_s: float) -> None:
        from rich.text import Text

        self._drawn_s = now_s
        if self._live is not None and self._last is not None:
            self._live.update(Text(as_line(self._last), overflow="ellipsis", no_wrap=True), refresh=True)


def as_line(prediction: Prediction) -> str:
    """A prediction in one line, for people."""
    stages = "  ".join(f"{stage} {value:.1f}" for stage, value in prediction.latency_ms.items())
    skew = "" if prediction.skew_us is None else f"  skew {prediction.skew_us} us"
    lack = "".join(f"  no {camera}" for camera in prediction.missing)
    lack += "  idle" * prediction.is_idle + "  provisional" * prediction.is_provisional
    drops = "".join(f"  {n} {what} dropped" for what, n in prediction.dropped.items() if n)
    bar = "#" * round(10 * prediction.score)
    return (
        f"{prediction.t_us / 1e6:10.3f} s  {prediction.label:<16} {prediction.score:4.0%} {bar:<10}  "
        f"{prediction.events:7,} events  {stages} ms{skew}{lack}{drops}"
    )


def as_action_line(action: Action) -> str:
    """An action's start or end in one line, for people."""
    if action.to_us is None:
        return f"{action.from_us / 1e6:10.3f} s  {action.label:<16} {action.score:4.0%} starts"
    lasted_s = (action.to_us - action.from_us) / 1e6
    return f"{action.to_us / 1e6:10.3f} s  {action.label:<16} {action.score:4.0%} ends after {lasted_s:.3f} s"
