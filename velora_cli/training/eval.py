"""`velora eval MODEL --data PATH`: evaluation of a model on a data set."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from velora_cli.training.import_checkpoint import input_options, read_corrections
from velora_edge.console import progress
from velora_edge.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from velora_cli.training.import_checkpoint import InputCorrections
    from velora_edge.data.clips.clips import ClipSource, ClipSpec
    from velora_edge.datatypes import FitMode
    from velora_edge.train.evaluate import CurvePoint, Part
    from velora_edge.train.objective import Scores
    from velora_edge.train.predictors import Predictor


@click.command(
    epilog="Examples:  velora eval demo --data synthetic --seed 7 --ablate  |  "
    "velora eval runs/demo_model --data synthetic --json scores.json  |  "
    "velora eval demo --data synthetic --corrupt noise,desync=50:100"
)
@click.argument("model")
@click.option("--data", required=True, metavar="PATH", help="A data set, or synthetic.")
@click.option("--kind", default="auto", show_default=True, help="The set's layout.")
@click.option(
    "--seed", default=0, show_default=True, help="Of the set called synthetic, and of what --corrupt draws."
)
@click.option(
    "--split",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "all", "train", "val", "test"]),
    help="auto: what was held out, the published test part, or everything where the set is new to the model.",
)
@input_options
@click.option("--ablate", is_flag=True, help="Also tell by each camera alone.")
@click.option(
    "--corrupt",
    is_flag=False,
    flag_value="all",
    metavar="[KIND,...]",
    help="Also tell how scores fall with noise, drop-events, hot-pixels, rgb-noise, rgb-stale, rgb-lost, "
    "desync (pictures late, ms) and rate (of the pairs); all of them without KIND. KIND=LEVEL:LEVEL sets "
    "levels.",
)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write all figures to this file.")
@click.option(
    "--confusion",
    type=click.Path(path_type=Path),
    help="Write the confusion matrix as a PNG; by default beside the JSON.",
)
@click.option("--skip-damaged", is_flag=True, help="Leave out recordings that cannot be read, and list them.")
@click.option("--batch-size", default=16, show_default=True, help="Clips at a time.")
@click.option("--workers", default=0, show_default=True, help="Processes that read clips.")
@click.option("--device", default="cpu", show_default=True, type=click.Choice(["cpu", "cuda"]))
def command(
    model: str,
    data: str,
    kind: str,
    seed: int,
    split: str,
    labels: Path | None,
    fit: FitMode | None,
    stride: int | str | None,
    palette: str | None,
    span_s: float | None,
    rate_hz: float | None,
    ablate: bool,
    corrupt: str | None,
    json_path: Path | None,
    confusion: Path | None,
    skip_damaged: bool,
    batch_size: int,
    workers: int,
    device: str,
) -> None:
    """Tell how well MODEL, a run, a checkpoint, a bundle or demo, knows the labels of a data set."""
    from velora_cli.training.dataset import open_source
    from velora_edge.train.evaluate import (
        as_dict,
        choose_part,
        evaluate,
        evaluate_corrupted,
        match_labels,
        trained_split,
        write_confusion,
        write_json,
    )
    from velora_edge.train.predictors import open_predictor

    corrections = read_corrections(labels, fit, stride, palette, span_s, rate_hz)
    predictor = open_predictor(model, device)
    _correct(predictor, corrections)
    cut = trained_split(predictor.facts.run)
    reopen = partial(open_source, data, kind=kind, seed=seed, split=cut)
    source = reopen(predictor.spec)
    if corrections.stride == "auto":
        source = _reopen_at_span(predictor, source, corrections.span_s, reopen)
    match_labels(source, predictor)
    part = choose_part(source, predictor.facts.run, split)
    if skip_damaged:
        part = _sound(source, part)
    wanted = [] if corrupt is None else read_corruptions(corrupt, source)
    batches = -(-len(part.members) // batch_size)
    with progress(batches * (1 + len(wanted)), "evaluating") as tick:
        reading: dict[str, Any] = {"batch_size": batch_size, "workers": workers, "tick": tick}
        scores = evaluate(predictor, source, part, ablate=ablate, **reading)
        curve = [evaluate_corrupted(predictor, source, part, one, seed, reopen, **reading) for one in wanted]
    _show(predictor, source, part, scores)
    if curve:
        _show_curve(curve, scores["both"])
    if json_path is not None:
        write_json(as_dict(predictor, source, part, scores, curve), json_path)
        confusion = confusion or json_path.with_suffix(".png")
    if confusion is not None:
        write_confusion(scores["both"].confusion, predictor.labels, confusion)


def _sound(source: ClipSource, part: Part) -> Part:
    """The recordings of a part that can be read; tells which cannot."""
    from velora_cli.training.dataset import report_skipped
    from velora_edge.data.build import leave_out_damaged

    problems: list[str] = []
    with progress(len(part.members), "reading") as tick:
        members = leave_out_damaged(source, part.members, problems.append, tick)
    report_skipped(problems)
    return replace(part, members=members)


def _correct(predictor: Predictor, corrections: InputCorrections) -> None:
    """Take what the user knows better; with a stride, clips lie in a recording as a live stream has them."""
    spec = predictor.spec
    spec = replace(spec, event=corrections.event(spec.event), rgb=corrections.rgb(spec.rgb))
    if corrections.rate_hz is not None:
        spec = replace(spec, rate_hz=corrections.rate_hz)
    if isinstance(corrections.stride, int):
        spec = replace(spec, sampling="stride", stride=corrections.stride)
    predictor.spec = spec
    if corrections.labels is not None:
        classes = len(predictor.labels)
        if len(corrections.labels) != classes:
            raise InputError(
                f"the model has {classes} classes, got {len(corrections.labels)} labels",
                place="--labels",
                remedy="give one label for each class, in the order of the logits",
            )
        predictor.labels = corrections.labels


def _reopen_at_span(
    predictor: Predictor,
    source: ClipSource,
    span_s: float | None,
    reopen: Callable[[ClipSpec], ClipSource],
) -> ClipSource:
    """The set again, in clips by a stride that covers at its own rate what a clip covered in training.

    Raises:
        InputError: if the span or the rate is not known.
    """
    from velora_edge.preprocessing.windows import auto_stride

    rate_hz = source.rate_hz
    stride = auto_stride(span_s or predictor.facts.span_s, predictor.spec.length, rate_hz)
    source.close()
    predictor.spec = replace(predictor.spec, sampling="stride", stride=stride)
    click.echo(f"stride {stride}: pairs come at {rate_hz:.3g} a second")
    return reopen(predictor.spec)


def read_corruptions(text: str, source: ClipSource) -> list[tuple[str, float]]:
    """Kinds and levels that `--corrupt` asks for: `all`, or KIND[=LEVEL[:LEVEL...]], separated by commas.

    Raises:
        InputError: if there is no such kind or level, or the set lacks what it needs.
    """
    from velora_edge.train.evaluate import CORRUPTIONS

    if text == "all":
        usable = [kind for kind in CORRUPTIONS if not _problem(kind, source)]
        return [(kind, level) for kind in usable for level in _levels(kind, "", source)]
    found = []
    for part in text.split(","):
        kind, _, levels = part.strip().partition("=")
        problem = _problem(kind, source)
        if problem:
            raise InputError(
                f"{part.strip()!r}: {problem}", place="--corrupt", remedy="see velora eval --help"
            )
        found += [(kind, level) for level in _levels(kind, levels, source)]
    return found


def _problem(kind: str, source: ClipSource) -> str:
    from velora_edge.train.evaluate import CORRUPTIONS

    if kind not in CORRUPTIONS:
        return f"expected all, or of {', '.join(CORRUPTIONS)}"
    camera = CORRUPTIONS[kind].camera
    if (camera or "rgb") not in source.cameras or (camera is None and len(source.cameras) < 2):
        return f"the set has {' and '.join(source.cameras)} alone"
    if kind == "desync" and source.rate_hz is None:
        return "the set does not say how many pairs there are a second; add --rate HZ"
    return ""


def _levels(kind: str, text: str, source: ClipSource) -> list[float]:
    """Levels that a user gave, or the kind's own; of `desync` in ms, as whole pairs give them."""
    from velora_edge.train.evaluate import CORRUPTIONS

    lowest, highest = {"rate": (0.5, 2.0), "desync": (0.0, 1e6)}.get(kind, (0.0, 1.0))
    period_ms = 1000 / (source.rate_hz or 1)
    if not text:
        return [level * period_ms if kind == "desync" else level for level in CORRUPTIONS[kind].levels]
    try:
        levels = [float(level) for level in text.split(":")]
    except ValueError:
        levels = [-1.0]
    if not all(lowest < level <= highest or level == lowest == 0.5 for level in levels):
        raise InputError(
            f"{kind}={text}: expected numbers from {lowest:g} to {highest:g} with colons between them",
            place="--corrupt",
        )
    return [max(1, round(level / period_ms)) * period_ms if kind == "desync" else level for level in levels]


def _show(predictor: Predictor, source: ClipSource, part: Part, scores: dict[str, Scores]) -> None:
    from rich.console import Console
    from rich.table import Table

    facts, console = predictor.facts, Console()
    console.print(
        f"{facts.name}, {facts.kind} on {facts.runtime}"
        + ("" if facts.trained else "; its weights are random: these figures mean nothing"),
        highlight=False,
    )
    if facts.parameters:
        counts = ", ".join(f"{value:,} {name}" for name, value in facts.parameters.items())
        console.print(f"parameters: {counts}", highlight=False)
    console.print(
        f"{source.path}: {scores['both'].clips} clips, part {part.name} ({part.why})", highlight=False
    )
    names = {"both": "both cameras" if len(source.cameras) > 1 else f"{source.cameras[0]} camera"}
    has_top5 = len(predictor.labels) > 5  # of five classes or fewer, the label is always among the first five
    table = Table("", "top-1", *(["top-5"] if has_top5 else []), "loss")
    for mode, found in scores.items():
        top5 = [f"{found.top5:.2%}"] if has_top5 else []
        table.add_row(names.get(mode, f"{mode} alone"), f"{found.top1:.2%}", *top5, f"{found.loss:.3f}")
    console.print(table)
    if len(predictor.labels) <= 40:
        table = Table("class", "clips", "recall", "precision")
        for label, of_class in scores["both"].per_class(predictor.labels).items():
            shares = (of_class["recall"], of_class["precision"])
            table.add_row(label, str(of_class["clips"]), *("-" if s is None else f"{s:.1%}" for s in shares))
        console.print(table)


def _show_curve(curve: list[CurvePoint], clean: Scores) -> None:
    """Print scores by corruption, those of the clips as they are first."""
    from rich.console import Console
    from rich.table import Table

    table = Table("corruption", "level", "top-1", "top-5", "loss")
    table.add_row("none", "", f"{clean.top1:.2%}", f"{clean.top5:.2%}", f"{clean.loss:.3f}")
    for point in curve:
        found, level = point.scores, f"{point.level:.3g} {point.unit}"
        level += "" if point.is_exact else " (drawn)"
        table.add_row(point.kind, level, f"{found.top1:.2%}", f"{found.top5:.2%}", f"{found.loss:.3f}")
    Console().print(table)
    if not all(point.is_exact for point in curve):
        click.echo("drawn: events of shorter windows are drawn from the images, pictures repeat")
