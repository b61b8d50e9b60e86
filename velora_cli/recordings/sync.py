"""`velora sync`: offset between a video and a recording of events."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from velora_edge.preprocessing.offset import Measured

EXAMPLES = """\b
Examples, in a checkout:
  D=velora_edge/assets
  velora sync $D/demo.raw $D/demo.mp4
  velora sync $D/demo.raw $D/demo.mp4 --search 5 --plot offset.png
  velora record today --events $D/demo.raw --rgb $D/demo.mp4 --pace max
  velora sync today
"""


@click.command("sync", epilog=EXAMPLES)
@click.argument("events")
@click.argument("video", required=False)
@click.option(
    "--search",
    type=click.FloatRange(0.1, 3600),
    default=10.0,
    show_default=True,
    metavar="S",
    help="How far the two may be apart.",
)
@click.option(
    "--start", type=click.FloatRange(0), default=0.0, metavar="S", help="Begin so far into the video."
)
@click.option(
    "--duration",
    type=click.FloatRange(1),
    default=60.0,
    show_default=True,
    metavar="S",
    help="Look at so much of it.",
)
@click.option("--plot", metavar="FILE.png", help="Draw how well each offset fits, and both motions.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--sensor", metavar="WxH", help="Size of the event sensor, where the file does not tell.")
def command(events: str, video: str | None, **given: Any) -> None:
    """Find the offset between EVENTS and VIDEO from what moves in both.

    The offset is what --sync offset=US of velora-live takes. It is refused where it is not to be trusted.
    """
    from velora_cli.recordings.info import parse_sensor
    from velora_edge.errors import RecordingError
    from velora_edge.preprocessing.offset import Part, measure_offset, write_plot

    part = Part(*(round(given[name] * 1e6) for name in ("start", "duration", "search")))
    measured = measure_offset(events, video or events, part, parse_sensor(given["sensor"]))
    if given["plot"] is not None:
        write_plot(given["plot"], measured)
    if doubt := measured.estimate.doubt:
        raise RecordingError(
            f"no offset can be told: {doubt}",
            path=events,
            remedy="record more motion that does not repeat, or look further with --search S",
        )
    if given["as_json"]:
        click.echo(json.dumps(_facts(measured), indent=2))
        return
    for line in _lines(measured):
        click.echo(line)


def _facts(measured: Measured) -> dict[str, Any]:
    found = measured.estimate
    return {
        "v": 1,
        "offset_us": found.offset_us,
        "error_us": found.error_us,
        "confidence": round(found.confidence, 3),
        "match": round(found.match, 3),
        "next_match": round(found.next_match, 3),
        "next_offset_us": found.next_us,
        "pictures": found.pictures,
        "sync": measured.sync,
    }


def _lines(measured: Measured) -> list[str]:
    found = measured.estimate
    other = "" if found.next_us is None else f" at {found.next_us / 1000:+.0f} ms"
    matches = f"match {found.match:.2f}, next best {found.next_match:.2f}{other}"
    offset_ms, error_ms = found.offset_us / 1000, found.error_us / 1000
    return [
        f"offset      {offset_ms:+.1f} ms, +- {error_ms:.1f} ms, to be added to the video's times",
        f"confidence  {found.confidence:.2f}: {matches}",
        f"judged by   {found.pictures} pictures",
        f"use         velora-live MODEL --events ... --rgb ... --sync {measured.sync}",
    ]
