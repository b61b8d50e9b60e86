from __future__ import annotations

import contextlib
import sqlite3
import struct
import sys
from functools import cache

import numpy as np
import pytest

from velora_edge import open_events
from velora_edge.errors import MissingExtraError, RecordingError

pytest.importorskip("rosbags", reason="needs rosbags (the extra ros)")

from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

EVT3 = struct.pack("<6H", 0x8000, 0x6064, 0x0002, 0x2003 | 1 << 11, 0xA601, 0x2005)
DEFINITIONS = {
    "event_camera_msgs/msg/EventPacket": "std_msgs/Header header\nuint32 height\nuint32 width\nuint64 seq\n"
    "uint64 time_base\nstring encoding\nbool is_bigendian\nuint8[] events",
    "dvs_msgs/msg/Event": "uint16 x\nuint16 y\nbuiltin_interfaces/Time ts\nbool polarity",
    "dvs_msgs/msg/EventArray": "std_msgs/Header header\nuint32 height\nuint32 width\ndvs_msgs/Event[] events",
}
PACKET, ARRAY = "event_camera_msgs/msg/EventPacket", "dvs_msgs/msg/EventArray"


@cache
def store(ros):
    types = get_typestore(Stores.ROS1_NOETIC if ros == 1 else Stores.ROS2_HUMBLE)
    for name, text in DEFINITIONS.items():
        types.register(
            get_types_from_msg(
                text.replace("builtin_interfaces/Time", "time" if ros == 1 else "builtin_interfaces/Time"),
                name,
            )
        )
    return types


def header(types, ros):
    extra = {"seq": 0} if ros == 1 else {}
    time = types.types["builtin_interfaces/msg/Time"](sec=1, nanosec=2)
    return types.types["std_msgs/msg/Header"](stamp=time, frame_id="camera", **extra)


def packet(ros, payload, encoding="evt3", *, seq=0, time_base=0, sensor=(640, 480)):
    types = store(ros)
    message = types.types[PACKET](
        header=header(types, ros), height=sensor[1], width=sensor[0], seq=seq, time_base=time_base,
        encoding=encoding, is_bigendian=False, events=np.frombuffer(payload, np.uint8),
    )  # fmt: skip
    return serialize(types, ros, message, PACKET)


def array(ros, rows, sensor=(240, 180)):
    types = store(ros)
    time = types.types["builtin_interfaces/msg/Time"]
    events = [
        types.types["dvs_msgs/msg/Event"](
            x=x, y=y, ts=time(sec=ns // 10**9, nanosec=ns % 10**9), polarity=bool(p)
        )
        for ns, x, y, p in rows
    ]
    message = types.types[ARRAY](header=header(types, ros), height=sensor[1], width=sensor[0], events=events)
    return serialize(types, ros, message, ARRAY)


def serialize(types, ros, message, kind):
    return bytes(types.serialize_ros1(message, kind) if ros == 1 else types.serialize_cdr(message, kind))


@pytest.fixture(params=["ROS 1 bag", "ROS 2 bag", "MCAP"])
def kind(request):
    return request.param


@pytest.fixture
def write(tmp_path, kind):
    """Writes (topic, type, message) to a bag; gives the path that a user would give."""

    def write(messages):
        types = store(1 if kind == "ROS 1 bag" else 2)
        if kind == "ROS 1 bag":
            path = tmp_path / "recording.bag"
            writer = Writer1(path)
        else:
            path = tmp_path / "recording"
            plugin = StoragePlugin.MCAP if kind == "MCAP" else StoragePlugin.SQLITE3
            writer = Writer2(path, version=9, storage_plugin=plugin)
        connections = {}
        with writer:
            for i, (topic, name, data) in enumerate(messages):
                if topic not in connections:
                    connections[topic] = writer.add_connection(topic, name, typestore=types)
                writer.write(connections[topic], 1000 + i, data)
        return next(path.glob("*.mcap")) if kind == "MCAP" else path

    return write


@pytest.fixture
def ros(kind):
    return 1 if kind == "ROS 1 bag" else 2


def rows(reader):
    b = reader.read()
    return list(zip(b.t_us.tolist(), b.x.tolist(), b.y.tolist(), b.p.tolist(), strict=True))


def test_evt3_packets_are_decoded_across_messages(write, ros, kind):
    messages = [
        ("/camera/events", PACKET, packet(ros, part, seq=i)) for i, part in enumerate((EVT3[:5], EVT3[5:]))
    ]
    with open_events(write(messages)) as reader:
        assert rows(reader) == [(100, 3, 2, 1), (100, 5, 2, 0)]
        assert (reader.format, reader.width, reader.height, reader.warnings) == (kind, 640, 480, [])
        edges = reader.triggers()
        assert (edges.t_us.tolist(), edges.id.tolist(), edges.p.tolist()) == ([100], [6], [1])


def test_dvs_events_carry_their_own_times(write, ros):
    events = [
        (1_500_000_000_000_001_999, 239, 179, 1),
        (1_500_000_000_000_002_000, 0, 7, 0),
        (1_500_000_001_000_000_000, 5, 0, 1),
    ]
    messages = [("/dvs/events", ARRAY, array(ros, part)) for part in (events[:1], events[1:], [])]
    reader = open_events(write(messages))
    assert rows(reader) == [
        (1_500_000_000_000_001, 239, 179, 1),
        (1_500_000_000_000_002, 0, 7, 0),
        (1_500_000_001_000_000, 5, 0, 1),
    ]
    assert (reader.width, reader.height, reader.warnings) == (240, 180, [])


def test_libcaer_packets(write, ros):
    def event(t_us, x, y, p):
        return struct.pack("<Ii", x << 17 | y << 2 | p << 1 | 1, t_us)

    payload = event(0x7FFFFFFF, 1, 2, 1) + event(3, 4, 5, 0)
    reader = open_events(write([("/e", PACKET, packet(ros, payload, "libcaer", time_base=7_000_500))]))
    assert rows(reader) == [(7000 + 0x7FFFFFFF, 1, 2, 1), (7000 + (1 << 31) + 3, 4, 5, 0)]


def test_libcaer_cmp_packets(write, ros):
    words = [
        0 << 12 | 1,
        1 << 12 | 2,
        2 << 12 | 30,
        3 << 12 | 1 << 11 | 40,
        4 << 12 | 8,
        5 << 12 | 0b101,
        5 << 12 | 1,
        7 << 12,
    ]
    payload = struct.pack("<8H", *words)
    reader = open_events(write([("/e", PACKET, packet(ros, payload, "libcaer_cmp", time_base=9_000_000))]))
    t = 9000 + (1 << 12 | 2)
    assert rows(reader) == [(t, 30, 40, 1), (t, 30, 8, 0), (t, 30, 10, 0), (t, 30, 16, 0)]
    assert reader.warnings == ["1 words of libcaer_cmp are of no known type"]


def test_mono_and_trigger_packets(write, ros):
    mono = struct.pack("<IHH", 5000, 3, 1 << 15 | 7)
    trigger = struct.pack("<II", 6000, 1 << 31)
    messages = [("/e", PACKET, packet(ros, mono, "mono", time_base=1_000_000))]
    messages += [("/e", PACKET, packet(ros, trigger, "trigger", seq=1, time_base=1_000_000))]
    reader = open_events(write(messages))
    assert rows(reader) == [(1005, 3, 7, 1)]
    edges = reader.triggers()
    assert (edges.t_us.tolist(), edges.p.tolist()) == ([1006], [1])


def test_packets_that_never_came_to_the_bag_are_counted(write, ros):
    messages = [("/e", PACKET, packet(ros, b"", "mono", seq=seq)) for seq in (3, 4, 9, 10, 2, 4)]
    reader = open_events(write(messages))
    reader.read()
    assert reader.warnings == ["5 packets are missing: they were lost before they came to the bag"]


def test_of_several_topics_the_first_is_taken_unless_told_otherwise(write, ros):
    messages = [
        ("/b/events", ARRAY, array(ros, [(2000, 2, 2, 1)])),
        ("/a/events", ARRAY, array(ros, [(1000, 1, 1, 1)])),
    ]
    path = write(messages)
    reader = open_events(path)
    assert rows(reader) == [(1, 1, 1, 1)]
    assert reader.warnings == ["the bag has 2 topics of events, /a/events, /b/events; the first is taken"]
    assert rows(open_events(path, part="b/events")) == [(2, 2, 2, 1)]
    assert rows(open_events(f"{path}#/b/events")) == [(2, 2, 2, 1)]
    with pytest.raises(
        RecordingError, match="no topic of events '/c' in the bag; choose from /a/events, /b/events"
    ):
        open_events(path, part="/c")


@pytest.mark.parametrize("n", [0, 3, 20, 40, 60])
def test_damaged_messages_are_left_out_and_told(write, ros, n):
    whole = packet(ros, struct.pack("<IHH", 5000, 3, 7), "mono")
    reader = open_events(write([("/e", PACKET, whole[:n]), ("/e", PACKET, whole)]))
    assert rows(reader) == [(5, 3, 7, 0)]
    assert reader.warnings[0].startswith("1 messages are damaged and were left out (first: ")


def test_an_unknown_encoding_is_told(write, ros):
    reader = open_events(write([("/e", PACKET, packet(ros, b"1234", "zip"))]))
    assert rows(reader) == []
    assert "expected events encoded as one of evt2" in reader.warnings[0]


def test_a_bag_without_events_is_refused(write, ros):
    types = store(ros)
    data = serialize(types, ros, header(types, ros), "std_msgs/msg/Header")
    with pytest.raises(
        RecordingError, match="expected messages of event_camera_msgs or dvs_msgs, the bag holds std_msgs"
    ):
        open_events(write([("/h", "std_msgs/msg/Header", data)]))


def test_a_bag_cut_off_anywhere_gives_what_is_there_or_one_error(write, ros, tmp_path):
    path = write(
        [("/e", PACKET, packet(ros, struct.pack("<IHH", 1000 * i, 3, 7), "mono", seq=i)) for i in range(50)]
    )
    path = path if path.is_file() else next(path.glob("*.db3"))
    data = path.read_bytes()
    cut = tmp_path / "cut.raw"
    for n in range(20, len(data), len(data) // 40):
        cut.write_bytes(data[:n])
        try:
            reader = open_events(cut)
        except RecordingError as error:
            message = str(error)
        else:
            assert len(reader.read()) <= 50
            message = ""
        assert "\n" not in message


def test_content_decides_not_the_name(write, ros, tmp_path):
    path = write([("/e", ARRAY, array(ros, [(1000, 1, 1, 1)]))])
    path = path if path.is_file() else next(path.glob("*.db3"))
    path.rename(tmp_path / "recording.raw")
    assert rows(open_events(tmp_path / "recording.raw")) == [(1, 1, 1, 1)]


def test_without_rosbags_the_extra_is_named(write, ros, monkeypatch):
    path = write([("/e", ARRAY, array(ros, []))])
    monkeypatch.setitem(sys.modules, "rosbags", None)
    with pytest.raises(MissingExtraError, match=r"pip install -e '\.\[ros\]'"):
        open_events(path)


@pytest.mark.parametrize("kind", ["ROS 2 bag"], indirect=True)
@pytest.mark.parametrize("lost", ["name", "type"])
def test_topics_without_a_name_or_a_type_are_left_out(write, ros, lost):
    path = write([("/events", PACKET, packet(ros, EVT3)), ("/other", ARRAY, array(ros, [(1000, 1, 1, 1)]))])
    with contextlib.closing(sqlite3.connect(next(path.glob("*.db3")))) as base:
        base.executescript(
            "CREATE TABLE copy AS SELECT * FROM topics; DROP TABLE topics; ALTER TABLE copy RENAME TO topics;"
            f"UPDATE topics SET {lost} = NULL WHERE name = '/other';"
        )
    with open_events(next(path.glob("*.db3"))) as reader:
        assert rows(reader) == [(100, 3, 2, 1), (100, 5, 2, 0)]


@pytest.mark.parametrize("statement", [
    "CREATE VIEW messages AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x FROM n) SELECT x FROM n",
    "CREATE VIEW extra AS SELECT 1",
])  # fmt: skip
def test_a_database_with_views_is_not_asked_anything(tmp_path, statement):
    path = tmp_path / "a.db3"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        connection.commit()
    with pytest.raises(RecordingError, match="a database with a view in it"):
        open_events(path)


def test_a_link_in_a_bag_s_folder_is_not_followed(tmp_path, monkeypatch):
    monkeypatch.delenv("VELORA_FOLLOW_LINKS", raising=False)
    folder = tmp_path / "bag"
    folder.mkdir()
    (folder / "metadata.yaml").write_text("{}")
    (tmp_path / "outside").write_text("secret")
    (folder / "a.db3").symlink_to(tmp_path / "outside")
    with pytest.raises(RecordingError, match="leads out of its folder"):
        open_events(folder)
