"""Sinks that publish each prediction as a line of `--out`: to an MQTT broker, on a topic of ROS 2."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from velora_edge.datatypes import Prediction
from velora_edge.errors import Address, CameraError, InputError, MissingExtraError
from velora_runtime.ros_node import STRING_TYPE, RosNode, parse_topic
from velora_runtime.sinks.base import Result, Sink
from velora_runtime.sinks.jsonl import encode_line

if TYPE_CHECKING:
    from velora_runtime.inference.decision import Action
    from velora_runtime.sinks.base import SinkContext

PORTS = {"mqtt": 1883, "mqtts": 8883}
MOST_UNSENT = 256
GOODBYE_S = 2.0
_REMEDY = "give --publish mqtt://HOST/TOPIC, or mqtts://USER:PASSWORD@HOST:PORT/TOPIC"


@dataclass(frozen=True, slots=True)
class Broker:
    """Broker and topic to publish to.

    Attributes:
        host: name or address.
        port: 1883, or 8883 with TLS.
        topic: of the predictions; `TOPIC/status` says online or offline, `TOPIC/action` the newest action.
        user: or None.
        password: or None.
        has_tls: the connection is encrypted, and the broker's certificate checked.
    """

    host: str
    port: int
    topic: str
    user: str | None
    password: str | None = field(repr=False)
    has_tls: bool

    @classmethod
    def parse(cls, url: str) -> Broker:
        """The broker that a URL names.

        Raises:
            InputError: if it is no such URL.
        """
        address = Address(url)
        try:
            parts = urlsplit(address.secret)
            port = parts.port
        except ValueError:  # it quotes a part of the address, which may be a part of the password
            raise InputError(f"cannot publish to {address!r}", remedy=_REMEDY) from None
        topic = unquote(parts.path.strip("/"))
        is_plain = topic and not set(topic) & {"+", "\0"} and "#" not in address.secret and not parts.query
        if parts.scheme not in PORTS or not parts.hostname or not is_plain:
            raise InputError(f"expected a broker and a topic, got {address!r}", remedy=_REMEDY)
        user, password = (
            None if text is None else unquote(text) for text in (parts.username, parts.password)
        )
        return cls(
            parts.hostname, port or PORTS[parts.scheme], topic, user, password, parts.scheme == "mqtts"
        )


class MqttSink(Sink):
    """Publishes at quality of service 0. A broker that is slow or away costs messages, never time.

    It connects in the background, and again whenever the connection is lost. A broker that is away or refuses
    is told once, and once more that it answers.

    Args:
        target: mqtt://[USER[:PASSWORD]@]HOST[:PORT]/TOPIC, or mqtts://.
        context: who is told.

    Raises:
        InputError: if the target is no such URL.
        MissingExtraError: if paho-mqtt is not installed.
    """

    name = "mqtt"
    takes_provisional = True
    may_lose = True

    def __init__(self, target: str, context: SinkContext) -> None:
        self._broker = broker = Broker.parse(target)
        try:
            from paho.mqtt.client import Client
            from paho.mqtt.enums import CallbackAPIVersion
        except ImportError as error:
            raise MissingExtraError("paho-mqtt", "mqtt", "--publish") from error
        self.lost = 0
        self._note, self._is_away = context.note, False
        self._unsent = 0
        self._lock = threading.Lock()
        self._client = client = Client(CallbackAPIVersion.VERSION2)
        if broker.user is not None:
            client.username_pw_set(broker.user, broker.password)
        if broker.has_tls:
            client.tls_set()
        client.will_set(self._status, "offline", retain=True)
        client.on_connect = self._greet
        client.on_connect_fail = lambda client, data: self._tell_away("nobody answers")
        client.on_publish = self._count_sent
        client.reconnect_delay_set(1, 30)
        client.connect_async(broker.host, broker.port)
        client.loop_start()

    @property
    def is_connected(self) -> bool:
        """There is a broker."""
        return self._client.is_connected()

    def take(self, result: Result) -> Prediction | None:
        """The prediction, where there is one."""
        return result.prediction

    def take_action(self, action: Action) -> Action:
        """The action."""
        return action

    def write(self, item: Prediction | Action) -> None:
        """Hand a message to the client's thread; lost where there is no broker, or it is far behind."""
        with self._lock:
            if self._unsent >= MOST_UNSENT or not self._client.is_connected():
                self.lost += 1
                return
            self._unsent += 1
        if isinstance(item, Prediction):
            self._client.publish(self._broker.topic, encode_line(item)[:-1])
        else:  # retained: whoever comes later hears what is going on
            self._client.publish(f"{self._broker.topic}/action", encode_line(item)[:-1], retain=True)

    def close(self) -> None:
        """Say goodbye, as far as the broker still listens."""
        if self._client.is_connected():
            with contextlib.suppress(RuntimeError, ValueError):  # it went away just now: its will is read
                self._client.publish(self._status, "offline", retain=True).wait_for_publish(GOODBYE_S)
        self._client.disconnect()
        self._client.loop_stop()
        if (left := self._client.socket()) is not None:  # its thread had just connected anew
            left.close()
        if self.lost:
            self._note(f"{self.lost:,} predictions were not published: {self._place} was away, or too slow")

    @property
    def _status(self) -> str:
        return f"{self._broker.topic}/status"

    def _greet(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        """Connected: what was unsent when the connection was lost is gone."""
        with self._lock:
            self.lost += self._unsent
            self._unsent = 0
        if reason.is_failure:
            self._tell_away(f"refuses: {reason}")
            return
        client.publish(self._status, "online", retain=True)
        if self._is_away:
            self._is_away = False
            self._note(f"publishing to {self._place}, which answers now")

    def _tell_away(self, why: str) -> None:
        """Tell that there is no broker, once for each time that it goes; the client's thread."""
        if not self._is_away:
            self._is_away = True
            self._note(f"the broker at {self._place}: {why}; predictions are not published until it does")

    @property
    def _place(self) -> str:
        return f"{self._broker.host}:{self._broker.port}"

    def _count_sent(self, client: Any, data: Any, message: int, reason: Any, properties: Any) -> None:
        with self._lock:
            self._unsent = max(0, self._unsent - 1)


DEPTH = 10
"""Predictions that are kept for a subscriber that is slow."""


class Ros2Sink(Sink):
    """Publishes predictions on TOPIC, and starts and ends of actions on TOPIC/action.

    The newest of these comes to later subscribers, too. A subscriber that is slow or away costs messages,
    never time.

    Args:
        target: ros2://TOPIC.
        context: not used.

    Raises:
        InputError: if the target is no topic, or ROS 2 is not there.

    Attributes:
        lost: messages that ROS 2 refused.
    """

    name = "ros2"
    takes_provisional = True
    may_lose = True

    def __init__(self, target: str, context: SinkContext) -> None:
        topic = parse_topic(target)
        self.lost = 0
        with contextlib.ExitStack() as closing:
            try:
                self._node = RosNode("velora", target)
                closing.callback(self._node.close)
                self._publish = self._node.publisher(topic, STRING_TYPE, DEPTH)
                self._publish_action = self._node.publisher(f"{topic}/action", STRING_TYPE, 1, is_kept=True)
            except CameraError as error:
                raise InputError(str(error), path=target, remedy="see that ros2 topic list works") from error
            closing.pop_all()

    def take(self, result: Result) -> Prediction | None:
        """The prediction, where there is one."""
        return result.prediction

    def take_action(self, action: Action) -> Action:
        """The action."""
        return action

    def write(self, item: Prediction | Action) -> None:
        """Publish a message; lost where ROS 2 refuses it."""
        publish = self._publish if isinstance(item, Prediction) else self._publish_action
        try:
            publish(data=encode_line(item)[:-1].decode())
        except CameraError:
            self.lost += 1

    def close(self) -> None:
        """Leave ROS 2."""
        self._node.close()
