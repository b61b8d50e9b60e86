"""Converted files, read by other people's tools (benchmarks/requirements-peers.txt), give the same events.

Pairs that fail for reasons of the other tool are left out: expelliarmus stops at EVT3's triggers and lets its
times drift, evutils and faery know no EVT2.1 in the order of Prophesee's cameras, faery no HDF5.
"""

from __future__ import annotations

import numpy as np
import pytest

from velora_cli.main import velora
from velora_edge import open_events
from velora_edge.console import run

RECORDINGS = ["expelliarmus_evt2_sample.raw", "expelliarmus_evt3_sample.raw", "ecpy_test1_evt3_triggers.raw"]
ENDINGS = {"EVT2": "raw", "EVT2.1": "raw", "EVT3": "raw", "CSV": "csv", "HDF5": "h5"}


def evutils(path):
    io = pytest.importorskip("evutils.io", reason="needs evutils")
    events = io.EventReader(str(path), max_events=1_000_000_000).read_all()
    return events.t, events.x, events.y, events.p


def faery(path):
    faery = pytest.importorskip("faery", reason="needs faery")
    parts = list(faery.events_stream_from_file(path))
    return [np.concatenate([part[name] for part in parts]) for name in ("t", "x", "y", "on")]


def expelliarmus(path):
    expelliarmus = pytest.importorskip("expelliarmus", reason="needs expelliarmus")
    wizard = expelliarmus.Wizard(encoding="evt2")
    wizard.set_file(str(path))
    events = wizard.read()
    return events["t"], events["x"], events["y"], events["p"]


READERS = [
    *((evutils, kind) for kind in ("EVT2", "EVT3", "CSV", "HDF5")),
    *((faery, kind) for kind in ("EVT2", "EVT3", "CSV")),
    (expelliarmus, "EVT2"),
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # some leave their files open
@pytest.mark.parametrize("recording", RECORDINGS)
@pytest.mark.parametrize(("read", "kind"), READERS, ids=[f"{read.__name__} {kind}" for read, kind in READERS])
def test_another_tool_reads_the_same_events(shared_events, tmp_path, read, kind, recording):
    path = tmp_path / f"converted.{ENDINGS[kind]}"
    source = shared_events / recording
    assert run(velora, ["convert", str(source), str(path), "--format", kind, "--quiet"]) == 0
    theirs = read(path)
    ours = open_events(source).read()
    for column, expected in zip(theirs, (ours.t_us, ours.x, ours.y, ours.p), strict=True):
        np.testing.assert_array_equal(np.asarray(column).astype(np.int64), expected.astype(np.int64))
