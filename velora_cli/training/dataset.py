"""`velora dataset check DIR` and `velora dataset build DIR OUT.h5`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from velora_edge.console import overwrite_option, progress, refuse_existing
from velora_edge.data.registry import LAYOUTS
from velora_edge.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from velora_edge.data.build import Report
    from velora_edge.data.clips.clips import ClipSource, ClipSpec, SplitConfig

*_OTHERS, _LAST = ("auto", *(layout.name for layout in LAYOUTS))
_KINDS = f"{', '.join(_OTHERS)} or {_LAST}"


@click.group(epilog="Examples:  velora dataset build synthetic clips.h5  |  velora dataset check clips.h5")
def command() -> None:
    """Look at a data set before training, and pack it into one file for fast reading."""


@command.command()
@click.argument("path")
@click.option("--kind", default="auto", show_default=True, help=f"The set's layout: {_KINDS}.")
@click.option(
    "--for", "config", metavar="CONFIG", help="Training configuration whose clips the recordings must hold."
)
@click.option("--quick", is_flag=True, help="Look at names, sizes, heads and tails alone; decode nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def check(path: str, kind: str, config: str | None, quick: bool, as_json: bool) -> None:
    """Tell classes and counts of a data set, everything that is wrong with it, and what looks odd.

    Exit code 2 if anything is wrong; what looks odd is a warning.
    """
    from velora_edge.data.build import check as look_at
    from velora_edge.data.clips.clips import ClipSpec
    from velora_edge.data.clips.store import stored_spec
    from velora_edge.data.registry import detect

    spec = ClipSpec(length=2, image_size=(64, 64)) if config is None else _spec(config, 64)
    if Path(path).is_file() and kind in ("auto", "store") and detect(Path(path)) == "store":
        stored = stored_spec(Path(path))
        spec = replace(stored, length=spec.length, sampling=spec.sampling, stride=spec.stride)
    source = open_source(path, spec, kind)
    with progress(len(source), "checking", quiet=as_json) as tick:
        report = look_at(source, deep=not quick, tick=tick)
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=2))
    else:
        _show(report)
    if report.problems:
        count = len(report.problems)
        raise DatasetError(
            [f"{count} problem{'s' if count > 1 else ''}, listed above"], path=path, remedy="mend them"
        )


@command.command()
@click.argument("path")
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--kind", default="auto", show_default=True, help=f"The set's layout: {_KINDS}.")
@click.option(
    "--for",
    "config",
    metavar="CONFIG",
    help="Training configuration whose model the clips are for: image size, event representation, window, "
    "and recordings cut into pieces where data.split divides by time.",
)
@click.option("--image-size", type=int, default=224, show_default=True, help="Side in pixels, without --for.")
@click.option("--pairs", type=int, help="Keep so many pairs of longer recordings, evenly spread.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the set called synthetic.")
@overwrite_option
@click.option(
    "--skip-damaged",
    is_flag=True,
    help="Leave out recordings that cannot be read; what was left out is listed in OUT.skipped.txt.",
)
def build(
    path: str,
    out: Path,
    kind: str,
    config: str | None,
    image_size: int,
    pairs: int | None,
    seed: int,
    overwrite: bool,
    skip_damaged: bool,
) -> None:
    """Pack the data set at PATH into the file OUT, by the same packer as the runtime."""
    from velora_edge.data.build import build_store

    refuse_existing(out, overwrite=overwrite)
    source = open_source(path, _spec(config, image_size), kind, seed, _split(config))
    skipped: list[str] = []
    skip = skipped.append if skip_damaged else None
    with progress(len(source), "packing") as tick:
        packed = build_store(source, out, most_pairs=pairs, skip=skip, tick=tick)
    size_mb = out.stat().st_size / 1e6
    stored = open_source(str(out), source.spec, "store")
    click.echo(f"{out}: {len(stored)} recordings, {packed} pairs, {size_mb:.1f} MB")
    stored.close()
    report_skipped(skipped, out.with_name(f"{out.name}.skipped.txt"))
    click.echo(f"next: velora train {config or 'CONFIG'} data.path={out}")


def open_source(
    path: str, spec: ClipSpec, kind: str = "auto", seed: int = 0, split: SplitConfig | None = None
) -> ClipSource:
    """The data set at `path`; our own recordings can be read too, by the runtime's packer."""
    from velora_edge.data.registry import open_clips

    return open_clips(path, spec, kind=kind, seed=seed, packs_recordings=True, split=split)


def report_skipped(problems: list[str], file: Path | None = None) -> None:
    """Tell what was left out of a set: the first problems here, all of them in `file`."""
    if not problems:
        return
    for problem in problems[:20]:
        click.echo(f"left out: {problem}")
    if file is not None:
        file.write_text("".join(f"{problem}\n" for problem in problems), encoding="utf-8")
        click.echo(f"{len(problems)} problems passed over, all in {file}")
    elif len(problems) > 20:
        click.echo(f"and {len(problems) - 20} more")


def _spec(config: str | None, image_size: int) -> ClipSpec:
    from velora_edge.data.clips.clips import ClipSpec

    if config is None:
        return ClipSpec(length=8, image_size=(image_size, image_size))
    from velora_edge.config import as_square, build_config, read_yaml
    from velora_edge.data.clips.augment import ClipConfig

    tree = read_yaml(config)
    clip = build_config(tree.get("clip") or {}, ClipConfig, path=config)
    form = tree.get("model") or tree.get("tower") or {}
    size = as_square(form.get("image_size", image_size))
    if not (
        isinstance(size, (list, tuple)) and len(size) == 2 and all(isinstance(side, int) for side in size)
    ):
        raise ConfigError(
            [f"model.image_size: expected height and width, or one number for both, got {size!r}"],
            path=config,
        )
    length = form.get("clip_length", 8)
    return clip.spec(length if isinstance(length, int) and length > 0 else 8, (size[0], size[1]))


def _split(config: str | None) -> SplitConfig | None:
    if config is None:
        return None
    from velora_edge.config import build_config, read_yaml
    from velora_edge.data.clips.clips import SplitConfig

    data = read_yaml(config).get("data") or {}
    return build_config(data.get("split") or {}, SplitConfig, path=config)


def _show(report: Report) -> None:
    console = Console()
    facts = report.as_dict()
    cameras = " and ".join(report.cameras)
    console.print(
        f"{report.kind}: {facts['recordings']} recordings by {cameras}, {facts['classes']} classes",
        highlight=False,
    )
    if report.pairs is not None:
        shortest, median, longest = report.pairs
        console.print(f"pairs a recording: {shortest} to {longest}, median {median}", highlight=False)
    parts = [part for part in ("train", "val", "test", "-") if any(part in c for c in report.counts.values())]
    table = Table("class", *({"-": "recordings"}.get(part, part) for part in parts))
    for label, counts in report.counts.items():
        table.add_row(label, *(str(counts.get(part, 0)) for part in parts))
    console.print(table)
    for problem in report.problems:
        console.print(f"problem: {problem}", highlight=False, markup=False, soft_wrap=True)
    for warning in report.warnings:
        console.print(f"warning: {warning}", highlight=False, markup=False, soft_wrap=True)
