"""What `velora info` tells of a recording's folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from velora_edge.preprocessing.sources.folder import is_recording, read_recording

if TYPE_CHECKING:
    from velora_edge.preprocessing.sources.folder import Recording

__all__ = ["describe", "is_recording", "rows"]


def describe(path: str) -> dict[str, Any]:
    """Everything that the folder tells of itself; every value is a plain one.

    Raises:
        RecordingError: if the folder holds no recording, or its times cannot be read.
    """
    recording = read_recording(path)
    facts, span_s = recording.facts, _span_s(recording)
    return {
        "kind": "recording",
        "started": facts.started,
        "ended": facts.ended,
        "why_ended": facts.why_ended,
        "duration_s": span_s,
        "events": facts.events if recording.events is not None else None,
        "video": facts.video if recording.video is not None else None,
        "frames": len(recording.times_us()),
        "triggers": len(recording.triggers()),
        "model": facts.model,
        "dropped": facts.dropped,
        "bytes": sum(file.stat().st_size for file in recording.folder.iterdir()),
        "warnings": list(recording.warnings),
    }


def rows(path: str) -> list[tuple[str, str]]:
    """The same for people."""
    said = describe(path)
    events, video, model = said["events"], said["video"], said["model"]
    lost = ", ".join(f"{n:,} {what}" for what, n in said["dropped"].items() if n)
    return [
        ("kind", "recording of both cameras" if events and video else "recording of one camera"),
        ("started", said["started"]),
        ("ended", f"{said['ended']}, {said['why_ended']}" if said["ended"] else "not properly"),
        ("duration", f"{said['duration_s']:.3f} s, {said['bytes'] / 1e6:.1f} MB"),
        (
            "events",
            "none" if not events else f"{events.get('encoding', '?')} from {events.get('source', '?')}",
        ),
        (
            "video",
            "none"
            if not video
            else f"{video.get('width', '?')}x{video.get('height', '?')}, {said['frames']:,} frames, "
            f"from {video.get('source', '?')}",
        ),
        ("triggers", f"{said['triggers']:,}"),
        ("model", "none" if model is None else f"{model.get('name', '?')} ({model.get('path', '?')})"),
        ("lost", lost or "nothing"),
        *(("warning", warning) for warning in said["warnings"]),
    ]


def _span_s(recording: Recording) -> float:
    """By the frames' times where there are any, which a crash leaves; else by what was noted at the end."""
    times_us = recording.times_us()
    if len(times_us):
        return float(times_us[-1] - times_us[0]) / 1e6
    first_us, last_us = recording.facts.first_us, recording.facts.last_us
    return 0.0 if first_us is None or last_us is None else (last_us - first_us) / 1e6
