"""`velora predict MODEL 'recordings/**' --out DIR`: an archive, on processes of this machine or on Ray."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from velora_cli.options import (
    decide_option,
    duration_option,
    model_options,
    preprocessing_options,
    rate_cap_option,
    read_run_options,
    sensor_option,
    start_option,
    sync_options,
)
from velora_edge.console import HeadedCommand, under
from velora_edge.errors import VeloraError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from velora_runtime.app.archive import ArchivedRecording, ArchivePlan
    from velora_runtime.app.parts import Outcome
    from velora_runtime.app.workers import ArchiveCounts

EXAMPLES = """\b
Examples, in a checkout:
  D=velora_edge/assets
  velora predict demo $D --out preds
  velora predict demo $D/demo.raw --out preds --only events --rate 30 --decide default
  velora predict demo $D --out preds --ray auto

Patterns such as 'recordings/**' are in quotes, so that the shell leaves them alone. docs/guides/archives.md
tells what is in a part, and how to ask questions of many.
"""
WORKERS_ON_A_GPU = 2
"""One takes recordings apart while the other one's pairs are computed."""
SHOWN = 5

_output, _camera, _workers = under("Output"), under("Cameras"), under("Workers")


@click.command("predict", cls=HeadedCommand, epilog=EXAMPLES)
@click.argument("model")
@click.argument("recordings", nargs=-1, required=True)
@_output("--out", required=True, metavar="DIR", help="Where a folder for this model and these options goes.")
@decide_option
@_output("--quiet", is_flag=True, help="No progress bar.")
@_camera("--only", type=click.Choice(["events", "rgb"]), help="Take one camera alone.")
@sensor_option
@start_option
@duration_option
@sync_options
@preprocessing_options
@rate_cap_option
@model_options(threads=1)
@_workers(
    "--workers",
    type=click.IntRange(1),
    metavar="N",
    help=f"Processes, or Ray's actors.  [default: {WORKERS_ON_A_GPU} for each GPU, or else one for each "
    "processor core; of Ray, one for each of the cluster]",
)
@_workers("--ray", metavar="ADDRESS", help="Work on this Ray cluster: auto, or HOST:PORT.")
def command(recordings: tuple[str, ...], out: str, **given: Any) -> None:
    """Predict all RECORDINGS of an archive: a Parquet file for each, the rows that velora-live --out writes.

    RECORDINGS are folders that velora record wrote, event files (with a video of the same name beside them),
    videos, folders that hold some, or patterns of these in quotes. MODEL is a bundle's folder, or demo.

    The same command goes on where it was ended, however that was. What cannot be read costs a line of
    report.jsonl and exit code 1; everything else is predicted.
    """
    from velora_runtime.app.archive import find_recordings, make_plan
    from velora_runtime.app.parts import REPORT, load_pyarrow
    from velora_runtime.app.workers import predict_archive

    from velora_edge.console import progress

    load_pyarrow()
    plan = make_plan(read_run_options(given), Path(out), given["only"])
    found = find_recordings(recordings)
    failures: list[Outcome] = []
    with progress(len(found), "recordings", quiet=given["quiet"]) as advance:

        def take(outcome: Outcome) -> None:
            if outcome.state == "failed":
                failures.append(outcome)
            advance()

        counts = predict_archive(plan, found, _workers_for(plan, given["workers"], given["ray"]), take)
    click.echo(_summary(counts, plan))
    for failure in failures[:SHOWN]:
        click.echo(f"failed: {failure.recording}: {failure.error}", err=True)
    if failures:
        raise VeloraError(
            f"{len(failures):,} of {len(found):,} recordings failed; {plan.folder / REPORT} tells why"
        )


def _workers_for(
    plan: ArchivePlan, workers: int | None, ray: str | None
) -> Callable[[Sequence[ArchivedRecording]], Iterable[Outcome]]:
    from velora_runtime.app.workers import list_gpus, predict_on_processes, predict_on_ray

    if ray is not None:
        return lambda todo: predict_on_ray(plan, todo, ray, workers)
    gpus = [] if plan.options.engine.device == "cpu" else list_gpus()
    count = workers or WORKERS_ON_A_GPU * len(gpus) or len(os.sched_getaffinity(0))
    return lambda todo: predict_on_processes(plan, todo, count, gpus)


def _summary(counts: ArchiveCounts, plan: ArchivePlan) -> str:
    all_ = counts.done + counts.kept + counts.failed
    return (
        f"{all_:,} recordings: {counts.done:,} predicted, {counts.rows:,} rows; {counts.kept:,} were there "
        f"already; {counts.failed:,} failed\n{plan.folder}"
    )
