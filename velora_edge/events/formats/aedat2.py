"""Reader of AEDAT 2.0 recordings, which jAER wrote from DVS128 and DAVIS cameras."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from velora_edge.datatypes import EventBatch, TriggerBatch
from velora_edge.errors import RecordingError, printable
from velora_edge.events.formats.arrays import PairReader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from velora_edge.events.seek_index import Place

    Addresses = NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class AddressLayout:
    """Bit fields of a camera's addresses; x counts from the right and y from the bottom.

    Attributes:
        name: as users know the camera.
        x: lowest bit and number of bits.
        y: likewise.
        polarity: its bit.
        on: value of that bit for ON.
        not_event: no bit of this mask is set in an event's address.
        external: mask and value of the addresses of external inputs.
        falling: mask and value that tell a falling edge of such an input.
    """

    name: str
    x: tuple[int, int]
    y: tuple[int, int]
    polarity: int
    on: int
    not_event: int
    external: tuple[int, int]
    falling: tuple[int, int]

    def coordinates(self, addresses: Addresses) -> tuple[Addresses, Addresses]:
        """The columns and rows as they were written."""
        return _field(addresses, *self.x), _field(addresses, *self.y)


# jAER's classes DVS128 and DavisChip. In a DAVIS's addresses bit 31 marks samples of its frames and, with
# bits 10 and 11, of its inertial sensor; in those of a DVS128 a special event.
DVS128 = AddressLayout(
    "DVS128", x=(1, 7), y=(8, 7), polarity=0, on=0,
    not_event=0x8000_8000, external=(0x8000, 0x8000), falling=(0, 1),
)  # fmt: skip
DAVIS = AddressLayout(
    "DAVIS", x=(12, 10), y=(22, 9), polarity=11, on=1,
    not_event=0x8000_0400, external=(0x8000_0400, 0x400), falling=(7, 2),
)  # fmt: skip
SAMPLE = 1 << 31
CHIPS = {
    "dvs128": (DVS128, (128, 128)),
    "tmpdiff128": (DVS128, (128, 128)),
    "davis128": (DAVIS, (128, 128)),
    "davis208": (DAVIS, (208, 192)),
    "davis240": (DAVIS, (240, 180)),
    "sbret10": (DAVIS, (240, 180)),
    "davis346": (DAVIS, (346, 260)),
    "davis640": (DAVIS, (640, 480)),
    "davisrgbw640": (DAVIS, (640, 480)),
}
"""By how the name of jAER's class begins, in lower case."""
_DAVIS_SENSORS = ((240, 180), (346, 260), (640, 480))
_HEADER_ENDS = (b"#End Of ASCII Header", b"#!END-HEADER")
_LONGEST_LINE = 1 << 16
_LONGEST_HEADER = 1 << 24
_CONTROL = bytes(byte for byte in range(32) if byte not in b"\t\r\n")


class Aedat2Reader(PairReader):
    """An AEDAT 2.0 file.

    Layout (docs.inivation.com, AEDAT 2.0; jAER's extractors of events): a header of `#` lines, then
    big-endian u32 pairs: an address, whose bits depend on the camera, and a time in us, which wraps.
    Samples of a DAVIS's frames and of its inertial sensor are told apart from events and passed over.

    Args:
        path: the file.
        sensor: width and height, before what the header tells.

    Raises:
        RecordingError: if the header names a camera whose addresses are not known, or nothing follows it.
    """

    pair_type, time_column, kind = ">u4", 1, "AEDAT2"

    def __init__(self, path: Path, *, sensor: tuple[int, int] | None = None) -> None:
        with path.open("rb") as file:
            chip, start = read_header(file)
        super().__init__(path, "AEDAT 2.0", sensor or (0, 0), start)
        self._edges: TriggerBatch | None = None
        if path.stat().st_size < start + 8:
            raise RecordingError(
                "the AEDAT file ends with its header",
                path=path,
                place=f"byte {start}",
                remedy="copy or record it again",
            )
        self._layout, self._size = self._find_layout(chip, sensor)
        self.width, self.height = sensor or self._size

    def decode(self, place: Place) -> Iterator[EventBatch]:
        """The events from a place on, in file order."""
        layout, (width, height) = self._layout, self._size
        has_samples = False
        for t_us, addresses, _ in self.read_pairs(place):
            is_event = addresses & layout.not_event == 0
            if not is_event.all():
                has_samples |= bool((addresses >= SAMPLE).any())
                t_us, addresses = t_us[is_event], addresses[is_event]
            x, y = layout.coordinates(addresses)
            yield EventBatch(
                t_us,
                (width - 1 - x).astype(np.uint16),
                (height - 1 - y).astype(np.uint16),
                (_field(addresses, layout.polarity, 1) == layout.on).astype(np.uint8),
            )
        if has_samples and layout is DAVIS:
            self.warn("the file holds samples of frames or of an inertial sensor too, which are not read")

    def triggers(self) -> TriggerBatch:
        """All edges of the external input; reads the file once. An edge whose direction is not told rises."""
        if self._edges is None:
            self._edges = TriggerBatch.concatenate(list(self._read_edges()))
        return self._edges

    def _read_edges(self) -> Iterator[TriggerBatch]:
        mask, value = self._layout.external
        falling_mask, falling = self._layout.falling
        for t_us, addresses, _ in self.read_pairs(self.first):
            is_edge = addresses & mask == value
            if is_edge.any():
                p = addresses[is_edge] & falling_mask != falling
                yield TriggerBatch(t_us[is_edge], np.zeros(len(p), np.uint8), p.astype(np.uint8))

    def _find_layout(
        self, chip: str | None, sensor: tuple[int, int] | None
    ) -> tuple[AddressLayout, tuple[int, int]]:
        """The layout of the addresses, and the camera's width and height."""
        if chip is None:
            return self._guess_layout(sensor)
        name = chip.rpartition(".")[2]
        for beginning, known in CHIPS.items():
            if name.lower().startswith(beginning):
                return known
        raise RecordingError(
            f"the camera is {printable(name)}, whose addresses are not known; those of DVS128 and DAVIS are",
            path=self.path,
            place="AEChip in the header",
            remedy="convert it in jAER",
        )

    def _guess_layout(self, sensor: tuple[int, int] | None) -> tuple[AddressLayout, tuple[int, int]]:
        """Tell by the addresses: those of a DVS128 have 16 bits."""
        _, addresses, _ = next(self.read_pairs(self.first))
        if np.count_nonzero(addresses & 0x7FFF_0000) <= len(addresses) // 2:
            return DVS128, (128, 128)
        size = sensor or self._measure()
        self.warn(
            f"the header does not name the camera; by its addresses it is a DAVIS of {size[0]}x{size[1]}"
        )
        return DAVIS, size

    def _measure(self) -> tuple[int, int]:
        """The smallest DAVIS that holds all events of the file, or else the largest."""
        width = height = 0
        for _, addresses, _ in self.read_pairs(self.first):
            x, y = DAVIS.coordinates(addresses[addresses & DAVIS.not_event == 0])
            if len(x):
                width, height = max(width, int(x.max()) + 1), max(height, int(y.max()) + 1)
        holding = (size for size in _DAVIS_SENSORS if width <= size[0] and height <= size[1])
        return next(holding, _DAVIS_SENSORS[-1])


def read_header(file: BinaryIO) -> tuple[str | None, int]:
    """The name of the camera's class in jAER, None where there is none, and the byte after the header.

    Older files do not mark their header's end; it is before the first line that is no text after a `#`.
    """
    chip, at = None, 0
    while at < _LONGEST_HEADER and _is_comment(line := file.readline(_LONGEST_LINE)):
        at += len(line)
        if line.rstrip() in _HEADER_ENDS:
            break
        key, _, value = line[1:].partition(b":")
        if key.strip() == b"AEChip":
            chip = value.strip().decode("ascii", "replace")
    return chip, at


def _is_comment(line: bytes) -> bool:
    return line.startswith(b"#") and line.endswith(b"\n") and line.translate(None, _CONTROL) == line


def _field(addresses: Addresses, lowest_bit: int, bits: int) -> Addresses:
    return addresses >> lowest_bit & ((1 << bits) - 1)
