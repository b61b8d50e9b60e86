"""`velora doctor`: report on this machine, and advice on what to install."""

from __future__ import annotations

import json

import click


@click.command("doctor", epilog="Examples:  velora doctor  |  velora doctor demo --json > report.json")
@click.argument("model", metavar="[BUNDLE]", default="demo")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--time-limit",
    "limit_s",
    type=click.FloatRange(0.1),
    default=30.0,
    show_default=True,
    metavar="S",
    help="Per probe.",
)
def command(model: str, as_json: bool, limit_s: float) -> None:
    """Tell what this machine has for running models and cameras, and what is missing.

    GPU, driver, CUDA, TensorRT, ONNX Runtime and its providers, cameras and their libraries, a Jetson's power
    mode and clocks, Python and its packages, and which of BUNDLE's TensorRT engines fit. Paste the text into
    a bug report. A probe that fails is reported, and the others go on.
    """
    from velora_edge.doctor import probes as report
    from velora_edge.doctor.probes import PROBES, advise, run_probes

    findings = run_probes(list(PROBES), model, limit_s)
    advice = advise(findings)
    if as_json:
        click.echo(json.dumps(report.as_json(findings, advice), indent=2))
    else:
        click.echo(report.as_text(findings, advice))
