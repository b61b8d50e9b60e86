"""Registry of recorded sources, RGB and events, by the string that a user gives.

An RGB source is one file with a class and one line in `RGB_SOURCES`; whatever is a file of events is opened
by the registry of event formats. A source's module is imported when it is used.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from velora_edge.bundle import PACKAGED
from velora_edge.errors import InputError, RecordingError, SourceError, printable
from velora_edge.preprocessing.folder import is_recording, read_recording
from velora_edge.preprocessing.pictures import holds_aedat4
from velora_edge.preprocessing.sources import NONE
from velora_edge.preprocessing.windows import pair_rate_hz

if TYPE_CHECKING:
    from collections.abc import Callable

    from velora_edge.events.base import EventReader
    from velora_edge.preprocessing.sources import RGBSource

_SCHEME = re.compile(r"^[a-z][a-z0-9+.-]+://", re.IGNORECASE)

RGB_SOURCES: list[tuple[Callable[[str], bool], str, str]] = [
    (is_recording, "velora_edge.preprocessing.video_file", "RecordedVideo"),
    (lambda text: Path(text).is_dir(), "velora_edge.preprocessing.pictures", "ImageFolder"),
    (holds_aedat4, "velora_edge.preprocessing.pictures", "Aedat4Frames"),
    (lambda text: Path(text).is_file(), "velora_edge.preprocessing.video_file", "VideoFile"),
]
"""Who claims a string, and the module and class that open it; the first that claims it is taken."""


def open_rgb_source(text: str) -> RGBSource | None:
    """Open the RGB source that a user's string names; None for `none`.

    Raises:
        SourceError: if nothing here opens such a string, or there is no such file.
        RecordingError: if the file cannot be used.
    """
    if text == NONE:
        return None
    for claims, module, name in RGB_SOURCES:
        if claims(text):
            source: Any = getattr(importlib.import_module(module), name)
            try:
                return cast("RGBSource", source(text))
            except RecordingError as error:
                if name != "VideoFile":
                    raise  # it was one of those, and the error says what it lacks
                raise _if_swapped(text, "--rgb", error) from error
    raise _unknown(
        text,
        "RGB",
        "a video file, an AEDAT4 file with frames, a folder of images with timestamps.txt, or none",
    )


def recorded_rate_hz(text: str) -> float | None:
    """Frames a second of the recording that a user's string names; None where its frames do not tell.

    Raises:
        InputError: as `open_rgb_source`.
    """
    source = open_rgb_source(text)
    if source is None:
        return None
    try:
        return pair_rate_hz(source.times_us())
    finally:
        source.close()


def open_event_source(text: str, sensor: tuple[int, int] | None = None) -> EventReader | None:
    """Open the event source that a user's string names; None for `none`.

    Args:
        text: the user's string.
        sensor: width and height in pixels, for files that do not tell.

    Raises:
        SourceError: if nothing here opens such a string, or there is no such file.
        RecordingError: if the file cannot be used.
    """
    if text == NONE:
        return None
    if not Path(text).exists():
        raise _unknown(text, "event", "a recording of events, or none")
    from velora_edge.events.registry import open_events

    if not is_recording(text):
        try:
            return open_events(text, sensor=sensor)
        except RecordingError as error:
            raise _if_swapped(text, "--events", error) from error
    recorded = read_recording(text).events
    if recorded is None:
        raise SourceError("the recording holds no events", path=text, remedy="use --events none")
    return open_events(recorded, sensor=sensor)


def _if_swapped(text: str, option: str, error: RecordingError) -> InputError:
    """The error that tells what a file is that was given for the other camera; else the one there was."""
    other, what = ("--rgb", "a video") if option == "--events" else ("--events", "a recording of events")
    if not (_is_a_video(text) if option == "--events" else _is_of_events(text)):
        return error
    return SourceError(f"is {what}, and was given with {option}", path=text, remedy=f"give it with {other}")


def _is_a_video(text: str) -> bool:
    from velora_edge.preprocessing.video_file import VideoFile

    try:
        return Path(text).is_file() and bool(VideoFile(text).width)
    except RecordingError:
        return False


def _is_of_events(text: str) -> bool:
    from velora_edge.events.registry import open_events

    try:
        with open_events(text):
            return True
    except InputError as error:
        return isinstance(error, RecordingError) and error.remedy.startswith("pass the sensor's size")


def _unknown(text: str, camera: str, known: str) -> SourceError:
    if _SCHEME.match(text) or text == "-" or text.isdigit():
        return SourceError(f"no {camera} source of this kind; there are: {known}", path=text)
    return SourceError(
        f"no such file or folder; an {camera} source is {known}", path=text, remedy="check the path"
    )


@dataclass(frozen=True, slots=True)
class Sources:
    """Sources to open.

    Attributes:
        model: a bundle's folder, or demo.
        events: the event source, or none.
        rgb: the RGB source, or none.
    """

    model: str
    events: str
    rgb: str


def find_sources(
    model: str,
    recording: str | None,
    events: str | None,
    rgb: str | None,
    note: Callable[[str], None],
    agree: Callable[[str], bool] = lambda question: False,
) -> Sources:
    """The sources that a user means.

    Args:
        model: what stands in the model's place; a recording there brings the model that it was made with.
        recording: the folder that was given for both cameras, or None.
        events: the event source, None where nothing was said; a recording brings its video too.
        rgb: the RGB source, likewise.
        note: gets a line about what is odd.
        agree: asks the user whether to run a model that a recording names, which may come from anywhere.

    Raises:
        InputError: if the folder holds no recording, the model that it was made with is not known, or the
            user does not agree.
    """
    if recording is None and is_recording(model):
        recording, model = model, _model_of(model, agree)
    if recording is not None:
        if not is_recording(recording):
            raise SourceError(
                "expected a folder that --record wrote",
                path=recording,
                remedy="give other recordings with --events and --rgb",
            )
        events = recording if events is None else events
    if events is None or not is_recording(events):
        return Sources(model, events or NONE, rgb or NONE)
    folder = read_recording(events)
    for warning in folder.warnings:
        note(warning)
    if rgb is None:
        rgb = events if folder.video is not None and _is_video(events, note) else NONE
    return Sources(model, events if folder.events is not None else NONE, rgb)


def _model_of(folder: str, agree: Callable[[str], bool]) -> str:
    model = read_recording(folder).facts.model
    if model is None:
        raise InputError(
            "was recorded without a model", path=folder, remedy="give one: velora-live MODEL " + folder
        )
    path, shown = model["path"], printable(model["path"])
    if path != PACKAGED and not agree(f"The recording names its model: {shown}. Run it?"):
        raise InputError(
            "names the model that it was made with, which is not run unasked",
            path=folder,
            remedy=f"if you trust it, give it: velora-live {shown} {folder}",
        )
    return path


def _is_video(folder: str, note: Callable[[str], None]) -> bool:
    """Whether there is a frame in it: a recording that was killed at its start may have none."""
    try:
        open_rgb_source(folder)
    except RecordingError as error:
        note(f"no video: {error}")
        return False
    return True
