"""Registry of live cameras by the string that a user gives, and the list of attached ones.

A camera is one file and one line in `CAMERAS`, or a plugin (`velora.cameras`): the function or class that
makes the feed from the string and the setup. Its module is imported when it is used.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from velora_edge.errors import Address, InputError, PluginError
from velora_edge.extensions import Extension, Registry
from velora_edge.preprocessing.registry import find_sources
from velora_edge.preprocessing.sources import NONE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from velora_edge.preprocessing.registry import Sources
    from velora_runtime.cameras.feeds import LiveSetup
    from velora_runtime.cameras.live_events import LiveEvents
    from velora_runtime.cameras.live_rgb import LiveRGB


EMULATE = "emulate"
"""The event camera that is made up from the RGB camera's pictures."""
_NETWORK = ("rtsp", "rtsps", "http", "https", "udp", "rtp", "srt", "rtmp")


def _is_v4l2(text: str) -> bool:
    return text.isdigit() or text.startswith("/dev/video")


_D = "velora_runtime.cameras.drivers."
CAMERAS = Registry(
    "velora.cameras",
    [
        Extension(
            "neuromorphic",
            f"{_D}neuromorphic:NeuromorphicEvents",
            "neuromorphic://[SERIAL]",
            modality="events",
            listing=f"{_D}neuromorphic:list_neuromorphic",
        ),
        Extension(
            "prophesee",
            f"{_D}prophesee:PropheseeEvents",
            "prophesee://[SERIAL]",
            modality="events",
            listing=f"{_D}prophesee:list_prophesee",
        ),
        Extension(
            "inivation",
            f"{_D}inivation:InivationEvents",
            "inivation://HOST:PORT",
            modality="events",
            listing=f"{_D}inivation:list_inivation",
        ),
        Extension("ros2", f"{_D}ros2:Ros2Events", "ros2://TOPIC", modality="events"),
        Extension("tcp", f"{_D}raw_bytes:TcpEvents", "tcp://HOST:PORT", modality="events"),
        Extension(
            "stdin",
            f"{_D}raw_bytes:StdinEvents",
            "- (standard input)",
            lambda text: text == "-",
            modality="events",
        ),
        Extension("v4l2", f"{_D}gstreamer:open_v4l2", "0 or /dev/video0", _is_v4l2, modality="rgb"),
        Extension("csi", f"{_D}gstreamer:open_csi", "csi://0", modality="rgb"),
        Extension(
            "network",
            f"{_D}gstreamer:open_network",
            "rtsp:// or http:// address",
            lambda text: _scheme(text) in _NETWORK,
            modality="rgb",
        ),
        Extension("gst", f"{_D}gstreamer:open_pipeline", "gst://PIPELINE", modality="rgb"),
        Extension(
            "ros2-image",
            f"{_D}ros2:Ros2Images",
            "ros2://TOPIC",
            lambda text: _scheme(text) == "ros2",
            modality="rgb",
        ),
        Extension(
            "davis",
            f"{_D}neuromorphic:NeuromorphicFrames",
            "neuromorphic://[SERIAL] (a DAVIS)",
            lambda text: _scheme(text) == "neuromorphic",
            modality="rgb",
            listing=f"{_D}neuromorphic:list_davis",
        ),
    ],
)
"""The help is what a user gives; called as `feed(text, setup)`."""


def describe_cameras(modality: Literal["events", "rgb"]) -> str:
    """What a user can give for a live camera, for `--help`."""
    return ", ".join(camera.help for camera in CAMERAS if camera.modality == modality)


def is_live(*texts: str) -> bool:
    """Whether one of these strings names a live camera."""
    return any(_find(text, "events", "rgb") is not None for text in texts)


def open_live_events(text: str, setup: LiveSetup) -> LiveEvents | None:
    """The live event camera that a string names; None if it names none.

    Raises:
        InputError: if it is not there, or cannot be used.
        MissingExtraError: if its library is not installed.
    """
    feed = _make("events", text, setup)
    if feed is None:
        return None
    from velora_runtime.cameras.live_events import LiveEvents

    return LiveEvents(feed, setup)


def open_live_rgb(text: str, setup: LiveSetup) -> LiveRGB | None:
    """The live RGB camera that a string names; None if it names none.

    Raises:
        InputError: if it is not there, or cannot be used.
    """
    feed = _make("rgb", text, setup)
    if feed is None:
        return None
    from velora_runtime.cameras.live_rgb import LiveRGB

    return LiveRGB(feed, setup)


def live_rate_hz(text: str, setup: LiveSetup) -> float | None:
    """Frames a second of the live RGB camera that a string names: as its settings ask for, or as they come.

    Where it has to be measured, the camera is opened, watched for about a second, and closed again.

    Raises:
        InputError: if it is not there, or cannot be used.
    """
    if setup.settings.rgb.rate_hz is not None:
        return setup.settings.rgb.rate_hz
    camera = open_live_rgb(text, setup)
    if camera is None:
        return None
    try:
        camera.start(hurry=False)
        return camera.measure_rate_hz()
    finally:
        camera.close()


def _make(modality: str, text: str, setup: LiveSetup) -> Any:
    """A driver gets an `Address`: what it shows of it is redacted, and it connects with its `secret`."""
    camera = _find(text, modality)
    return None if camera is None else camera.load()(Address(text), setup)


def _find(text: str, *modalities: str) -> Extension | None:
    """The camera that a string names; plugins are looked for where it has a scheme that is not built in."""
    scheme = _scheme(text)
    for camera in CAMERAS:
        claims = camera.name == scheme if camera.claims is None else camera.claims(text)
        if claims and camera.modality in modalities:
            return camera
    plugin = CAMERAS.find(scheme) if scheme and scheme not in CAMERAS else None
    return plugin if plugin is not None and plugin.modality in modalities else None


def _scheme(text: str) -> str:
    scheme, separator, _ = text.partition("://")
    return scheme.lower() if separator else ""


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
    from velora_edge.doctor.host import cameras as probe_cameras

    seen = probe_cameras(root)
    listed = list(_listed(seen["event"]))
    events = [one for one in listed if one.option == "events"]
    frames = [one for one in listed if one.option == "rgb"]
    return [*events, *_video(seen["video"]), *_csi(is_there=seen["argus"]), *frames]


def _listed(on_usb: list[dict[str, Any]]) -> Iterator[Attached]:
    """What libraries list, neuromorphic-drivers first; without any that does, what USB shows."""
    drivers, has_listed = "", False
    for driver in CAMERAS.all():
        mine = [camera for camera in on_usb if camera["maker"].lower() == driver.name]
        scheme, (sources, trouble, is_absent) = driver.name, _ask(driver)
        for source in sources:
            yield Attached(driver.modality or "events", source, _maker(driver))
        if driver.name == "neuromorphic":
            drivers, has_listed = trouble, bool(sources)
        if sources or has_listed:
            continue
        if is_absent and drivers:  # the one that needs no SDK is the one to install
            scheme, trouble = "neuromorphic", drivers
        for camera in mine:
            reason = trouble or ("" if camera["allowed"] else "no permission: install the maker's udev rules")
            name = f"{camera['maker']} {camera['name']}"
            yield Attached("events", f"{scheme}://{camera['serial'] or ''}", name, reason)


def _maker(driver: Extension) -> str:
    from velora_edge.doctor.host import EVENT_CAMERAS

    makers = {maker.lower(): maker for _, maker, _ in EVENT_CAMERAS}
    makers |= {"neuromorphic": "by neuromorphic-drivers", "davis": "the event camera's own frames"}
    return makers.get(driver.name, driver.package)


def _ask(driver: Extension) -> tuple[list[str], str, bool]:
    """What a library lists, what is in its way, and whether that is that it is not installed."""
    try:
        return driver.attached(), "", False
    except (ImportError, RuntimeError, OSError, PluginError) as error:
        return [], str(error).splitlines()[0], isinstance(error, ImportError)


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


def choose_attached(found: list[Attached], note: Callable[[str], None]) -> tuple[str, str]:
    """The attached event camera and the attached RGB camera, for a run whose cameras nobody named.

    Args:
        found: what is attached, the first choice first.
        note: gets a line about each: which, and why, or why none.

    Returns:
        What to open for events and for RGB; `none` where there is none.

    Raises:
        InputError: if no camera can be used; it tells what is in the way, and what to do next.
    """
    events, rgb = (_choose(found, option, note) for option in ("events", "rgb"))
    if (events, rgb) != (NONE, NONE):
        return events, rgb
    raise InputError(
        "no camera can be used" if found else "no camera is attached",
        remedy=next((one.trouble for one in found if one.trouble), "attach one, and look with velora cameras")
        + "; or give recordings: velora-live MODEL --events FILE --rgb FILE",
    )


def _choose(found: list[Attached], option: str, note: Callable[[str], None]) -> str:
    mine = [one for one in found if one.option == option]
    usable = [one for one in mine if not one.trouble]
    for one in mine:
        if one.trouble:
            note(f"--{option} {one.source} ({one.name}) cannot be used: {one.trouble}")
    if not usable:
        note(f"--{option} none: no such camera {'can be used' if mine else 'is attached'}")
        return NONE
    others = "".join(f", before {one.source}" for one in usable[1:])
    note(f"--{option} {usable[0].source}: {usable[0].name}{others}")
    return usable[0].source


def find_run_sources(
    model: str,
    recording: str | None,
    events: str | None,
    rgb: str | None,
    note: Callable[[str], None],
    agree: Callable[[str], bool] = lambda question: False,
) -> Sources:
    """The sources that a user means: see `find_sources`; without any, the attached cameras.

    Raises:
        InputError: as `find_sources`, or if no camera is attached.
    """
    found = find_sources(model, recording, events, rgb, note, agree)
    if events is None and rgb is None and found.events == found.rgb == NONE:
        events, rgb = choose_attached(list_attached(), note)
        found = replace(found, events=events, rgb=rgb)
    return found
