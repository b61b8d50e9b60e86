"""Where a recording's folder may be given: as both sources at once, or even in place of the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from velora_edge.errors import InputError, RecordingError, SourceError
from velora_edge.preprocessing.sources.folder import is_recording, read_recording
from velora_edge.preprocessing.sources.registry import NONE, open_rgb_source

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Sources:
    """What is to be opened.

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
) -> Sources:
    """The sources that a user means.

    Args:
        model: what stands in the model's place; a recording there brings the model that it was made with.
        recording: the folder that was given for both cameras, or None.
        events: the event source, None where nothing was said; a recording brings its video too.
        rgb: the RGB source, likewise.
        note: gets a line about what is odd.

    Raises:
        InputError: if the folder holds no recording, or the model that it was made with is not known.
    """
    if recording is None and is_recording(model):
        recording, model = model, _model_of(model)
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


def _model_of(folder: str) -> str:
    model = read_recording(folder).facts.model
    if model is None:
        raise InputError(
            "was recorded without a model", path=folder, remedy="give one: velora-live MODEL " + folder
        )
    return model["path"]


def _is_video(folder: str, note: Callable[[str], None]) -> bool:
    """Whether there is a frame in it: a recording that was killed at its start may have none."""
    try:
        open_rgb_source(folder)
    except RecordingError as error:
        note(f"no video: {error}")
        return False
    return True
