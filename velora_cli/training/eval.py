"""`velora eval MODEL --data PATH`: evaluation of a model on a data set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from velora_cli.training.import_checkpoint import input_options, read_corrections
from velora_edge.console import progress
from velora_edge.errors import InputError

if TYPE_CHECKING:
    from velora_cli.training.import_checkpoint import InputCorrections
    from velora_edge.data.clips.clips import ClipSource
    from velora_edge.datatypes import FitMode
    from velora_edge.train.evaluate import Part
    from velora_edge.train.objective import Scores
    from velora_edge.train.predictors import Predictor


@click.command(
    epilog="Examples:  velora eval demo --data synthetic --seed 7 --ablate  |  "
    "velora eval runs/demo_model --data synthetic --json scores.json"
)
@click.argument("model")
@click.option("--data", required=True, metavar="PATH", help="A data set, or synthetic.")
@click.option("--kind", default="auto", show_default=True, help="The set's layout.")
@click.option("--seed", default=0, show_default=True, help="Of the set called synthetic.")
@click.option(
    "--split",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "all", "train", "val", "test"]),
    help="auto: what was held out, the published test part, or everything where the set is new to the model.",
)
@input_options
@click.option("--ablate", is_flag=True, help="Also tell by each camera alone.")
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
    stride: int | None,
    palette: str | None,
    ablate: bool,
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
        match_labels,
        write_confusion,
        write_json,
    )
    from velora_edge.train.predictors import open_predictor

    corrections = read_corrections(labels, fit, stride, palette)
    predictor = open_predictor(model, device)
    _correct(predictor, corrections)
    source = open_source(data, predictor.spec, kind, seed)
    match_labels(source, predictor)
    part = choose_part(source, predictor.facts.run, split)
    if skip_damaged:
        part = _sound(source, part)
    batches = -(-len(part.members) // batch_size)
    with progress(batches, "evaluating") as tick:
        scores = evaluate(
            predictor, source, part, ablate=ablate, batch_size=batch_size, workers=workers, tick=tick
        )
    _show(predictor, source, part, scores)
    if json_path is not None:
        write_json(as_dict(predictor, source, part, scores), json_path)
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
    if corrections.stride is not None:
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
