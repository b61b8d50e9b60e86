"""Passes over recordings tell how far they are, for progress bars."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.events import test_hostile_files as made
from tests.recordings import write_events
from velora_cli.recordings.convert import Cut, from_recording
from velora_edge import open_events

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize("make", [m for m in made.FORMATS if m is not made.mat])
def test_a_pass_ends_with_all_of_the_file(make: Callable[[], bytes], tmp_path: Path) -> None:
    path = tmp_path / "recording.bin"
    path.write_bytes(make())
    reader = open_events(path)
    for _ in reader:
        assert reader.done is not None
        assert 0 < reader.done <= 1
    assert reader.done == 1


def test_a_pass_over_words_tells_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velora_edge.events.formats.raw.raw_walker.CHUNK_BYTES", 1 << 18)
    write_events(tmp_path / "e.raw", count=400_000, duration_us=4_000_000)
    reader = open_events(tmp_path / "e.raw")
    shares = [(reader.done, int(batch.t_us[-1])) for batch in reader]
    assert len(shares) > 2
    for done, t_us in shares:
        assert done is not None
        # A chunk is read before its events come.
        assert 0 <= done - (t_us - 7_000_000) / 4_000_000 < 0.2
    assert reader.done == 1


def test_a_cut_of_some_length_goes_by_time(tmp_path: Path) -> None:
    write_events(tmp_path / "e.raw")
    source = from_recording(str(tmp_path / "e.raw"), None, None, Cut(100_000, 200_000))
    assert [source.share_done(7_100_000 + k * 50_000) for k in range(5)] == [0, 0.25, 0.5, 0.75, 1]


def test_a_whole_recording_goes_by_its_file(tmp_path: Path) -> None:
    write_events(tmp_path / "e.raw")
    source = from_recording(str(tmp_path / "e.raw"), None, None, Cut())
    assert source.share_done(0) is None
    assert sum(map(len, source.batches())) == 4000
    assert source.share_done(0) == 1
