"""`velora bench`: what this machine does with a model, and whether it is enough."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from velora_edge.console import printing

if TYPE_CHECKING:
    from velora_runtime.bench.benchmark import BenchOptions
    from velora_runtime.bench.result import BenchResult

EXAMPLES = """\b
Examples:
  velora bench
  velora bench demo --quick --json bench.json --plot bench/
  velora bench my.velora --event-rate 10M --fps 30 --max-p99-ms 50 --max-miss-ratio 0.01
  velora bench my.velora my-int8.velora --only parts,roofline
  velora bench my.velora --only saturation
  velora bench my.velora --compare bench.json --max-regression 5%
  velora bench my.velora --submit

Exit codes: 0 PASS, 1 FAIL, 2 wrong command line, 3 INCONCLUSIVE.
"""
MULTIPLES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}


class EventRate(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic from click 8.4 on
    """A number of events a second, such as 500k or 10M."""

    name = "RATE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read the number."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?(?:e\d+)?)([kMG]?)", str(value))
        if found is None:
            self.fail(f"expected events a second, such as 500k or 10M, got {value!r}", param, ctx)
        return float(found[1]) * MULTIPLES[found[2]]


class Share(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # as above
    """A share: 5% or 0.05."""

    name = "SHARE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read the share."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", str(value))
        if found is None:
            self.fail(f"expected a share such as 5% or 0.05, got {value!r}", param, ctx)
        return float(found[1]) / (100 if found[2] else 1)


class Size(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # as above
    """WxH in pixels."""

    name = "WxH"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Read the size."""
        found = re.fullmatch(r"(\d+)[xX](\d+)", str(value))
        if found is None:
            self.fail(f"expected WIDTHxHEIGHT in pixels, such as 640x480, got {value!r}", param, ctx)
        return int(found[1]), int(found[2])


@click.command("bench", epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("models", metavar="[MODEL]...", nargs=-1)
@click.option("--quick", is_flag=True, help="Under a minute: parts and two short live runs; no search.")
@click.option(
    "--only",
    metavar="WHAT,...",
    help="Of parts, live, power, roofline, saturation, sweep.  "
    "[default: all but sweep; with --quick the first four]",
)
@click.option("--events", metavar="FILE", help="Event recording to repeat.  [default: the packaged one]")
@click.option("--rgb", metavar="FILE", help="Video to repeat, or none.  [default: the packaged one]")
@click.option(
    "--event-rate",
    type=EventRate(),
    default="5M",
    show_default=True,
    help="Events a second; 0: no event camera.",
)
@click.option(
    "--fps",
    type=click.FloatRange(0, min_open=True),
    default=30.0,
    show_default=True,
    help="Pictures a second; windows, with --rgb none.",
)
@click.option("--size", type=Size(), default="640x480", show_default=True, help="Of the pictures.")
@click.option(
    "--seconds",
    type=click.FloatRange(1),
    help="Of each live run, and for all parts.  [default: 20; 5 with --quick]",
)
@click.option("--runs", type=click.IntRange(1), help="Live runs.  [default: 3; 2 with --quick]")
@click.option(
    "--deadline-ms",
    type=click.FloatRange(0, min_open=True),
    default=100.0,
    show_default=True,
    help="From exposure to decision; later is a miss.",
)
@click.option(
    "--backend",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="As velora-live has it; auto: parts are measured on every one.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "gpu", "npu"]),
    default="auto",
    show_default=True,
    help="As velora-live has it.",
)
@click.option("--threads", type=click.IntRange(0), default=0, metavar="N", help="As velora-live has it.")
@click.option("--max-p99-ms", type=click.FloatRange(0, min_open=True), help="Exposure to decision.")
@click.option("--max-miss-ratio", type=Share(), help="Of pictures that were due.")
@click.option("--max-mj", type=click.FloatRange(0), help="Energy a decision, baseline subtracted.")
@click.option("--min-fps", type=click.FloatRange(0), help="Decisions a second.")
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), metavar="FILE", help="Write the result."
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write plots as PNG and one page, index.html.",
)
@click.option(
    "--compare", type=click.Path(path_type=Path), metavar="OLD.json", help="Compare with an older result."
)
@click.option(
    "--max-regression",
    type=Share(),
    default="5%",
    show_default=True,
    help="With --compare: by how much a figure may be worse.",
)
@click.option("--submit", is_flag=True, help="Write the file that a pull request adds to benchmarks/boards/.")
def command(models: tuple[str, ...], **given: Any) -> int:
    """Measure what this machine does with MODEL, a bundle's folder or demo, the default.

    Parts by themselves; the whole pipeline, paced as cameras pace it; the highest rates without a drop;
    energy; what of the device's own rates is reached. Several MODELs are put side by side; the first one runs
    live. A verdict on the limits that are given, or why there can be none. Nothing else should run meanwhile.
    """
    from velora_runtime.bench.acceptance import compare
    from velora_runtime.bench.benchmark import Benchmark
    from velora_runtime.bench.report import exit_code, lines
    from velora_runtime.bench.result import read_result, write_result

    old = None if given["compare"] is None else read_result(given["compare"])
    if given["plot"] is not None:
        from velora_runtime.bench.plots import load_figure

        load_figure()  # before a minute is spent on figures that could not be drawn
    result = Benchmark(_options(models, given), _note).run()
    if old is not None:
        compared = compare(result, old, given["max_regression"])
        result = result.model_copy(update={"comparison": compared})
    with printing():
        for line in lines(result):
            click.echo(line)
    if given["json_path"] is not None:
        write_result(result, given["json_path"])
        click.echo(f"written  {given['json_path']}")
    if given["plot"] is not None:
        _plot(result, given["plot"])
    if given["submit"]:
        _submit(result)
    return exit_code(result)


def _options(models: tuple[str, ...], given: dict[str, Any]) -> BenchOptions:
    from velora_runtime.bench.acceptance import Limits
    from velora_runtime.bench.benchmark import WHAT, BenchOptions
    from velora_runtime.bench.live import LiveSettings

    quick = given["quick"]
    usual = WHAT[:4] if quick else WHAT[:-1]
    what = frozenset(usual if given["only"] is None else given["only"].split(","))
    if unknown := what - set(WHAT):
        raise click.UsageError(
            f"--only: expected some of {', '.join(WHAT)}, got {', '.join(sorted(unknown))}"
        )
    live = LiveSettings(
        event_rate_hz=given["event_rate"],
        fps=given["fps"],
        seconds=given["seconds"] or (5.0 if quick else 20.0),
        warm_up_s=1.5 if quick else 3.0,
        runs=given["runs"] or (2 if quick else 3),
        picture_px=given["size"],
        deadline_ms=given["deadline_ms"],
        events=given["events"],
        rgb=None if given["rgb"] == "none" else given["rgb"],
        backend=given["backend"],
        device=given["device"],
        threads=given["threads"],
        has_rgb=given["rgb"] != "none",
    )
    if not live.has_rgb and not live.event_rate_hz:
        raise click.UsageError("no camera is left: raise --event-rate above 0, or leave --rgb none out")
    return BenchOptions(
        models=models or ("demo",),
        live=live,
        limits=Limits(given["max_p99_ms"], given["max_miss_ratio"], given["max_mj"], given["min_fps"]),
        what=what,
        quick=quick,
        part_seconds=live.seconds,
        decoded=500_000 if quick else 4_000_000,
        baseline_s=2.0 if quick else 5.0,
        reproduce=shlex.join(["velora", *_arguments()]),
    )


def _arguments() -> list[str]:
    """What stands behind `velora` on the command line."""
    given = sys.argv[1:]
    return given if given[:1] == ["bench"] else ["bench"]


def _plot(result: BenchResult, folder: Path) -> None:
    from velora_runtime.bench.plots import write_page

    click.echo(f"written  {write_page(result, folder)}")


def _submit(result: BenchResult) -> None:
    from velora_runtime.bench.report import write_board

    path = write_board(result, Path("benchmarks/boards"))
    click.echo(f"written  {path}; open a pull request that adds it")


def _note(line: str) -> None:
    click.echo(f"velora: {line}", err=True)
