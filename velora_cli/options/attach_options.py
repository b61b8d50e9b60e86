"""The options of recording and watching, which `velora-live` and `velora record` share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from velora_edge.console import Command, add_options

if TYPE_CHECKING:
    from velora_runtime.app.run_services import AttachOptions


_OPTIONS = (
    click.option(
        "--recordings",
        default="recordings",
        show_default=True,
        metavar="DIR",
        help="Where recordings and clips go that are begun by a key (r, s) or on the page.",
    ),
    click.option(
        "--keep",
        type=click.FloatRange(0, 3600),
        metavar="S",
        help="Seconds that a clip reaches back; 0: no clips.  [default: 10 with --record or --serve]",
    ),
    click.option(
        "--serve",
        metavar="HOST:PORT",
        help="A page to watch and record, /metrics and /healthz. 127.0.0.1:8080 for this machine, "
        "0.0.0.0:8080 for others, which then need a token.",
    ),
    click.option(
        "--token",
        envvar="VELORA_TOKEN",
        metavar="TEXT",
        help="The token to ask for, also $VELORA_TOKEN; none: ask for none.  "
        "[default: a random one, but none on 127.0.0.1]",
    ),
)
_OUTPUTS = (
    click.option(
        "--publish", metavar="URL", help="Publish each prediction: mqtt://[USER@]HOST[:PORT]/TOPIC."
    ),
    click.option(
        "--rerun",
        metavar="TARGET",
        help="Show the run in Rerun: spawn, rerun+http://HOST:9876/proxy, or FILE.rrd; 10 pairs a second.",
    ),
)
_RECORD = click.option(
    "--record",
    metavar="DIR",
    help="Record both cameras and the predictions to a new folder; velora-live MODEL DIR replays it.",
)


def recording_options(command: Command) -> Command:
    """A command with --recordings, --keep, --serve and --token."""
    return add_options(command, _OPTIONS)


def watching_options(command: Command) -> Command:
    """A command with --record, those of `recording_options`, --publish and --rerun."""
    return add_options(command, (_RECORD, *_OPTIONS, *_OUTPUTS))


def read_attach_options(given: dict[str, Any]) -> AttachOptions:
    """What a user gave, as a value."""
    from velora_runtime.app.run_services import AttachOptions

    return AttachOptions(
        record=given["record"],
        recordings=given["recordings"],
        keep_s=given["keep"],
        serve=given["serve"],
        token=given["token"],
        keys=given.get("events") != "-",
    )


def read_outputs(given: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Sinks and their targets."""
    return tuple((sink, given[sink]) for sink in ("publish", "rerun") if given[sink] is not None)
