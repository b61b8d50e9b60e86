"""What a stream takes in can be listened to: words as they came, or batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.events import words as w
from tests.fakes import MemoryEvents
from tests.recordings import write_events
from velora_edge.events.formats.raw.raw_walker import NEVER
from velora_edge.events.registry import open_events

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from velora_edge.datatypes import EventBatch, TriggerBatch
    from velora_edge.events.formats.raw.raw_walker import RawWalker


class Ear:
    def __init__(self) -> None:
        self.words = b""
        self.headers: set[bytes] = set()
        self.batches: list[EventBatch] = []
        self.edges_us: list[int] = []

    def take_edges(self, edges: TriggerBatch) -> None:
        self.edges_us += edges.t_us.tolist()

    def begin(self, shift_us: int) -> None:
        raise AssertionError("a file is one stream")

    def take_words(self, words: np.ndarray[Any, Any], walker: RawWalker) -> None:
        self.words += words.tobytes()
        self.headers.add(walker.header)

    def take_batch(self, batch: EventBatch) -> None:
        self.batches.append(batch)


def test_a_listener_gets_the_header_and_every_whole_word_of_a_raw_file(tmp_path: Path) -> None:
    write_events(tmp_path / "e.raw", count=200_000)
    ear = Ear()
    with open_events(tmp_path / "e.raw") as reader, reader.stream() as stream:
        stream.listen(ear)
        assert stream.skip_until(NEVER) == 200_000
    assert len(ear.headers) == 1
    assert ear.headers.pop() + ear.words == (tmp_path / "e.raw").read_bytes()


def test_half_a_word_at_the_end_is_not_heard(tmp_path: Path) -> None:
    write_events(tmp_path / "e.raw", count=100)
    whole = (tmp_path / "e.raw").read_bytes()
    (tmp_path / "e.raw").write_bytes(whole[:-1])
    ear = Ear()
    with open_events(tmp_path / "e.raw") as reader, reader.stream() as stream:
        stream.listen(ear)
        stream.skip_until(NEVER)
    assert ear.headers.pop() + ear.words == whole[:-2]


@pytest.mark.parametrize("listens", [True, False])
def test_arrays_are_heard_batch_by_batch_and_listening_changes_nothing(listens: bool) -> None:
    stream = MemoryEvents([(10, 1, 2, 0), (20, 3, 4, 1)]).stream()
    ear = Ear()
    if listens:
        stream.listen(ear)
    assert (stream.t_next_us, stream.skip_until(15), stream.t_next_us) == (10, 1, 20)
    assert [batch.t_us.tolist() for batch in ear.batches] == ([[10, 20]] if listens else [])


def test_a_listener_that_comes_late_gets_what_was_not_walked_over(tmp_path: Path) -> None:
    batch = write_events(tmp_path / "e.raw", count=2000, start_us=0, duration_us=2000)
    ear = Ear()
    with open_events(tmp_path / "e.raw") as reader, reader.stream_from(1500) as stream:
        stream.listen(ear)
        stream.skip_until(NEVER)
    # The rest begins within a chunk: time and row were told by the words before it.
    told = w.evt3(w.time_high(0), w.time_low(1500), w.addr_y(int(batch.y[1500])))
    (tmp_path / "rest.raw").write_bytes(ear.headers.pop() + told + ear.words)
    assert w.rows(open_events(tmp_path / "rest.raw").read()) == w.rows(batch[1500:])


def test_a_listener_that_comes_late_gets_the_rest_of_a_batch() -> None:
    events = [(t, 1, 1, 1) for t in range(10)]
    stream, ear = MemoryEvents(events, (4, 4)).stream(), Ear()
    stream.skip_until(7)
    stream.listen(ear)
    stream.skip_until(NEVER)
    assert [t for batch in ear.batches for t in batch.t_us.tolist()] == [7, 8, 9]


def test_edges_are_heard_as_they_are_walked_over_and_can_still_be_taken(tmp_path: Path) -> None:
    write_events(tmp_path / "e.raw", count=2000, start_us=0, duration_us=2000, triggers_us=[500, 1500])
    ear = Ear()
    with open_events(tmp_path / "e.raw") as reader, reader.stream() as stream:
        stream.listen(ear)
        stream.skip_until(1000)
        assert ear.edges_us == [500]
        assert stream.take_triggers().t_us.tolist() == [500]
        stream.skip_until(NEVER)
        assert ear.edges_us == [500, 1500]
        assert stream.take_triggers().t_us.tolist() == [1500]
