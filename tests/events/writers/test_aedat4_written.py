from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from tests.recordings import write_events
from velora_cli.main import velora
from velora_edge import open_events
from velora_edge.console import run
from velora_edge.datatypes import EventBatch, TriggerBatch
from velora_edge.errors import InputError, MissingExtraError, RecordingError
from velora_edge.events.writers import open_writer


def one_event(t_us: int) -> EventBatch:
    return EventBatch(
        np.array([t_us]), np.array([1], np.uint16), np.array([2], np.uint16), np.ones(1, np.uint8)
    )


def edges(*rows: tuple[int, int, int]) -> TriggerBatch:
    t, number, p = zip(*rows, strict=True)
    return TriggerBatch(np.array(t, np.int64), np.array(number, np.uint8), np.array(p, np.uint8))


def test_without_dv_processing_the_extra_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "dv_processing", None)
    with pytest.raises(
        MissingExtraError, match=r"writing AEDAT4 needs dv-processing: pip install -e '\.\[inivation\]'"
    ):
        open_writer(tmp_path / "a.aedat4", width=4, height=4)
    write_events(tmp_path / "in.raw", count=10)
    names = [str(tmp_path / "in.raw"), str(tmp_path / "out.aedat4")]
    assert run(velora, ["convert", *names, "--quiet"]) == 1
    assert "error: writing AEDAT4 needs dv-processing" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["in.raw"]


@pytest.fixture
def dv():
    return pytest.importorskip("dv_processing", reason="needs dv-processing (the extra inivation)")


def test_dv_processing_reads_what_was_converted(dv, tmp_path):
    batch = write_events(tmp_path / "in.raw", count=20_000, triggers_us=[7_100_000, 7_200_000])
    out = tmp_path / "out.aedat4"
    assert run(velora, ["convert", str(tmp_path / "in.raw"), str(out), "--quiet"]) == 0
    recording = dv.io.MonoCameraRecording(str(out))
    assert tuple(recording.getEventResolution()) == (64, 48)
    found = []
    while (events := recording.getNextEventBatch()) is not None:
        found.append(events.numpy())
    told = np.concatenate(found)
    for name, column in (("timestamp", batch.t_us), ("x", batch.x), ("y", batch.y), ("polarity", batch.p)):
        assert np.array_equal(told[name], column), name
    triggers = recording.getNextTriggerBatch()
    assert [trigger.timestamp for trigger in triggers] == [7_100_000, 7_200_000]


def test_a_converted_recording_begins_at_a_time_by_its_table_of_contents(dv, tmp_path):
    batch = write_events(tmp_path / "in.raw", count=50_000)
    with open_writer(tmp_path / "a.aedat4", width=64, height=48) as writer:
        writer.write(batch)
    with open_events(tmp_path / "a.aedat4").stream_from(7_300_000) as stream:
        assert stream.t_next_us == 7_300_000
        assert len(stream.read_batch(1 << 20)) > 0
    assert len(open_events(tmp_path / "a.aedat4").read()) == 50_000


def test_edges_of_other_inputs_are_counted_and_dropped(dv, tmp_path):
    with open_writer(tmp_path / "a.aedat4", width=4, height=4) as writer:
        writer.write_triggers(edges((1, 0, 1), (2, 5, 1), (3, 1, 0), (4, 0, 0)))
        writer.write(one_event(3))
    assert (writer.triggers_written, writer.triggers_dropped) == (3, 1)
    found = open_events(tmp_path / "a.aedat4").triggers()
    assert (found.t_us.tolist(), found.id.tolist(), found.p.tolist()) == ([1, 3, 4], [0, 1, 0], [1, 0, 0])


def test_times_before_zero_are_refused(dv, tmp_path):
    writer = open_writer(tmp_path / "a.aedat4", width=4, height=4)
    with pytest.raises(InputError, match="expected times from 0 to"):
        writer.write(one_event(-1))
    writer.abort()
    assert list(tmp_path.iterdir()) == []


def test_edges_that_go_back_are_refused(dv, tmp_path):
    writer = open_writer(tmp_path / "a.aedat4", width=4, height=4)
    writer.write(one_event(9))
    with pytest.raises(InputError, match=r"a trigger edge is earlier .* \(9 us\)"):
        writer.write_triggers(edges((8, 0, 1)))
    writer.abort()


def test_a_full_disk_is_told_before_dv_processing_meets_it(dv, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=1 << 20))
    writer = open_writer(tmp_path / "a.aedat4", width=4, height=4)
    with pytest.raises(RecordingError, match=r"a\.aedat4: cannot be written: the disk is full"):
        writer.write(one_event(9))
    writer.abort()
    assert list(tmp_path.iterdir()) == []
