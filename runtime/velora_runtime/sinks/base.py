"""Interface of sinks, somewhere that results go, and every sink by name.

A sink is one file with a class and one line in `SINKS`, or a plugin (`velora.sinks`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from velora_edge.errors import InputError
from velora_edge.extensions import Extension, Option, Registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from velora_edge.bundle import Manifest
    from velora_edge.datatypes import FramePair, Prediction
    from velora_runtime.inference.decision import Action, Decided


@dataclass(frozen=True, slots=True)
class SinkContext:
    """Context of a run for its sinks, before it begins.

    Attributes:
        manifest: the model's.
        rgb_hw: height and width of the RGB pictures, pixels; None where there is no RGB camera.
        event_hw: height and width of the event frames; None where there is no event camera.
        decides: the run tells when actions start and end.
        note: gets a line for people, from any thread.
    """

    manifest: Manifest
    rgb_hw: tuple[int, int] | None = None
    event_hw: tuple[int, int] | None = None
    decides: bool = False
    note: Callable[[str], None] = lambda line: None


@dataclass(frozen=True, slots=True)
class Result:
    """Pair that the model has seen, with its prediction.

    Attributes:
        pair: the pair; its event frame's image is used again once `Sink.take` has returned.
        prediction: None while the first clip is not full.
        missing: pairs that lack until it is.
        decided: what is held to be going on; None in a run that does not decide.
    """

    pair: FramePair
    prediction: Prediction | None
    missing: int = 0
    decided: Decided | None = None


class Sink(ABC):
    """Receiver of predictions.

    `take` and `take_action` are called by the inference thread, all else by the sink's own.

    Attributes:
        name: for people and for the count of what was dropped.
        room: items that wait for its thread.
        may_lose: what finds no room is dropped and counted, at pace max too, where others are waited for.
        takes_provisional: it takes predictions between pairs too, which have no picture.
    """

    name: str
    room = 256
    may_lose = False
    takes_provisional = False

    @abstractmethod
    def take(self, result: Result) -> Any:
        """Return an item for `write`, or None if the sink does not need it. Quick; copies what is reused."""

    def take_action(self, action: Action) -> Any:
        """Return an item for `write` of an action that starts or ends with the pair just taken, or None."""
        return None

    @abstractmethod
    def write(self, item: Any) -> None:
        """Write an item that `take` or `take_action` gave.

        Raises:
            InputError: if it cannot be written.
        """

    def discard(self, item: Any) -> None:  # noqa: B027  (most items need no care)
        """An item was dropped, because the sink is too slow."""

    def close(self) -> None:  # noqa: B027  (most sinks hold nothing)
        """Finish what was written, also after an error elsewhere; nothing is left half-written."""


STANDARD_OUTPUT = "-"
"""The target that stands for it."""
_S = "velora_runtime.sinks."
SINKS = Registry(
    "velora.sinks",
    [
        Extension("terminal", f"{_S}terminal:TerminalSink", "lines for people"),
        Extension(
            "jsonl",
            f"{_S}jsonl:JsonlSink",
            "lines of JSON",
            options=(
                Option(
                    "--out",
                    "FILE.jsonl",
                    f"Write each prediction as a line of JSON; {STANDARD_OUTPUT}: to standard output alone.",
                ),
            ),
        ),
        Extension(
            "video",
            f"{_S}video:VideoSink",
            "a video",
            options=(Option("--video", "FILE.mp4", "Write a video of both cameras with the label."),),
        ),
        Extension(
            "publish",
            f"{_S}publishers:MqttSink",
            "messages to an MQTT broker",
            options=(
                Option("--publish", "URL", "Publish each prediction: mqtt://[USER@]HOST[:PORT]/TOPIC."),
            ),
        ),
        Extension("ros2", f"{_S}publishers:Ros2Sink", "messages on a topic of ROS 2: --sink ros2://TOPIC"),
        Extension(
            "rerun",
            f"{_S}rerun_viewer:RerunSink",
            "the Rerun viewer",
            options=(
                Option(
                    "--rerun",
                    "TARGET",
                    "Show the run in Rerun: spawn, rerun+http://HOST:9876/proxy, or FILE.rrd; "
                    "10 pairs a second.",
                ),
            ),
        ),
    ],
)
"""Called as `sink(target, context)`; its first option is the one of velora-live that gives its target."""


def open_sink(name: str, target: str, context: SinkContext) -> Sink:
    """The sink called `name`, on its target.

    Args:
        name: one of `SINKS`, or a plugin's.
        target: where it writes: a file's path; the terminal takes none.
        context: of the run.

    Raises:
        InputError: if there is no such sink, or it cannot write there.
        PluginError: if a plugin brings it, and cannot be used.
    """
    known = SINKS.find(name)
    if known is None:
        raise InputError(f"no sink is called {name!r}; there are {SINKS.names()}")
    return cast("Sink", known.load()(target, context))
