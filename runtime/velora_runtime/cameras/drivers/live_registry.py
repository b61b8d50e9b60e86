"""Every kind of live camera, and what opens the string that a user gave.

A camera is one file and one line here: who claims a string, and the module and the function or class that
makes the feed from the string and the setup. The module is imported when it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from velora_runtime.cameras.event_feed import LiveSetup
    from velora_runtime.cameras.live_events import LiveEvents
    from velora_runtime.cameras.live_rgb import LiveRGB

EMULATE = "emulate"
"""The event camera that is made up from the RGB camera's pictures."""


def _starts(*schemes: str) -> Callable[[str], bool]:
    return lambda text: text.lower().startswith(schemes)


EVENT_CAMERAS: list[tuple[Callable[[str], bool], str, str]] = [
    (_starts("tcp://"), "velora_runtime.cameras.drivers.tcp_events", "TcpEvents"),
    (_starts("prophesee://"), "velora_runtime.cameras.drivers.prophesee", "PropheseeEvents"),
    (_starts("inivation://"), "velora_runtime.cameras.drivers.inivation", "InivationEvents"),
    (lambda text: text == "-", "velora_runtime.cameras.drivers.stdin_events", "StdinEvents"),
]
RGB_CAMERAS: list[tuple[Callable[[str], bool], str, str]] = [
    (
        lambda text: text.isdigit() or text.startswith("/dev/video"),
        "velora_runtime.cameras.drivers.av_camera",
        "open_v4l2",
    ),
    (
        _starts("rtsp://", "rtsps://", "http://", "https://", "udp://", "rtp://", "srt://", "rtmp://"),
        "velora_runtime.cameras.drivers.av_camera",
        "open_network",
    ),
    (_starts("csi://"), "velora_runtime.cameras.drivers.gstreamer", "open_csi"),
    (_starts("gst://"), "velora_runtime.cameras.drivers.gstreamer", "open_pipeline"),
]


def is_live(*texts: str) -> bool:
    """Whether one of these strings names a live camera."""
    return any(claims(text) for claims, _, _ in (*EVENT_CAMERAS, *RGB_CAMERAS) for text in texts)


def open_live_events(text: str, setup: LiveSetup) -> LiveEvents | None:
    """The live event camera that a string names; None if it names none.

    Raises:
        InputError: if it is not there, or cannot be used.
        MissingExtraError: if its library is not installed.
    """
    feed = _make(EVENT_CAMERAS, text, setup)
    if feed is None:
        return None
    from velora_runtime.cameras.live_events import LiveEvents

    return LiveEvents(feed, setup)


def open_live_rgb(text: str, setup: LiveSetup) -> LiveRGB | None:
    """The live RGB camera that a string names; None if it names none.

    Raises:
        InputError: if it is not there, or cannot be used.
    """
    feed = _make(RGB_CAMERAS, text, setup)
    if feed is None:
        return None
    from velora_runtime.cameras.live_rgb import LiveRGB

    return LiveRGB(feed, setup)


def _make(cameras: list[tuple[Callable[[str], bool], str, str]], text: str, setup: LiveSetup) -> Any:
    for claims, module, name in cameras:
        if claims(text):
            return getattr(importlib.import_module(module), name)(text, setup)
    return None
