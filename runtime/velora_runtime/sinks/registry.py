"""Every kind of sink by name; a sink is one file with a class and one line here."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from velora_runtime.sinks.base import Sink, SinkContext

SINKS = {
    "terminal": ("velora_runtime.sinks.terminal", "TerminalSink"),
    "jsonl": ("velora_runtime.sinks.jsonl", "JsonlSink"),
    "video": ("velora_runtime.sinks.video", "VideoSink"),
    "publish": ("velora_runtime.sinks.mqtt", "MqttSink"),
    "rerun": ("velora_runtime.sinks.rerun_viewer", "RerunSink"),
}


def open_sink(name: str, target: str, context: SinkContext) -> Sink:
    """The sink called `name`, on its target.

    Args:
        name: one of `SINKS`.
        target: where it writes: a file's path; the terminal takes none.
        context: of the run.

    Raises:
        InputError: if it cannot write there.
    """
    module, kind = SINKS[name]
    return cast("Sink", getattr(importlib.import_module(module), kind)(target, context))
