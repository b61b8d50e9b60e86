"""Every kind of live camera: what opens the string that a user gave, and what is attached.

A camera is one file and one line here: who claims a string, and the module and the function or class that
makes the feed from the string and the setup. The module is imported when it is used.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from velora_edge.doctor.cameras import cameras as probe_cameras
from velora_runtime.cameras.drivers.inivation import list_inivation
from velora_runtime.cameras.drivers.prophesee import INSTALL_PAGE, list_prophesee

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from velora_runtime.cameras.feeds import LiveSetup
    from velora_runtime.cameras.live_events import LiveEvents
    from velora_runtime.cameras.live_rgb import LiveRGB


EMULATE = "emulate"
"""The event camera that is made up from the RGB camera's pictures."""


def _starts(*schemes: str) -> Callable[[str], bool]:
    return lambda text: text.lower().startswith(schemes)


EVENT_CAMERAS: list[tuple[Callable[[str], bool], str, str]] = [
    (_starts("tcp://"), "velora_runtime.cameras.drivers.raw_bytes", "TcpEvents"),
    (_starts("prophesee://"), "velora_runtime.cameras.drivers.prophesee", "PropheseeEvents"),
    (_starts("inivation://"), "velora_runtime.cameras.drivers.inivation", "InivationEvents"),
    (lambda text: text == "-", "velora_runtime.cameras.drivers.raw_bytes", "StdinEvents"),
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


CSI_CAMERAS = 2
"""Connectors of a Jetson developer kit."""


@dataclass(frozen=True, slots=True)
class Attached:
    """A camera.

    Attributes:
        option: of velora-live that takes it.
        source: what to give there; empty if it cannot be used as it is.
        name: for people.
        trouble: what is in the way, empty for nothing.
    """

    option: Literal["events", "rgb"]
    source: str
    name: str
    trouble: str = ""


def list_attached(root: Path = Path("/")) -> list[Attached]:
    """Event cameras first, then RGB cameras; those that are seen but cannot be used come with the trouble.

    Args:
        root: of the file system in which devices are looked for.
    """
    seen = probe_cameras(root)
    return [*_event_cameras(seen["event"]), *_video(seen["video"]), *_csi(is_there=seen["argus"])]


def _event_cameras(on_usb: list[dict[str, Any]]) -> Iterator[Attached]:
    """What the makers' libraries list; without a library, what USB shows."""
    for maker, scheme, listing, lack in (
        ("Prophesee", "prophesee", list_prophesee, f"install the Metavision SDK: {INSTALL_PAGE}"),
        ("iniVation", "inivation", list_inivation, "pip install 'velora-edge[inivation]'"),
    ):
        mine = [camera for camera in on_usb if camera["maker"] == maker]
        sources, trouble = _ask(listing, lack)
        for source in sources:
            yield Attached("events", source, maker)
        if sources:
            continue
        for camera in mine:
            reason = trouble or ("" if camera["allowed"] else "no permission: install the maker's udev rules")
            name = f"{maker} {camera['name']}"
            yield Attached("events", f"{scheme}://{camera['serial'] or ''}", name, reason)


def _ask(listing: Callable[[], list[str]], lack: str) -> tuple[list[str], str]:
    """What a library lists, and what is in its way."""
    try:
        return listing(), ""
    except ImportError:
        return [], lack
    except (RuntimeError, OSError) as error:
        return [], str(error).splitlines()[0]


def _video(devices: list[dict[str, Any]]) -> Iterator[Attached]:
    for device in devices:
        if device["captures"] is False:
            continue  # a camera's other nodes, for its metadata
        trouble = "" if device["allowed"] else "no permission: add yourself to the group video"
        yield Attached("rgb", device["device"], device["name"], trouble)


def _csi(*, is_there: bool) -> Iterator[Attached]:
    """NVIDIA's daemon does not tell which connectors have a camera."""
    if is_there:
        for number in range(CSI_CAMERAS):
            yield Attached("rgb", f"csi://{number}", f"CSI connector {number}, if there is a camera on it")
