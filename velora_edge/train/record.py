"""What a run tells while it goes on: a progress bar, TensorBoard, and `metrics.jsonl`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from velora_edge.errors import MissingExtraError

if TYPE_CHECKING:
    from pathlib import Path

METRICS = "metrics.jsonl"


class RunRecord:
    """The record of one run; only the main process has one that is not silent.

    Args:
        folder: the run's.
        steps: of the whole run.
        first_step: 0, or where a resumed run goes on: what was recorded later than that is dropped, since it
            will happen again.
        silent: keep no record and show nothing.
    """

    def __init__(self, folder: Path, steps: int, first_step: int = 0, *, silent: bool = False) -> None:
        self.silent = silent
        if silent:
            return
        self._path = folder / METRICS
        keep = [line for line in read_metrics(folder) if line["step"] <= first_step]
        self._path.write_text("".join(json.dumps(line) + "\n" for line in keep))
        self._board = _board(folder / "tensorboard", first_step)
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"), refresh_per_second=4,
        )  # fmt: skip
        self._task = self._bar.add_task("training", total=steps, completed=first_step, figures="")
        self._bar.start()

    def step(self, step: int, epoch: int, figures: dict[str, float] | None = None) -> None:
        """A step is done; `figures` are recorded where they are given."""
        if self.silent:
            return
        self._bar.update(self._task, completed=step, description=f"epoch {epoch + 1}")
        if figures is not None:
            self._write({"step": step, "epoch": epoch, "part": "train", **figures})
            self._bar.update(self._task, figures=f"loss {figures['loss']:.3f}")

    def evaluated(self, step: int, epoch: int, figures: dict[str, float]) -> None:
        """The validation part was told after an epoch."""
        if self.silent:
            return
        self._write({"step": step, "epoch": epoch, "part": "val", **figures})
        told = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
        self._bar.console.print(f"epoch {epoch + 1}: validation {told}", highlight=False)

    def close(self) -> None:
        """End the progress bar and the files."""
        if not self.silent:
            self._bar.stop()
            self._board.close()

    def _write(self, line: dict[str, Any]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        for name, value in line.items():
            if name not in ("step", "epoch", "part"):
                self._board.add_scalar(f"{line['part']}/{name}", value, line["step"])


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`; a last line that was cut off is left out."""
    if not (folder / METRICS).is_file():
        return []
    lines = (folder / METRICS).read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _board(folder: Path, first_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError("tensorboard", "train", "the record of a training run") from error
    return SummaryWriter(str(folder), purge_step=first_step + 1)
