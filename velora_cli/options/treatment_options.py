"""The command line's options of what is done to events, for every command that takes a camera's events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from velora_edge.console import Command, add_options

if TYPE_CHECKING:
    from velora_edge.events.filters.treatment import Treatment


_OPTIONS = (
    click.option(
        "--calibration",
        metavar="FILE",
        help="The event camera's: OpenCV, ROS or Kalibr YAML, DSEC's cam_to_cam.yaml or rectify_map.h5, or a "
        "homography. FILE#cam1:cam0 names the event camera and the one onto whose picture it is laid.",
    ),
    click.option(
        "--depth",
        "depth_m",
        type=click.FloatRange(0, min_open=True),
        metavar="M",
        help="How far the scene is, where a calibration has two cameras.  [default: far]",
    ),
    click.option(
        "--hot-pixels",
        metavar="FILE",
        help="Pixels to ignore (velora info RECORDING --hot-pixels FILE finds them).",
    ),
    click.option(
        "--flip",
        type=click.Choice(["horizontal", "vertical", "both"]),
        help="Mirror the events, after the calibration.",
    ),
    click.option(
        "--rotate",
        type=click.Choice(["0", "90", "180", "270"]),
        default="0",
        help="Turn the events clockwise, after --flip.",
    ),
    click.option(
        "--filter",
        "filters",
        multiple=True,
        metavar="NAME[=US]",
        help="background (drops events without a neighbour within 5000 us), or refractory (drops those of a "
        "pixel that fired within 1000 us). May be given again.",
    ),
)


rate_cap_option = click.option(
    "--event-rate-cap",
    metavar="N",
    help="Events a second at most, such as 5M; the rest is thinned evenly and counted.",
)


def treatment_options(command: Command) -> Command:
    """A command with the options of what is done to events, but for the cap on their rate."""
    return add_options(command, _OPTIONS)


def read_treatment(given: dict[str, Any]) -> Treatment:
    """What a user gave, as a value."""
    from velora_edge.events.filters.treatment import Treatment

    return Treatment(
        given["calibration"],
        given["depth_m"],
        given["hot_pixels"],
        given["flip"],
        int(given["rotate"]),
        tuple(given["filters"]),
        given["event_rate_cap"],
    )
