"""Predictions over MQTT: a real broker where there is one, and what happens where there is none."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest
from velora_runtime.sinks.base import Result, SinkContext, open_sink
from velora_runtime.sinks.publishers import Broker, MqttSink

from tests.fakes import tiny_manifest
from velora_edge.datatypes import FramePair, Prediction
from velora_edge.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

paho = pytest.importorskip("paho.mqtt.client", reason="needs the mqtt extra: pip install -e '.[mqtt]'")


def said(seq: int) -> Prediction:
    return Prediction(seq, 1000 * seq, "wave", 0.5, (("wave", 0.5),), 3, None)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_connected(sink: MqttSink) -> None:
    deadline = time.monotonic() + 20
    while not sink.is_connected:
        assert time.monotonic() < deadline, "not connected within 20 s"
        time.sleep(0.01)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[int]:
    """The port of a mosquitto of our own."""
    program = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        pytest.skip("needs an MQTT broker: apt-get install mosquitto")
    port = free_port()
    config = tmp_path / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\n")
    process = subprocess.Popen([program, "-c", str(config)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.02)
    yield port
    process.terminate()
    process.wait(20)


def test_a_broker_gets_each_prediction_and_who_is_there(broker: int) -> None:
    got: list[tuple[str, bytes]] = []
    is_subscribed, is_done = threading.Event(), threading.Event()
    listener = paho.Client(paho.CallbackAPIVersion.VERSION2)

    def keep(client: object, data: object, message: paho.MQTTMessage) -> None:
        got.append((message.topic, message.payload))
        if message.payload == b"offline":
            is_done.set()

    listener.on_message = keep
    listener.on_subscribe = lambda *args: is_subscribed.set()
    listener.connect("127.0.0.1", broker)
    listener.loop_start()
    listener.subscribe("lab/robot 7/#")
    assert is_subscribed.wait(20)
    context = SinkContext(tiny_manifest())
    sink = open_sink("publish", f"mqtt://127.0.0.1:{broker}/lab/robot%207", context)
    assert isinstance(sink, MqttSink)
    wait_until_connected(sink)
    for seq in range(50):
        item = sink.take(Result(FramePair(seq, seq, None, None), said(seq)))
        assert item is not None
        sink.write(item)
    sink.close()
    assert is_done.wait(20)
    listener.disconnect()
    listener.loop_stop()
    assert (got[0], got[-1]) == (("lab/robot 7/status", b"online"), ("lab/robot 7/status", b"offline"))
    assert [json.loads(payload)["seq"] for topic, payload in got[1:-1]] == list(range(50))
    assert sink.lost == 0


def test_without_a_broker_nothing_waits_and_what_is_lost_is_counted() -> None:
    sink = MqttSink(f"mqtt://127.0.0.1:{free_port()}/t", SinkContext(tiny_manifest()))
    began_s = time.monotonic()
    for seq in range(1000):
        sink.write(said(seq))
    sink.close()
    assert time.monotonic() - began_s < 3
    assert sink.lost == 1000


def test_a_broker_that_does_not_read_costs_messages_and_no_time() -> None:
    """It answers the greeting, and then lies still: buffers fill up."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listening.bind(("127.0.0.1", 0))
        listening.listen(1)
        sink = MqttSink(f"mqtt://127.0.0.1:{listening.getsockname()[1]}/t", SinkContext(tiny_manifest()))
        connection, _ = listening.accept()
        connection.recv(4096)
        connection.sendall(b"\x20\x02\x00\x00")
        wait_until_connected(sink)
        began_s = time.monotonic()
        for seq in range(40_000):
            sink.write(said(seq))
        assert time.monotonic() - began_s < 20
        assert sink.lost > 0
        connection.close()
        sink.close()


def test_a_connection_that_comes_back_at_the_end_is_closed_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        sink = MqttSink(f"mqtt://127.0.0.1:{listening.getsockname()[1]}/t", SinkContext(tiny_manifest()))
        client = sink._client
        stop = client.loop_stop

        def stop_late() -> None:
            stop()
            client.reconnect()

        client.loop_stop = stop_late
        sink.close()
        left = client.socket()
        assert left is not None
        assert left.fileno() == -1


def test_pairs_without_a_prediction_are_not_published() -> None:
    sink = MqttSink(f"mqtt://127.0.0.1:{free_port()}/t", SinkContext(tiny_manifest()))
    assert sink.take(Result(FramePair(0, 0, None, None), None, 2)) is None
    sink.close()


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("mqtt://host/t", Broker("host", 1883, "t", None, None, False)),
        ("mqtts://me:p%40ss@host/a/b", Broker("host", 8883, "a/b", "me", "p@ss", True)),
        ("mqtt://[::1]:99/t", Broker("::1", 99, "t", None, None, False)),
    ],
)
def test_a_url_names_broker_topic_and_user(url: str, wanted: Broker) -> None:
    assert Broker.parse(url) == wanted


@pytest.mark.parametrize(
    "url", ["host/t", "mqtt://host", "mqtt:///t", "http://host/t", "mqtt://h/a/#", "mqtt://h:x/t"]
)
def test_what_names_none_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="give --publish mqtt://HOST/TOPIC"):
        Broker.parse(url)


def test_a_broker_that_is_away_is_told_once_and_what_was_lost_at_the_end() -> None:
    notes: list[str] = []
    port = free_port()
    sink = MqttSink(f"mqtt://me:secret@127.0.0.1:{port}/t", SinkContext(tiny_manifest(), note=notes.append))
    deadline = time.monotonic() + 20
    while not notes:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for _ in range(3):
        sink._client.on_connect_fail(sink._client, None)
    sink.write(said(0))
    sink.close()
    assert notes == [
        f"the broker at 127.0.0.1:{port}: nobody answers; predictions are not published until it does",
        f"1 predictions were not published: 127.0.0.1:{port} was away, or too slow",
    ]


def test_a_broker_that_comes_is_told_where_it_was_away(broker: int) -> None:
    notes: list[str] = []
    context = SinkContext(tiny_manifest(), note=notes.append)
    sink = MqttSink(f"mqtt://127.0.0.1:{broker}/t", context)
    wait_until_connected(sink)
    sink._tell_away("nobody answers")
    sink._greet(sink._client, None, None, paho.ReasonCode(paho.PacketTypes.CONNACK), None)
    sink.close()
    assert notes[1:] == [f"publishing to 127.0.0.1:{broker}, which answers now"]
