"""What must hold for a file of any content: events or one clear error, and no write beside an array."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np

from tests.events.test_hostile_files import read_everything
from velora_edge import open_events
from velora_edge.bundle import EventInput
from velora_edge.datatypes import EventBatch
from velora_edge.errors import VeloraError
from velora_edge.events.accumulate.frames import frames
from velora_edge.events.accumulate.representations import REPRESENTATIONS, RegistrationMap, make_accumulator
from velora_edge.events.formats.raw.raw import RawReader
from velora_edge.events.formats.raw.raw_walker import RawDecoder, new_arrays

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator
    from pathlib import Path

_MARGIN, _FILLED = 4096, 0xA5
_MOST_WINDOWS = 20
_MOST_PIECES = 50
_LARGEST = 1 << 22
"""Pixels of a sensor for which frames are made: a full table for 65536 x 65536 pixels fits no memory."""
_LARGEST_COUNTED = 1 << 19
_MOST_COUNTED = 40


class WrittenBesideError(AssertionError):
    """A kernel wrote outside the array that it was given."""


class Guard:
    """Arrays with margins that nobody may touch."""

    def __init__(self) -> None:
        self._buffers: list[np.ndarray[Any, Any]] = []

    def around(self, array: Any) -> Any:
        """A copy of the array in the middle of guarded memory; anything else as it is."""
        if not isinstance(array, np.ndarray):
            return array
        buffer = np.full(array.nbytes + 2 * _MARGIN, _FILLED, np.uint8)
        self._buffers.append(buffer)
        inside = buffer[_MARGIN : _MARGIN + array.nbytes].view(array.dtype).reshape(array.shape)
        inside[...] = array
        return inside

    def around_all(self, arrays: Any) -> Any:
        """A named tuple of such arrays."""
        return type(arrays)(*(self.around(array) for array in arrays))

    def check(self) -> None:
        """Nothing, if all margins are as they were."""
        for buffer in self._buffers:
            if (buffer[:_MARGIN] != _FILLED).any() or (buffer[-_MARGIN:] != _FILLED).any():
                raise WrittenBesideError(f"beside an array of {len(buffer) - 2 * _MARGIN} bytes")


@contextmanager
def guarded() -> Iterator[Guard]:
    """Lets raw words be decoded into guarded arrays, and checks them at the end."""
    guard = Guard()

    def new_guarded(events: int) -> Any:
        return guard.around_all(new_arrays(events))

    with (
        mock.patch("velora_edge.events.formats.raw.raw.new_arrays", new_guarded),
        mock.patch("velora_edge.events.formats.raw.raw_walker.new_arrays", new_guarded),
    ):
        yield guard
    guard.check()


def check_file(path: Path, rng: random.Random) -> str:
    """Read the file in every way; "events" or "refused", or whatever goes wrong as an exception."""
    with guarded() as guard:
        read_everything(path)
        try:
            with open_events(path) as reader:
                name, is_full = rng.choice([known.name for known in REPRESENTATIONS]), rng.random() < 0.5
                _make_frames(reader, rng, guard, name, is_full=is_full)
                _resume(reader, rng)
                if isinstance(reader, RawReader):
                    _split(reader, rng)
                    _by_threads(path, rng)
        except VeloraError:
            return "refused"
    return "events"


def warm_up(path: Path, rng: random.Random) -> None:
    """Compile what a file of this format can ask for, so that it does not count as time spent on one."""
    check_file(path, rng)
    with open_events(path) as reader:
        for name in (known.name for known in REPRESENTATIONS):
            for is_full in (False, True):
                _make_frames(reader, rng, Guard(), name, is_full=is_full)


def _make_frames(reader: Any, rng: random.Random, guard: Guard, name: str, *, is_full: bool) -> None:
    """Windows of the stream as a representation, in guarded memory, through a map of either form."""
    if reader.width * reader.height > _LARGEST:
        return
    size = rng.choice(((24, 32), (1, 1), (reader.height, reader.width)))
    registration = RegistrationMap.from_fit((reader.height, reader.width), size, "crop")
    if is_full:
        registration = RegistrationMap.from_table(registration.as_table(), size)
    frame = make_accumulator(EventInput(representation=name), registration)
    frame.representation.state = frame.state = guard.around_all(frame.state)
    image = guard.around(np.empty((*size, 3), np.uint8))
    step_us = rng.choice((1, 50, 33_333, 10**7))
    with reader.stream() as stream:
        for _ in range(_MOST_WINDOWS):
            t_us = stream.t_next_us
            if t_us is None:
                break
            frame.begin(t_us, t_us + step_us)
            stream.accumulate_until(t_us + step_us, frame)
            frame.render_into(image)
        stream.skip_until(2**62)


def _resume(reader: Any, rng: random.Random) -> None:
    """From any time on, the same events as from the beginning; where rows are halved, at least no crash."""
    first_us = reader.first_us()
    if first_us is None:
        return
    with reader.stream() as stream:
        stream.skip_until(rng.choice((first_us + rng.randrange(10**6), rng.randrange(1 << 40))))
        t_us = stream.t_next_us
    t_us = first_us + 1 if t_us is None else t_us
    with reader.stream_from(t_us) as resumed, reader.stream() as stream:
        stream.skip_until(t_us)
        while True:
            ours, expected = (one.read_batch(1 << 17, 2**62) for one in (resumed, stream))
            if reader.format in ("EVT2", "EVT2.1", "EVT3", "CSV") or reader.format.startswith("DAT"):
                assert len(ours.t_us) == len(expected.t_us)
                assert (ours.t_us == expected.t_us).all()
                assert (ours.x == expected.x).all()
            if not len(ours) or not len(expected):
                return


def _by_threads(path: Path, rng: random.Random) -> None:
    """Several threads give the frames and the warnings of one."""
    window_us, found = rng.choice((10**5, 10**7, 10**9)), []
    for threads in (1, 3):
        with (
            open_events(path) as reader,
            mock.patch("velora_edge.events.formats.raw.raw_index.SPACING_BYTES", 512),
            mock.patch("velora_edge.events.accumulate.frame_threads.GROUP_BYTES", 2048),
        ):
            if reader.width * reader.height > _LARGEST_COUNTED:
                return
            counted = frames(reader, window_us, "histogram", threads=threads)
            sums = [frame.image.sum(axis=(1, 2)).tolist() for frame in islice(counted, _MOST_COUNTED)]
            is_whole = len(sums) < _MOST_COUNTED
            found.append((sums, reader.warnings if is_whole else []))
    assert found[0] == found[1]


def _split(reader: RawReader, rng: random.Random) -> None:
    """Words pushed in pieces of any size give what the file gives."""
    data = reader.path.read_bytes()[reader.payload_at :]
    decoder = RawDecoder(reader.encoding, (reader.width, reader.height), reader.is_legacy)
    parts, at = [], 0
    while at < len(data):
        size = rng.choice((1, 2, 3, 7, 1000, 100_000)) if len(parts) < _MOST_PIECES else len(data)
        parts.append(decoder.feed(data[at : at + size]))
        at += size
    ours, expected = EventBatch.concatenate(parts), reader.read()
    for name in ours.__slots__:
        assert np.array_equal(getattr(ours, name), getattr(expected, name)), name
