"""Rerun sink (https://rerun.io): pictures, label, scores, latencies; ten results a second."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2

from velora_edge.errors import InputError, MissingExtraError
from velora_runtime.sinks.base import Result, Sink

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from velora_runtime.inference.decision import Action
    from velora_runtime.sinks.base import SinkContext

MOST_HZ = 10
"""A viewer keeps all that it is sent: at 30 pictures a second its memory is full within minutes."""
LARGEST_PX = 640
JPEG_QUALITY = 75


@dataclass(frozen=True, slots=True)
class _Scene:
    result: Result
    event: NDArray[np.uint8] | None


class RerunSink(Sink):
    """Logs to a viewer or a file.

    Args:
        target: `spawn` opens a viewer on this machine; a URL (rerun+http://HOST:9876/proxy) is a viewer that
            is open somewhere; FILE.rrd is written.
        context: names the run.

    Raises:
        InputError: if the target is none of these, or cannot be used.
        MissingExtraError: if rerun-sdk is not installed.
    """

    name = "rerun"
    room = 4
    may_lose = True

    def __init__(self, target: str, context: SinkContext) -> None:
        try:
            import rerun
        except ImportError as error:
            raise MissingExtraError("rerun-sdk", "rerun", "--rerun") from error
        self._rerun: Any = rerun
        self._taken_s = float("-inf")
        self._label: str | None = None
        self._stream: Any = rerun.RecordingStream(f"velora: {context.manifest.name}")
        try:
            self._open(target)
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(f"cannot show the run in Rerun: {error}", path=target) from error

    def take(self, result: Result) -> _Scene | None:
        """The pair with a copy of its event frame, a tenth of a second after the last one."""
        now_s = time.monotonic()
        if now_s - self._taken_s < 1 / MOST_HZ:
            return None
        self._taken_s = now_s
        return _Scene(result, None if result.pair.event is None else result.pair.event.image.copy())

    def take_action(self, action: Action) -> Action:
        """The action."""
        return action

    def write(self, item: _Scene | Action) -> None:
        """Log one moment, or an action's start or end."""
        if not isinstance(item, _Scene):
            self._stream.set_time("event_clock", duration=item.t_us / 1e6)
            verb = "starts" if item.to_us is None else "ends"
            self._stream.log("action", self._rerun.TextLog(f"{item.label} {verb}"))
            return
        pair, log = item.result.pair, self._stream.log
        self._stream.set_time("event_clock", duration=pair.t_us / 1e6)
        if pair.rgb is not None:
            log("rgb", self._picture(pair.rgb.image))
        if item.event is not None:
            log("events", self._picture(item.event))
        said = item.result.prediction
        if said is None:
            return
        for label, score in said.top:
            log(f"scores/{self._rerun.escape_entity_path_part(label)}", self._rerun.Scalars(score))
        for stage, value_ms in said.latency_ms.items():
            log(f"latency_ms/{stage}", self._rerun.Scalars(value_ms))
        if said.label != self._label:
            self._label = said.label
            log("label", self._rerun.TextLog(f"{said.label} {said.score:.0%}"))

    def close(self) -> None:
        """Send what waits, and end the stream."""
        self._stream.flush(timeout_sec=2.0)
        self._stream.disconnect()

    def _open(self, target: str) -> None:
        if target == "spawn":
            self._stream.spawn()
        elif "://" in target:
            self._stream.connect_grpc(target)
        elif target.endswith(".rrd"):
            self._stream.save(target)
        else:
            raise InputError(
                f"expected --rerun spawn, rerun+http://HOST:9876/proxy or FILE.rrd, got {target!r}"
            )

    def _picture(self, image: NDArray[np.uint8]) -> Any:
        longer = max(image.shape[:2])
        if longer > LARGEST_PX:
            width, height = (max(1, side * LARGEST_PX // longer) for side in image.shape[1::-1])
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
        return self._rerun.Image(image).compress(jpeg_quality=JPEG_QUALITY)
