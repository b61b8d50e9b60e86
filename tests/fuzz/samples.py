"""Small files of every format that can be read, to be spoilt."""

from __future__ import annotations

import os
import random
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tests.events import aedat4_writer
from tests.events import test_hostile_files as files
from tests.events import words as w
from velora_edge.datatypes import EventBatch, TriggerBatch
from velora_edge.events.writers import open_writer

if TYPE_CHECKING:
    from collections.abc import Callable

_REAL = {
    "evt2": ("expelliarmus_evt2_sample.raw",),
    "evt3": ("expelliarmus_evt3_sample.raw", "ecpy_test1_evt3_triggers.raw"),
    "evt21": ("derived_faery_evt21.raw",),
    "hdf5": ("derived_faery_dsec.h5",),
    "ecf": ("derived_expelliarmus_evt3_sample.hdf5",),
    "aedat4": ("tonic_sample.aedat4",),
    "dat": ("tonic_sample_ncars.dat",),
    "nmnist": ("tonic_sample_nmnist.bin",),
}
_HEAD_BYTES = 1 << 16
"""Of a real `.raw` file: any beginning of one is whole."""


def written(name: str, seed: int = 5, events: int = 300) -> bytes:
    """A file as our writers make it, with trigger edges where the format has them."""
    rng = np.random.default_rng(seed)
    t = np.cumsum(rng.choice([0, 0, 0, 1, 30, 5000], events))
    batch = EventBatch(
        t.astype(np.int64),
        rng.integers(0, 60, events).astype(np.uint16),
        rng.integers(0, 40, events).astype(np.uint16),
        rng.integers(0, 2, events).astype(np.uint8),
    )
    edges = TriggerBatch(t[::50].astype(np.int64), np.zeros(6, np.uint8), np.ones(6, np.uint8))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recording"
        with open_writer(path, name, width=60, height=40) as writer:
            writer.write_triggers(edges)
            writer.write(batch)
        return path.read_bytes()


def vectors() -> bytes:
    """EVT3 words of every type, in an order that a camera may send them."""
    rng = random.Random(3)
    made = [w.time_high(0)]
    for k in range(400):
        made += [w.time_low(k), w.addr_y(rng.randrange(480)), w.base_x(rng.randrange(640), k & 1)]
        made += [w.vect_12(rng.randrange(4096)), w.vect_12(rng.randrange(4096)), w.vect_8(rng.randrange(256))]
        made += [w.addr_x(rng.randrange(640)), w.edge(k % 5, k & 1), w.OTHERS, w.CONTINUED_4, w.CONTINUED_12]
        made += [w.time_high(k // 40), 0x9999] if k % 7 == 0 else []
    return b"% evt 3.0\n% geometry 640x480\n% end\n" + w.evt3(*made)


def both_halves(legacy: bool) -> bytes:
    """EVT2.1 in one of its two orders."""
    rng = random.Random(4)
    pairs = [(w.time_2(0), 0)]
    for k in range(400):
        pairs.append(
            (w.event_2(k % 64, 32 * rng.randrange(20), rng.randrange(480), k & 1), rng.getrandbits(32))
        )
        pairs += [(w.edge_2(k % 64, 1, k & 1), 0), (w.time_2(k), 0)] if k % 9 == 0 else []
    order = b"legacy" if legacy else b"little"
    return (
        b"% evt 2.1\n% endianness "
        + order
        + b"\n% geometry 640x480\n% end\n"
        + w.evt21(*pairs, legacy=legacy)
    )


def bag(kind: str) -> bytes:
    """A bag of packets, and of arrays of events."""
    from rosbags.rosbag1 import Writer as Writer1
    from rosbags.rosbag2 import StoragePlugin
    from rosbags.rosbag2 import Writer as Writer2

    from tests.events.formats import test_ros_bag as ros_bag

    ros = 1 if kind == "bag" else 2
    types = ros_bag.store(ros)
    payload = written("EVT3").partition(b"% end\n")[2]
    messages = [("/events", ros_bag.PACKET, ros_bag.packet(ros, payload, seq=k)) for k in range(3)]
    messages += [
        ("/events", ros_bag.PACKET, ros_bag.packet(ros, payload[:80], encoding, seq=9))
        for encoding in ("mono", "libcaer", "libcaer_cmp", "trigger", "evt2")
    ]
    messages.append(("/dvs", ros_bag.ARRAY, ros_bag.array(ros, [(5 * k, k, k, 1) for k in range(20)])))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("a.bag" if ros == 1 else "a")
        plugin = StoragePlugin.MCAP if kind == "mcap" else StoragePlugin.SQLITE3
        writer = Writer1(path) if ros == 1 else Writer2(path, version=9, storage_plugin=plugin)
        with writer:
            topics = {
                topic: writer.add_connection(topic, name, typestore=types)
                for topic, name in {message[:2] for message in messages}
            }
            for k, (topic, _, data) in enumerate(messages):
                writer.write(topics[topic], 1000 + k, data)
        return path.read_bytes() if ros == 1 else next(path.glob(f"*.{kind}")).read_bytes()


MADE: dict[str, tuple[Callable[[], bytes], ...]] = {
    "evt2": (lambda: written("EVT2"),),
    "evt21": (lambda: written("EVT2.1"), lambda: both_halves(True), lambda: both_halves(False)),
    "evt3": (lambda: written("EVT3"), vectors),
    "hdf5": (files.plain_hdf5, lambda: written("HDF5")),
    "ecf": (files.prophesee_hdf5,),
    "dat": (files.dat,),
    "aedat2": (files.aedat2,),
    "nmnist": (files.nmnist,),
    "aedat4": (files.aedat4, lambda: aedat4_writer.davis(range(0, 90_000, 300), range(0, 90_000, 30_000))),
    "npy": (files.npy,),
    "npz": (files.npz,),
    "mat": (files.mat,),
    "csv": (files.csv, lambda: written("CSV")),
    "bag": (lambda: bag("bag"),),
    "mcap": (lambda: bag("mcap"),),
    "db3": (lambda: bag("db3"),),
}
RAW = ("evt2", "evt21", "evt3")


@cache
def samples(name: str) -> tuple[bytes, ...]:
    """The format's files, with the beginnings of real recordings where they are there."""
    root = Path(os.environ.get("VELORA_SHARED", Path(__file__).parents[3] / "shared")) / "data" / "events"
    made = [make() for make in MADE[name]]
    for real in _REAL.get(name, ()):
        if (root / real).is_file():
            data = (root / real).read_bytes()
            made.append(data[:_HEAD_BYTES] if name in RAW else data)
    return tuple(made)
