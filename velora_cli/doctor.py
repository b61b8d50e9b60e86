"""`velora doctor` and `velora cameras`: what this machine has, what is missing, and what is attached."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from velora_edge.console import note
from velora_edge.errors import InputError

if TYPE_CHECKING:
    from velora_runtime.cameras.drivers.registry import Attached


@click.command(
    "doctor",
    epilog="Examples:  velora doctor  |  velora doctor demo --json > report.json  |  velora doctor --fix",
)
@click.argument("model", metavar="[BUNDLE]", default="demo")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--fix", is_flag=True, help="Print the commands that mend what was found, and run none.")
@click.option(
    "--time-limit",
    "limit_s",
    type=click.FloatRange(0.1),
    default=30.0,
    show_default=True,
    metavar="S",
    help="Per probe.",
)
def command(model: str, as_json: bool, fix: bool, limit_s: float) -> None:
    """Tell what this machine has for running models and cameras, and what is missing.

    GPU, driver, CUDA, TensorRT, ONNX Runtime and its providers, cameras and their libraries, a Jetson's power
    mode and clocks, what fits the board, Python and its packages, and which of BUNDLE's TensorRT engines fit.
    Paste the text into a bug report. A probe that fails is reported, and the others go on.
    """
    from velora_edge.doctor import advice as report
    from velora_edge.doctor.probes import PROBES, run_probes

    if as_json and fix:
        raise InputError("--json and --fix are two forms of one report", remedy="give one of them")
    findings = run_probes(list(PROBES), model, limit_s)
    advice = report.advise(findings)
    if as_json:
        click.echo(json.dumps(report.as_json(findings, advice), indent=2))
    elif fix:
        click.echo(report.as_commands(advice))
    else:
        click.echo(report.as_text(findings, advice))


UDEV_RULES = Path("/etc/udev/rules.d/65-neuromorphic-drivers.rules")


@click.command("cameras", epilog="Examples:  velora cameras  |  velora cameras --json")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--install-udev", is_flag=True, help="Let everyone use event cameras on USB; needs root.")
def cameras(as_json: bool, install_udev: bool) -> None:
    """List the cameras that are attached, each with what to give to --events or --rgb."""
    if install_udev:
        _install_udev(UDEV_RULES)
        return
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


def _install_udev(path: Path) -> None:
    """Write the rules of neuromorphic-drivers, and let udev read them; without root, tell how to get it."""
    import os

    from velora_runtime.cameras.drivers.neuromorphic import import_drivers

    drivers = import_drivers("velora cameras --install-udev")
    if os.geteuid() != 0:
        again = shlex.join(["sudo", str(Path(sys.argv[0]).resolve()), "cameras", "--install-udev"])
        raise InputError(f"{path} can be written by root alone", remedy=again)
    try:
        drivers.install_udev_rules(path, skip_system_check=True, skip_system_warn=True, skip_root_check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise InputError(
            f"udev was not told of the rules: {error}",
            path=path,
            remedy="plug the camera in again, or reboot",
        ) from error
    click.echo(f"{path}: written; plug the camera in again")


def _line(one: Attached) -> str:
    trouble = f"  ({one.trouble})" if one.trouble else ""
    return f"--{one.option:<7} {one.source:<28} {one.name}{trouble}"
