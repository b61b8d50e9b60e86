"""The options of live cameras, which `velora-live` and `velora record` share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from velora_edge.console import Command, add_options

if TYPE_CHECKING:
    from velora_runtime.app.run_sources import LiveOptions


_OPTIONS = (
    click.option(
        "--event-format",
        type=click.Choice(["EVT2", "EVT2.1", "EVT3"], case_sensitive=False),
        help="Of raw events on tcp:// or - that come without a header; with --sensor.",
    ),
    click.option(
        "--event-rate-cap",
        metavar="N",
        help="Let through so many events a second at most, such as 5M; the rest is dropped and counted.",
    ),
    click.option(
        "--cameras",
        metavar="FILE.yaml",
        help="Settings of live cameras: biases, regions, rate control, picture size; docs/guides/cameras.md.",
    ),
    click.option(
        "--retry",
        type=click.FloatRange(0),
        metavar="S",
        help="Try a lost camera for S seconds, 0: not at all.  [default: for ever]",
    ),
)


def camera_options(command: Command) -> Command:
    """A command with the options of live cameras."""
    return add_options(command, _OPTIONS)


def read_live_options(given: dict[str, Any]) -> LiveOptions:
    """What a user gave, as a value.

    Raises:
        InputError: if the cap is no rate.
    """
    from velora_runtime.app.run_sources import LiveOptions

    from velora_edge.events.filters.filters import read_rate

    cap = given["event_rate_cap"]
    return LiveOptions(
        given["event_format"], given["cameras"], None if cap is None else read_rate(cap), given["retry"]
    )
