"""Properties of every format: what holds for any events, and for any bytes."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.check import WrittenBesideError, check_file, guarded
from tests.fuzz.samples import MADE, samples
from tests.fuzz.spoil import spoil
from velora_edge import open_events
from velora_edge.datatypes import EventBatch, TriggerBatch
from velora_edge.events.formats.raw import raw
from velora_edge.events.writers import open_writer

if TYPE_CHECKING:
    from pathlib import Path

HEADERS = {
    "EVT2": b"% evt 2.0\n% geometry 40x30\n% end\n",
    "EVT2.1": b"% evt 2.1\n% endianness little\n% geometry 40x30\n% end\n",
    "EVT2.1 legacy": b"% evt 2.1\n% endianness legacy\n% geometry 40x30\n% end\n",
    "EVT3": b"% evt 3.0\n% geometry 40x30\n% end\n",
    "DAT v2": b"% Data file containing CD events.\n% Version 2\n% Width 40\n% Height 30\n\x0c\x08",
    "DAT v1": b"% Data file containing CD events.\n% Version 1\n\x00\x08",
    "CSV": b"t,x,y,p\n",
    "AEDAT2": b"#!AER-DAT2.0\r\n#End Of ASCII Header\r\n",
    "AEDAT4": b"#!AER-DAT4.0\r\n",
    "ES": b"Event Stream\x02\x00\x00\x01\x28\x00\x1e\x00",
    "ES colour": b"Event Stream\x02\x00\x00\x04\x28\x00\x1e\x00",
    "HDF5": b"\x89HDF\r\n\x1a\n",
    "NumPy": b"\x93NUMPY\x01\x00",
    "MAT": b"MATLAB 5.0 MAT-file",
    "ROS 1": b"#ROSBAG V2.0\n",
    "MCAP": b"\x89MCAP0\r\n",
    "nothing": b"",
}
event_lists = st.lists(
    st.tuples(
        st.one_of(
            st.integers(0, 3), st.integers(0, 5000), st.integers(0, 1 << 25)
        ),  # time since the one before
        st.integers(0, 39),
        st.integers(0, 29),
        st.integers(0, 1),
        st.integers(1, 20),  # how many neighbours in the row fire with it
    ),
    max_size=60,
)
edge_lists = st.lists(st.tuples(st.integers(0, 1 << 26), st.integers(0, 15), st.integers(0, 1)), max_size=20)
anywhere = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def events_of(drawn: list[tuple[int, int, int, int, int]], first_us: int) -> EventBatch:
    """Rows of neighbours that fire at once, as a sensor reads them out."""
    t_us, rows = first_us, []
    for step, x, y, p, n in drawn:
        t_us += step
        rows += [(t_us, column, y, p) for column in range(x, min(x + n, 40))]
    t, x, y, p = zip(*rows, strict=True) if rows else ((), (), (), ())
    return EventBatch(
        np.array(t, np.int64), np.array(x, np.uint16), np.array(y, np.uint16), np.array(p, np.uint8)
    )


@anywhere
@given(
    kind=st.sampled_from(["EVT2", "EVT2.1", "EVT3", "HDF5", "CSV"]),
    drawn=event_lists,
    first_us=st.sampled_from([0, 1, (1 << 24) - 2000, 1 << 33]),
    edges=edge_lists,
    batches=st.integers(1, 4),
)
def test_what_is_written_is_read_and_resumed(tmp_path_factory, kind, drawn, first_us, edges, batches):
    folder: Path = tmp_path_factory.mktemp("written")
    batch, path = events_of(drawn, first_us), folder / "recording"
    t, number, p = zip(*sorted(edges), strict=True) if edges else ((), (), ())
    given_edges = TriggerBatch(np.array(t, np.int64), np.array(number, np.uint8), np.array(p, np.uint8))
    cuts = np.linspace(0, len(batch), batches + 1).astype(int)
    with open_writer(path, kind, width=40, height=30) as writer:
        writer.write_triggers(given_edges)
        for start, stop in itertools.pairwise(cuts):
            writer.write(batch[start:stop])
    if kind == "CSV" and not len(batch):
        return  # a text without a line of numbers is no recording
    with open_events(path, sensor=(40, 30)) as reader:
        same(reader.read(), batch)
        middle = int(batch.t_us[len(batch) // 2]) if len(batch) else 5
        same(EventBatch.concatenate(list(reader.between(middle))), batch[batch.t_us >= middle])
        if kind.startswith("EVT"):
            found = reader.triggers()
            assert [found.t_us.tolist(), found.id.tolist(), found.p.tolist()] == [
                list(t),
                list(number),
                list(p),
            ]


def same(ours: EventBatch, expected: EventBatch) -> None:
    for name in EventBatch.__slots__:
        np.testing.assert_array_equal(getattr(ours, name), getattr(expected, name))


@pytest.mark.parametrize("kind", HEADERS)
@anywhere
@given(data=st.binary(max_size=600), seed=st.integers(0, 99))
def test_any_bytes_behind_a_header_give_events_or_one_error(tmp_path_factory, kind, data, seed):
    path: Path = tmp_path_factory.mktemp("bytes") / "recording.bin"
    path.write_bytes(HEADERS[kind] + data)
    check_file(path, random.Random(seed))


@pytest.mark.parametrize("name", MADE)
def test_spoilt_files_give_events_or_one_error(tmp_path, name):
    if name in ("bag", "mcap", "db3"):
        pytest.importorskip("rosbags", reason="needs rosbags (the extra ros)")
    path = tmp_path / "spoilt.bin"
    ends = {"events": 0, "refused": 0}
    for number in range(25):
        rng = random.Random(number)
        path.write_bytes(spoil(rng.choice(samples(name)), rng, 150 if name.startswith("evt") else 0))
        ends[check_file(path, rng)] += 1
    assert all(ends.values())


@pytest.mark.parametrize("name", MADE)
def test_files_that_are_not_spoilt_are_read(tmp_path, name):
    if name in ("bag", "mcap", "db3"):
        pytest.importorskip("rosbags", reason="needs rosbags (the extra ros)")
    for k, data in enumerate(samples(name)):
        path = tmp_path / f"{k}.bin"
        path.write_bytes(data)
        assert check_file(path, random.Random(k)) == "events"


def test_a_write_beside_an_array_is_noticed():
    def write_beside() -> None:
        with guarded():
            p = raw.new_arrays(10).p
            np.lib.stride_tricks.as_strided(p, (len(p) + 1,))[-1] = 1

    with pytest.raises(WrittenBesideError, match="beside an array of"):
        write_beside()
