"""ASCII header of a Prophesee `.raw` file: `% key value` lines, and the encoding that they state."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from velora_edge.errors import RecordingError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from velora_edge.events.base import Encoding


LONGEST_HEADER = 1 << 16
_BY_NAME: dict[str, Encoding] = {
    "2": "EVT2",
    "2.0": "EVT2",
    "EVT2": "EVT2",
    "2.1": "EVT2.1",
    "EVT21": "EVT2.1",
    "EVT2.1": "EVT2.1",
    "3": "EVT3",
    "3.0": "EVT3",
    "EVT3": "EVT3",
}
# What gives the sensor away where its size is not written. (Metavision's plugins; ids seen in files.)
_SENSOR_BY_HINT = {
    "plugin_name": (
        ("genx320", (320, 320)),
        ("gen3", (640, 480)),
        ("gen4", (1280, 720)),
        ("imx", (1280, 720)),
    ),
    "generation": (("320", (320, 320)), ("3.", (640, 480)), ("4.", (1280, 720))),
    "sensor_name": (
        ("genx320", (320, 320)),
        ("gen3", (640, 480)),
        ("gen4", (1280, 720)),
        ("imx", (1280, 720)),
    ),
}
_SENSOR_BY_SYSTEM_ID = {"21": (640, 480), "48": (1280, 720), "49": (1280, 720)}


@dataclass(frozen=True, slots=True)
class RawHeader:
    """Content of the header.

    Attributes:
        encoding: of the words, None where the header does not tell.
        sensor: width and height in pixels, None where it neither tells nor gives it away.
        is_legacy: EVT2.1's order of halves: True with the typed half first, None where the header does not
        tell. payload_at: byte at which the words begin.
        fields: every `key value` line.
    """

    encoding: Encoding | None
    sensor: tuple[int, int] | None
    is_legacy: bool | None
    payload_at: int
    fields: dict[str, str] = field(default_factory=dict)


def parse_header(head: bytes, path: Path | None = None, sensor: tuple[int, int] | None = None) -> RawHeader:
    """The header at the beginning of `head`; a stream without one gives an empty header.

    Args:
        head: the file's first bytes, `LONGEST_HEADER` of them or all.
        path: named in errors.
        sensor: width and height, where they are known: then what the header says of them is not looked at.

    Raises:
        RecordingError: if a line that matters cannot be understood.
    """
    fields: dict[str, str] = {}
    payload_at = 0
    for line, end in _lines(head):
        payload_at = end
        if line.strip() == "end":
            break
        key, _, value = line.strip().partition(" ")
        fields[key.lower()] = value.strip()
    encoding, options = _read_format(fields, path)
    order = fields.get("endianness", options.get("endianness"))
    return RawHeader(
        encoding, sensor or _read_sensor(fields, options, path), None if order is None else order == "legacy",
        payload_at, fields,
    )  # fmt: skip


def _lines(head: bytes) -> Iterator[tuple[str, int]]:
    """Header lines without their `%`, each with the position after it.

    Payload may begin with the bytes of `% ` as well, so what follows has to be printable up to its line's
    end.
    """
    at = 0
    while head[at : at + 1] == b"%" and (newline := head.find(b"\n", at)) >= 0:
        line = head[at + 1 : newline].rstrip(b"\r")
        if not all(byte == 9 or 32 <= byte < 127 for byte in line) or (line and line[:1] not in b" \t"):
            return
        at = newline + 1
        yield line.decode("ascii"), at


def _read_format(fields: dict[str, str], path: Path | None) -> tuple[Encoding | None, dict[str, str]]:
    """Encoding by `evt` or `format`, and the options of `format`: `EVT3;height=480;width=640`."""
    name, *pairs = fields.get("format", "").split(";")
    options = {key.strip(): value.strip() for key, _, value in (pair.partition("=") for pair in pairs)}
    said = fields.get("evt") or name.strip()
    if not said:
        return None, options
    encoding = _BY_NAME.get(said.upper())
    if encoding is None:
        raise RecordingError(
            f"expected events of EVT2, EVT2.1 or EVT3, got {said!r}",
            path=path,
            place="header",
            remedy="convert the recording with the tool that wrote it",
        )
    return encoding, options


def _read_sensor(
    fields: dict[str, str], options: dict[str, str], path: Path | None
) -> tuple[int, int] | None:
    for key, text in (
        ("geometry", fields.get("geometry")),
        ("format", f"{options.get('width')}x{options.get('height')}" if "width" in options else None),
        ("width, height", f"{fields.get('width')}x{fields.get('height')}" if "width" in fields else None),
    ):
        if text is None:
            continue
        match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
        if not match or not (0 < int(match[1]) <= 65536 and 0 < int(match[2]) <= 65536):
            raise RecordingError(
                f"expected a sensor size such as 1280x720, got {text!r}",
                path=path,
                place=f"header, {key}",
                remedy="pass --sensor WxH",
            )
        return int(match[1]), int(match[2])
    for key, hints in _SENSOR_BY_HINT.items():
        for hint, sensor in hints:
            if hint in fields.get(key, "").lower():
                return sensor
    return _SENSOR_BY_SYSTEM_ID.get(fields.get("system_id", ""))
