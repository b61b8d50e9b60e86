"""Registry of sinks by name.

A sink is one file with a class and one line in `SINKS`, or a plugin (`velora.sinks`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from velora_edge.errors import InputError
from velora_edge.extensions import Extension, Option, Registry

if TYPE_CHECKING:
    from velora_runtime.sinks.base import Sink, SinkContext


_S = "velora_runtime.sinks."
SINKS = Registry(
    "velora.sinks",
    [
        Extension("terminal", f"{_S}terminal:TerminalSink", "lines for people"),
        Extension(
            "jsonl",
            f"{_S}jsonl:JsonlSink",
            "lines of JSON",
            options=(Option("--out", "FILE.jsonl", "Write each prediction as a line of JSON."),),
        ),
        Extension(
            "video",
            f"{_S}video:VideoSink",
            "a video",
            options=(Option("--video", "FILE.mp4", "Write a video of both cameras with the label."),),
        ),
        Extension(
            "publish",
            f"{_S}mqtt:MqttSink",
            "messages to an MQTT broker",
            options=(
                Option("--publish", "URL", "Publish each prediction: mqtt://[USER@]HOST[:PORT]/TOPIC."),
            ),
        ),
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
