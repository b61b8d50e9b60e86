"""`velora cameras`: list of attached cameras, by the names that velora-live takes."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from velora_cli.live.live import note

if TYPE_CHECKING:
    from velora_runtime.cameras.drivers.registry import Attached


@click.command("cameras", epilog="Examples:  velora cameras  |  velora cameras --json")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """List the cameras that are attached, each with what to give to --events or --rgb."""
    from velora_runtime.cameras.drivers.registry import CAMERAS, list_attached

    found = list_attached()
    for trouble in CAMERAS.troubles:
        note(trouble)
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found], indent=2))
        return
    for one in found:
        click.echo(_line(one))
    if not found:
        click.echo(
            "no camera is attached; also: tcp://HOST:PORT, inivation://HOST:PORT, rtsp://..., http://..., gst://..."
        )


def _line(one: Attached) -> str:
    trouble = f"  ({one.trouble})" if one.trouble else ""
    return f"--{one.option:<7} {one.source:<28} {one.name}{trouble}"
