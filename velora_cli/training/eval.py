"""`velora eval MODEL --data PATH`: evaluation of a model on a data set."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from velora_cli.training.import_checkpoint import input_options, read_corrections
from velora_edge.console import printing, progress
from velora_edge.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from velora_cli.training.import_checkpoint import InputCorrections
    from velora_edge.data.clips.clips import ClipSource, ClipSpec
    from velora_edge.datatypes import FitMode
    from velora_edge.train.evaluate import CurvePoint, Part
    from velora_edge.train.objective import Interval, Scores
    from velora_edge.train.predictors import Predictor
    from velora_edge.train.windows import ActionScores


@click.command(
    epilog="Examples:  velora eval demo --data synthetic --seed 7 --ablate  |  "
    "velora eval runs/demo_model --data synthetic --json scores.json  |  "
    "velora eval demo --data synthetic --corrupt noise,desync=50:100  |  "
    "velora eval runs/demo_model --data recordings --windows --decide default --decide hold_ms=400"
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
@click.option(
    "--windows",
    is_flag=True,
    help="Tell every window of each recording, by the stride, as a live run does, not one clip of each.",
)
@click.option(
    "--decide",
    multiple=True,
    metavar="WHAT",
    help="Also decide on actions in whole recordings as velora-live --decide does, and compare starts and "
    "ends with the labels: default, FILE.yaml, or KEY=VALUE, and again for more.",
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
    windows: bool,
    decide: tuple[str, ...],
    json_path: Path | None,
    confusion: Path | None,
    skip_damaged: bool,
    batch_size: int,
    workers: int,
    device: str,
) -> None:
    """Tell how well MODEL, a run, a checkpoint, a bundle or demo, knows the labels of a data set.

    Top-1 has a 95 % interval: Wilson's, or of a bootstrap over recordings where each has several windows.
    """
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
    from velora_edge.train.windows import WindowSource

    if windows and corrupt is not None:
        raise InputError("--windows does not go with --corrupt", remedy="leave one of them out")
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
    clips: ClipSource = source
    of_clips = part
    if windows:
        clips = WindowSource(source, part.members)
        of_clips = replace(part, members=np.arange(len(clips), dtype=np.int64))
    batches = -(-len(of_clips.members) // batch_size)
    with progress(batches * (1 + len(wanted)), "evaluating") as tick:
        reading: dict[str, Any] = {"batch_size": batch_size, "workers": workers, "tick": tick}
        scores = evaluate(predictor, clips, of_clips, ablate=ablate, **reading)
        curve = [evaluate_corrupted(predictor, source, part, one, seed, reopen, **reading) for one in wanted]
    actions = _decide(predictor, source, part, decide, batch_size) if decide else None
    with printing():
        _show(predictor, source, part, scores, is_windows=windows)
        if curve:
            _show_curve(curve, scores["both"])
        if actions is not None:
            _show_actions(actions)
    if json_path is not None:
        more = {} if actions is None else {"actions": {**actions.as_dict(), "decide": list(decide)}}
        write_json(as_dict(predictor, source, part, scores, curve, windows=windows, **more), json_path)
        confusion = confusion or json_path.with_suffix(".png")
    if confusion is not None:
        write_confusion(scores["both"].confusion, predictor.labels, confusion)


def _decide(
    predictor: Predictor, source: ClipSource, part: Part, given: tuple[str, ...], batch_size: int
) -> ActionScores:
    """Actions in the part's recordings, decided as velora-live decides, beside the labels.

    Raises:
        InputError: if the set keeps no whole recordings.
    """
    from velora_runtime.inference.decision import Decider, read_decision_settings

    from velora_edge.data.layouts.recordings import RecordingSet
    from velora_edge.train.objective import recording_of
    from velora_edge.train.windows import evaluate_actions

    if not isinstance(source, RecordingSet):
        raise InputError(
            f"actions are decided in whole recordings, and {source.path} is a set of kind {source.kind}",
            place="--decide",
            remedy="give the recordings themselves as --data",
        )
    settings = read_decision_settings(given)
    assert settings is not None
    recordings = {recording_of(source.items[index].name) for index in part.members.tolist()}
    with progress(len(recordings), "deciding") as tick:
        return evaluate_actions(
            predictor,
            source,
            part.members.tolist(),
            lambda: Decider(predictor.labels, settings),
            idle=settings.idle,
            batch_size=batch_size,
            tick=tick,
        )


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


def _show(
    predictor: Predictor,
    source: ClipSource,
    part: Part,
    scores: dict[str, Scores],
    *,
    is_windows: bool = False,
) -> None:
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
    of = f" windows of {len(part.members)} recordings" if is_windows else " clips"
    console.print(
        f"{source.path}: {scores['both'].clips}{of}, part {part.name} ({part.why})",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    names = {"both": "both cameras" if len(source.cameras) > 1 else f"{source.cameras[0]} camera"}
    has_top5 = len(predictor.labels) > 5  # of five classes or fewer, the label is always among the first five
    table = Table("", "top-1", "95 % interval", *(["top-5"] if has_top5 else []), "loss")
    for mode, found in scores.items():
        top5 = [f"{found.top5:.2%}"] if has_top5 else []
        figures = (f"{found.top1:.2%}", _ends(found.interval), *top5, f"{found.loss:.3f}")
        table.add_row(names.get(mode, f"{mode} alone"), *figures)
    console.print(table)
    if (interval := scores["both"].interval) is not None:
        console.print(f"interval: {interval.method}, {interval.recordings} recordings", highlight=False)
    if len(predictor.labels) <= 40:
        table = Table("class", "clips", "recall", "precision")
        for label, of_class in scores["both"].per_class(predictor.labels).items():
            shares = (of_class["recall"], of_class["precision"])
            table.add_row(label, str(of_class["clips"]), *("-" if s is None else f"{s:.1%}" for s in shares))
        console.print(table)


def _ends(interval: Interval | None) -> str:
    return "-" if interval is None else f"{interval.low:.1%} to {interval.high:.1%}"


def _show_actions(found: ActionScores) -> None:
    """Print how the decided actions compare with the labels."""
    from rich.console import Console
    from rich.table import Table

    facts = found.as_dict()
    f1 = ", ".join(f"{value:.3f} at {overlap}" for overlap, value in facts["f1"].items() if value is not None)
    click.echo(
        f"actions in {found.recordings} recordings: {found.true} labelled, {found.told} decided; "
        f"{found.missed} missed, {found.false} false; segment F1 {f1 or '-'}"
    )
    table = Table("error, ms", "median", "median of absolute values")
    names = {"start_ms": "start", "end_ms": "end", "decided_ms": "start decided, after the true start"}
    for key, name in names.items():
        errors = facts[key]
        row = ("-", "-") if errors is None else (f"{errors['median']:+.0f}", f"{errors['median_abs']:.0f}")
        table.add_row(name, *row)
    Console().print(table)


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
