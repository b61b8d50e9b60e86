"""Interface of writers of event files: checked batches in, a whole file out or none."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from velora_edge.errors import InputError, RecordingError
from velora_edge.events.kernels._intrinsics import kernel
from velora_edge.files import PartFile

if TYPE_CHECKING:
    import os
    from types import TracebackType

    from typing_extensions import Self

    from velora_edge.datatypes import EventBatch, TriggerBatch

# Why `first_fault` stopped.
OUTSIDE, EARLIER, NO_POLARITY = 1, 2, 3


@kernel
def first_fault(
    t: Any, x: Any, y: Any, p: Any, width: Any, height: Any, last_us: Any, is_ordered: Any
) -> Any:
    """Position of the first event that cannot be written, and why; (N, 0) where all can.

    `last_us` is the time that the first event must not be before, and only counts where `is_ordered`.
    """
    for i in range(len(t)):
        if x[i] >= width or y[i] >= height:
            return i, OUTSIDE
        if p[i] > 1:
            return i, NO_POLARITY
        if is_ordered and t[i] < last_us:
            return i, EARLIER
        last_us = t[i]
    return len(t), 0


class EventWriter(ABC):
    """One recording while it is written; single-threaded.

    The file appears under its name when it is closed, all of it; a writer that is left by an exception or
    `abort`ed leaves nothing, and an older file of that name stays as it was. Trigger edges may be handed over
    before the events of their time, but not after.

    Args:
        path: of the file; its folder exists.
        width: of the sensor, pixels.
        height: likewise.

    Raises:
        RecordingError: if the folder cannot be written to.
        InputError: if the format has no room for such a sensor.
    """

    format: ClassVar[str]
    holds_triggers: ClassVar[bool] = False
    """Whether the format has a place for trigger edges; where not, they are counted in `triggers_dropped`."""
    is_ordered: ClassVar[bool] = False
    """Whether the format can only tell times that do not decrease."""
    end_us: ClassVar[int] = 1 << 62
    """Times are before this."""
    largest_side_px: ClassVar[int] = 65536
    part_ending: ClassVar[str] = ""
    """Of the file's name while it is written, after `.part`."""

    def __init__(self, path: str | os.PathLike[str], width: int, height: int) -> None:
        if not (0 < width <= self.largest_side_px and 0 < height <= self.largest_side_px):
            raise InputError(
                f"expected a sensor of 1 to {self.largest_side_px} pixels a side for {self.format}, "
                f"got {width}x{height}",
                path=path,
            )
        self.path, self.width, self.height = Path(path), width, height
        self.events_written = 0
        self.triggers_written = self.triggers_dropped = 0
        self._last_us = -(1 << 62)
        self._part: PartFile | None = None
        self._is_open = True
        try:
            self._open(self._begin())
        except BaseException as error:
            if self._part is not None:
                self._part.discard()
            if not isinstance(error, OSError):
                raise
            raise RecordingError(
                f"cannot be written: {error.strerror or error}", path=path, remedy="check the folder"
            ) from error

    def write(self, batch: EventBatch) -> None:
        """Add events; not changed.

        Raises:
            InputError: if one is outside the sensor, or cannot be told in this format; names the event. What
                came before it may have been written.
        """
        self._check(batch)
        if len(batch):
            self._write(batch)
            self._last_us = int(batch.t_us[-1])
            self.events_written += len(batch)

    def write_triggers(self, triggers: TriggerBatch) -> None:
        """Add trigger edges, in time order; counted and dropped where the format has no place for them.

        Raises:
            InputError: if an edge is before events that were written, or cannot be told in this format.
        """
        if not self.holds_triggers:
            self.triggers_dropped += len(triggers)
        elif len(triggers):
            self._write_triggers(triggers)
            self.triggers_written += len(triggers)

    def close(self) -> None:
        """Finish the file and put it in its place; does nothing the second time.

        Raises:
            RecordingError: if it could not be finished, as on a full disk; nothing is left of it then.
        """
        if not self._is_open:
            return
        try:
            self._finish()
            if self._part is not None:
                self._part.commit()
        except BaseException as error:
            self.abort()
            if isinstance(error, OSError):
                raise RecordingError(f"cannot be written: {error}", path=self.path) from error
            raise
        self._is_open = False

    def abort(self) -> None:
        """Leave no file; does nothing once closed."""
        if self._is_open:
            self._is_open = False
            self._discard()
            if self._part is not None:
                self._part.discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _begin(self) -> Path:
        """Make the file that is written until it is finished; its place."""
        self._part = PartFile(self.path, self.part_ending)
        return self._part.path

    @abstractmethod
    def _open(self, path: Path) -> None:
        """Begin the file."""

    @abstractmethod
    def _write(self, batch: EventBatch) -> None:
        """Add checked events, at least one."""

    def _write_triggers(self, triggers: TriggerBatch) -> None:
        raise NotImplementedError

    @abstractmethod
    def _finish(self) -> None:
        """Write what is pending and let go of the file."""

    @abstractmethod
    def _discard(self) -> None:
        """Let go of the file, whatever state it is in; may be called after a failed `_finish`."""

    def _check(self, batch: EventBatch) -> None:
        at, fault = first_fault(
            batch.t_us, batch.x, batch.y, batch.p, self.width, self.height, self._last_us, self.is_ordered
        )
        if fault:
            raise InputError(
                self._describe(batch, at, fault),
                path=self.path,
                place=f"event {self.events_written + at}",
                remedy=self._remedy(fault),
            )
        if len(batch) and self.is_ordered:
            self._check_times(int(batch.t_us[0]), int(batch.t_us[-1]))

    def _check_triggers(self, triggers: TriggerBatch, pending: TriggerBatch) -> None:
        """Edges come in order, after the pending ones, and not before events that were written."""
        times = triggers.t_us
        earliest = int(pending.t_us[-1]) if len(pending) else self._last_us
        if times[0] < earliest or (times[1:] < times[:-1]).any():
            raise InputError(
                f"a trigger edge is earlier than what was written before it ({earliest} us)",
                path=self.path,
                remedy="write the edges in time order, each before the events that follow it",
            )
        self._check_times(int(times[0]), int(times[-1]))

    def _check_times(self, first_us: int, last_us: int) -> None:
        if first_us < 0 or last_us >= self.end_us:
            wrong = first_us if first_us < 0 else last_us
            raise InputError(
                f"expected times from 0 to {self.end_us - 1} us for {self.format}, got {wrong}",
                path=self.path,
                remedy="let times start at 0 (velora convert --rebase), or write HDF5 or CSV",
            )

    def _describe(self, batch: EventBatch, at: int, fault: int) -> str:
        if fault == OUTSIDE:
            return f"x={batch.x[at]} y={batch.y[at]} lies outside the sensor {self.width}x{self.height}"
        if fault == EARLIER:
            before = int(batch.t_us[at - 1]) if at else self._last_us
            return f"t={batch.t_us[at]} us is earlier than the event before it ({before} us)"
        return f"expected a polarity of 0 or 1, got {batch.p[at]}"

    def _remedy(self, fault: int) -> str:
        if fault == OUTSIDE:
            return "give the sensor that recorded it (velora convert --sensor WIDTHxHEIGHT)"
        if fault == EARLIER:
            return f"{self.format} cannot tell such times: sort the events, or write CSV"
        return ""
