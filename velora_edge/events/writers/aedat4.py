"""Writer of AEDAT4, by iniVation's dv-processing."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from velora_edge.datatypes import TriggerBatch
from velora_edge.errors import MissingExtraError, RecordingError
from velora_edge.events.writers.base import EventWriter

if TYPE_CHECKING:
    from pathlib import Path

    from velora_edge.datatypes import EventBatch

_CAMERA = "velora"
_PACKET_EVENTS = 8192
_EVENT_BYTES = 16
_SPARE_BYTES = 32 << 20
"""What may still wait in dv-processing's queue to be written."""
_LARGEST_ID = 1
_KINDS = {
    (0, 1): "EXTERNAL_SIGNAL_RISING_EDGE",
    (0, 0): "EXTERNAL_SIGNAL_FALLING_EDGE",
    (1, 1): "EXTERNAL_GENERATOR_RISING_EDGE",
    (1, 0): "EXTERNAL_GENERATOR_FALLING_EDGE",
}
"""Type of trigger by input and edge, as our reader tells them apart."""


class AEDAT4Writer(EventWriter):
    """Packets of 8192 events, compressed with LZ4, with a table of contents; triggers in their own stream.

    The format knows two inputs for triggers, the external signal (0) and the camera's generator (1); edges of
    others are dropped and counted. dv-processing takes event by event: a million and a half a second. It ends
    the process when it finds the disk full, so that free space is looked at before each batch.

    Raises:
        MissingExtraError: if dv-processing is not installed.
    """

    format = "AEDAT4"
    part_ending: ClassVar[str] = ".aedat4"  # dv-processing refuses, and aborts, with any other ending
    holds_triggers = True
    is_ordered = True
    largest_side_px = 32767

    def _open(self, path: Path) -> None:
        try:
            import dv_processing
        except ImportError as error:
            raise MissingExtraError("dv-processing", "inivation", "writing AEDAT4", error) from error
        path.touch()  # a folder that cannot be written to is told as the system tells it
        self._dv: Any = dv_processing
        config = self._dv.io.MonoCameraWriter.Config(_CAMERA)
        config.addEventStream((self.width, self.height))
        config.addTriggerStream()
        try:
            self._file: Any = self._dv.io.MonoCameraWriter(str(path), config)
        except RuntimeError as error:
            path.unlink()
            raise RecordingError(
                f"cannot be written: {str(error).splitlines()[0]}", path=self.path
            ) from error
        self._pending = TriggerBatch.empty()

    def write_triggers(self, triggers: TriggerBatch) -> None:
        """Add trigger edges, in time order; those of inputs other than 0 and 1 are counted and dropped.

        Raises:
            InputError: if an edge is before events that were written, or cannot be told in this format.
        """
        known = triggers.id <= _LARGEST_ID
        self.triggers_dropped += int(len(triggers) - known.sum())
        super().write_triggers(TriggerBatch(triggers.t_us[known], triggers.id[known], triggers.p[known]))

    def _write(self, batch: EventBatch) -> None:
        self._check_space(len(batch))
        self._flush_triggers(int(batch.t_us[-1]))
        event, packet = self._dv.Event, self._dv.EventPacket
        for start in range(0, len(batch), _PACKET_EVENTS):
            part = batch[start : start + _PACKET_EVENTS]
            rows = part.t_us.tolist(), part.x.tolist(), part.y.tolist(), (part.p != 0).tolist()
            self._file.writeEventPacket(packet(packet.EventVector(list(map(event, *rows)))))

    def _check_space(self, events: int) -> None:
        if shutil.disk_usage(self.path.parent).free < events * _EVENT_BYTES + _SPARE_BYTES:
            raise RecordingError(
                "cannot be written: the disk is full", path=self.path, remedy="make room, or choose another"
            )

    def _write_triggers(self, triggers: TriggerBatch) -> None:
        self._check_triggers(triggers, self._pending)
        self._pending = TriggerBatch.concatenate([self._pending, triggers])

    def _flush_triggers(self, until_us: int) -> None:
        """Write the edges that are due, so that both streams go on together."""
        edges = self._pending
        due = int(np.searchsorted(edges.t_us, until_us, side="right"))
        columns = edges.t_us[:due].tolist(), edges.id[:due].tolist(), edges.p[:due].tolist()
        for t_us, number, p in zip(*columns, strict=True):
            kind = getattr(self._dv.TriggerType, _KINDS[number, min(p, 1)])
            self._file.writeTrigger(self._dv.Trigger(t_us, kind))
        self._pending = TriggerBatch(edges.t_us[due:], edges.id[due:], edges.p[due:])

    def _finish(self) -> None:
        self._flush_triggers(self.end_us)
        self._file = None  # which closes it: what is pending and the table of contents are written

    def _discard(self) -> None:
        self._file = None
