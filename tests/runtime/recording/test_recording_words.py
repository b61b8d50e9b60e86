"""Raw words apart from their file: a recording may begin anywhere in a stream and tells the same times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from velora_runtime.recording.words import Place, WordEncoder, WordFormat, WordShifter, lead_in, time_after

from velora_edge.datatypes import EventBatch, TriggerBatch
from velora_edge.errors import InputError
from velora_edge.events.formats.raw.raw_walker import NEVER, RawDecoder, RawWalker
from velora_edge.events.registry import open_events
from velora_edge.events.writers import open_writer

if TYPE_CHECKING:
    from pathlib import Path

    from velora_edge.events.base import Encoding

SENSOR = (640, 480)
ENCODINGS: list[Encoding] = ["EVT2", "EVT2.1", "EVT3"]


def make_batch(times_us: np.ndarray[Any, Any], seed: int = 5) -> EventBatch:
    rng, n = np.random.default_rng(seed), len(times_us)
    x, y = rng.integers(0, 640, n, dtype=np.uint16), rng.integers(0, 480, n, dtype=np.uint16)
    return EventBatch(times_us.astype(np.int64), x, y, rng.integers(0, 2, n, dtype=np.uint8))


def as_lists(batch: EventBatch) -> list[list[int]]:
    return [batch.t_us.tolist(), batch.x.tolist(), batch.y.tolist(), batch.p.tolist()]


class Pieces:
    """Words in pieces, each with the place that the decoder had reached before it."""

    def __init__(self, encoding: Encoding, payload: bytes, n_bytes: int, is_legacy: bool = False) -> None:
        self.places: list[Place | None] = []
        self.data: list[bytes] = []
        walker = RawWalker(encoding, SENSOR, is_legacy)
        walker.tap = self
        rest = payload

        def read_into(memory: memoryview) -> int:
            nonlocal rest
            n = min(n_bytes, len(rest))
            memory[:n], rest = rest[:n], rest[n:]
            return n

        from velora_edge.events.kernels._sink_kernels import CountSink

        while walker.fill(read_into):
            walker.walk(NEVER, CountSink())

    def take_words(self, words: np.ndarray[Any, Any], walker: RawWalker) -> None:
        self.places.append(Place.of(walker))
        self.data.append(words.tobytes())

    def begin(self, shift_us: int) -> None:
        raise AssertionError("a file is one stream")

    def take_batch(self, batch: EventBatch) -> None:
        raise AssertionError("raw words are no batches")

    def take_edges(self, edges: TriggerBatch) -> None:
        raise AssertionError("a walker keeps its edges")


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("first_us", [0, 50_000_000, 2**36 + 12345])
def test_a_stream_cut_anywhere_tells_the_same_events_as_the_whole(
    encoding: Encoding, first_us: int, tmp_path: Path
) -> None:
    """60 s: EVT3's clock comes round three times; from 2^36 us on, that of EVT2 has too."""
    times = first_us + np.sort(np.random.default_rng(3).integers(0, 60_000_000, 300))
    times[100:140] = times[100]  # a row of vectors
    batch = make_batch(times)
    batch.y[100:140], batch.p[100:140], batch.x[100:140] = 7, 1, np.arange(300, 340)
    with open_writer(tmp_path / "whole.raw", encoding, width=SENSOR[0], height=SENSOR[1]) as writer:
        writer.write(batch)
    whole = (tmp_path / "whole.raw").read_bytes()
    payload = whole.partition(b"% end\n")[2]
    pieces = Pieces(encoding, payload, 48)
    form = WordFormat(encoding, SENSOR)
    decoder, seen = RawDecoder(encoding, SENSOR, is_legacy=False), 0
    for k in range(len(pieces.data)):
        place = pieces.places[k]
        before = b"" if place is None else lead_in(form, place)
        if k % 7 == 0:
            (tmp_path / "cut.raw").write_bytes(form.full_header() + before + b"".join(pieces.data[k:]))
            with open_events(tmp_path / "cut.raw") as reader:
                assert as_lists(reader.read()) == as_lists(batch[seen:]), k
                assert reader.warnings == []
        seen += len(decoder.feed(pieces.data[k]))
    assert seen == 300


def test_a_lead_in_is_short_where_the_clock_has_not_come_round() -> None:
    assert (
        lead_in(WordFormat("EVT3", SENSOR), Place(5 << 12 | 17))
        == np.array([0x8005, 0x6011], "<u2").tobytes()
    )
    assert len(lead_in(WordFormat("EVT3", SENSOR), Place(86_400_000_000))) < 45_000


def test_a_header_that_tells_all_is_kept_and_one_that_does_not_is_replaced() -> None:
    told = b"% serial 42\n% evt 3.0\n% geometry 640x480\n% end\n"
    assert WordFormat("EVT3", SENSOR, header=told).full_header() == told
    own = WordFormat("EVT3", SENSOR, header=b"% evt 3.0\n% end\n").full_header()
    assert own == WordFormat("EVT3", SENSOR).full_header()
    assert b"geometry 640x480" in own
    wrong = WordFormat("EVT3", SENSOR, header=b"% evt 9\n% end\n").full_header()
    assert wrong == own


def test_a_header_of_evt21_tells_the_order_of_halves() -> None:
    own = WordFormat("EVT2.1", SENSOR, is_legacy=True, header=b"% evt 2.1\n% geometry 640x480\n% end\n")
    assert b"% endianness legacy\n" in own.full_header()


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("gap_us", [0, 5_000, 9_000_000, 100_000_000, 2**35])
def test_a_gap_is_bridged_to_the_right_time(encoding: Encoding, gap_us: int, tmp_path: Path) -> None:
    """The decoder has a time already, and its clock comes round in the gap, or comes round often."""
    form = WordFormat(encoding, SENSOR)
    first = make_batch(40_000_000 + np.arange(50) * 997)
    second = make_batch(first.t_us[-1] + gap_us + np.arange(50) * 997, seed=6)
    place, words = WordEncoder(form).encode(first)
    place_2, words_2 = WordEncoder(form).encode(second)
    reached_us = time_after(form, place, words)
    assert reached_us is not None
    assert 0 <= int(first.t_us[-1]) - reached_us < 64
    (tmp_path / "e.raw").write_bytes(
        form.full_header() + lead_in(form, place) + words + lead_in(form, place_2, reached_us) + words_2
    )
    with open_events(tmp_path / "e.raw") as reader:
        assert as_lists(reader.read()) == as_lists(EventBatch.concatenate([first, second]))


@pytest.mark.parametrize("is_legacy", [True, False])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_arrays_become_words_of_one_stream(encoding: Encoding, is_legacy: bool, tmp_path: Path) -> None:
    first, second = make_batch(70_000_000 + np.arange(50) * 900), make_batch(70_045_000 + np.arange(50) * 900)
    form = WordFormat(encoding, SENSOR, is_legacy)
    encoder = WordEncoder(form)
    (place, words), (place_2, words_2) = encoder.encode(first), encoder.encode(second)
    for data, wanted in (
        (lead_in(form, place) + words + words_2, EventBatch.concatenate([first, second])),
        (lead_in(form, place_2) + words_2, second),
    ):
        (tmp_path / "e.raw").write_bytes(form.full_header() + data)
        with open_events(tmp_path / "e.raw") as reader:
            assert as_lists(reader.read()) == as_lists(wanted)
    assert [path.name for path in tmp_path.iterdir()] == ["e.raw"]


def test_evt2_tells_the_times_of_cameras_that_count_from_1970(tmp_path: Path) -> None:
    form, batch = WordFormat("EVT2", SENSOR), make_batch(1_800_000_000_000_000 + np.arange(50) * 900)
    place, words = WordEncoder(form).encode(batch)
    (tmp_path / "e.raw").write_bytes(form.full_header() + lead_in(form, place) + words)
    with open_events(tmp_path / "e.raw") as reader:
        assert as_lists(reader.read()) == as_lists(batch)


@pytest.mark.parametrize("is_legacy", [True, False])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_words_are_told_on_another_clock_cut_anywhere(
    encoding: Encoding, is_legacy: bool, tmp_path: Path
) -> None:
    """A camera that counts from 0 again, 33.4 s into the run; what came first is not there."""
    batch, shift_us = make_batch(np.arange(400) * 1003), 33_399_999
    form = WordFormat(encoding, SENSOR, is_legacy)
    place, words = WordEncoder(form).encode(batch)
    whole = lead_in(form, place) + words
    at = len(whole) // 3 // 8 * 8
    pieces = Pieces(encoding, whole, at, is_legacy)
    shifter = WordShifter(form, pieces.places[1], shift_us)
    made = [shifter.shift(data) for data in pieces.data[1:]]
    assert made[0] is not None
    out = lead_in(form, made[0][0]) + b"".join(part[1] for part in made if part is not None)
    (tmp_path / "e.raw").write_bytes(form.full_header() + out)
    with open_events(tmp_path / "e.raw") as reader:
        found = reader.read()
    assert 200 < len(found) < 300
    moved = EventBatch(batch.t_us + shift_us, batch.x, batch.y, batch.p)
    assert as_lists(found) == as_lists(moved[400 - len(found) :])


def test_words_without_events_are_nothing_on_another_clock() -> None:
    assert WordShifter(WordFormat("EVT3", SENSOR), None, 5).shift(b"\x00\xe0" * 4) is None


def test_arrays_out_of_order_are_refused() -> None:
    encoder = WordEncoder(WordFormat("EVT2", SENSOR))
    with pytest.raises(InputError, match="earlier than the event before it"):
        encoder.encode(make_batch(np.array([20, 10])))
