"""Folder of a training run: configuration, checkpoints, the state to resume from, and its log."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from velora_edge import __version__
from velora_edge.config import build_config, write_yaml
from velora_edge.data.clips.clips import fingerprint, median_span_s, split_items
from velora_edge.errors import BundleError, ConfigError, InputError, MissingExtraError
from velora_edge.files import PartFile
from velora_edge.model.checkpoint import Inputs, save_checkpoint
from velora_edge.train.settings import TrainConfig, same_run

if TYPE_CHECKING:
    from pathlib import Path

    from velora_edge.data.clips.clips import ClipSource
    from velora_edge.model.velora import VELoRA


STATE = "state.pt"
VERSION = 1


@dataclass
class RunState:
    """A run between two steps.

    Attributes:
        config: the run's configuration, plain values.
        fingerprint: of the data set's recordings.
        epoch: number of the epoch that the next step belongs to.
        done: steps of that epoch that are done.
        step: steps of the whole run that are done.
        weights: the trained parameters by name.
        optimizer: its state dict.
        ema: the average's state, or None.
        scaler: the fp16 loss scaler's state, or None.
        rng: each process's generators, by process.
        best: what the best checkpoint so far scored, or None.
    """

    config: dict[str, Any]
    fingerprint: str
    epoch: int
    done: int
    step: int
    weights: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    ema: dict[str, Any] | None
    scaler: dict[str, Any] | None
    rng: list[dict[str, Any]]
    best: dict[str, Any] | None


def save_state(state: RunState, folder: Path) -> None:
    """Write a state; a crash at any moment leaves the one before or this one."""
    with PartFile(folder / STATE) as part:
        torch.save({"version": VERSION, **_shallow(state)}, part.path)
        part.commit()


def load_state(folder: Path) -> RunState:
    """The state that a run left in its folder, on the CPU.

    Raises:
        BundleError: if there is none, or it is damaged or of another version.
    """
    path = folder / STATE
    if not path.is_file():
        raise BundleError("holds no state to resume from", path=folder, remedy="start it without --resume")
    try:
        tree = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise BundleError(
            f"cannot be read: {str(error).splitlines()[0]}", path=path, remedy="start the run anew"
        ) from error
    if not isinstance(tree, dict) or tree.pop("version", None) != VERSION:
        raise BundleError(
            "is no state of this version of velora-edge", path=path, remedy="start the run anew"
        )
    return RunState(**tree)


def generators() -> dict[str, Any]:
    """The state of this process's random generators; torch's are the only global ones that training uses."""
    state: dict[str, Any] = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_generators(state: dict[str, Any]) -> None:
    """Put the generators back to where they were."""
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _shallow(state: RunState) -> dict[str, Any]:
    return {name: getattr(state, name) for name in state.__dataclass_fields__}


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
            rate = f", {figures['clips_per_s']:.3g} clips/s" if "clips_per_s" in figures else ""
            self._bar.update(self._task, figures=f"loss {figures['loss']:.3f}{rate}")

    def evaluated(self, step: int, epoch: int, figures: dict[str, float], part: str = "val") -> None:
        """The part that chooses the checkpoint, val or test, was told after an epoch."""
        if self.silent:
            return
        self._write({"step": step, "epoch": epoch, "part": part, **figures})
        told = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
        name = {"val": "validation"}.get(part, part)
        self._bar.console.print(f"epoch {epoch + 1}: {name} {told}", highlight=False)

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


CONFIG = "config.yaml"
LEFT_BY_RUNS = (
    CONFIG, STATE, METRICS, "best", "last", "tensorboard", "tower.safetensors", "tower.json",
)  # fmt: skip


class RunFolder:
    """Where a run leaves its results.

        config.yaml         all that it followed from
        metrics.jsonl       figures by step and by epoch; tensorboard/ shows the same
        best/, last/        checkpoints: the weights that did best on validation, and the newest
        state.pt            what a resumed run goes on from

    Args:
        config: the run's.
        source: the data set that it trains on.
    """

    def __init__(self, config: TrainConfig, source: ClipSource) -> None:
        self.config, self.source, self.path = config, source, config.run.path
        self.identity = run_identity(config, source)
        self.inputs = clip_inputs(config, source)

    def require_free(self) -> None:
        """Make sure that nothing is lost by a new run.

        Raises:
            InputError: if there is a run in the folder already.
        """
        if (self.path / STATE).exists() or (self.path / CONFIG).exists():
            raise InputError(
                "holds a run already",
                path=self.path,
                remedy="go on with it by --resume, replace it by --overwrite, or choose another run.name",
            )

    def begin(self) -> None:
        """Make the folder for a new run; what an older one left there is removed."""
        clear_run(self.path)
        self.path.mkdir(parents=True, exist_ok=True)
        write_yaml(self.config, self.path / CONFIG)

    def state(self) -> RunState:
        """The state to resume from.

        Raises:
            BundleError: if there is none.
            ConfigError: if the run was another one: other settings, other data.
        """
        state = load_state(self.path)
        before = build_config(state.config, TrainConfig, path=self.path / STATE)
        problems = [
            f"{key}: differs from the run that is to be resumed" for key in same_run(before, self.config)
        ]
        if state.fingerprint != fingerprint(self.source.items):
            problems.append("data.path: holds other recordings than the run that is to be resumed")
        if problems:
            raise ConfigError(problems, path=self.path)
        return state

    def save_state(self, state: RunState) -> None:
        """Save a state, whole or not at all."""
        save_state(state, self.path)

    def save_model(self, model: VELoRA, name: str, scored: dict[str, Any]) -> None:
        """Save the network as it is now as the checkpoint `name`, with what it scored."""
        backbone = model.config.backbone
        is_named = (backbone.pretrained or backbone.weights is not None) and model.config.tuning != "full"
        save_checkpoint(
            model,
            self.path / name,
            include_base=not is_named,
            inputs=self.inputs,
            run=self.identity,
            accuracy={"chosen_on_test" if self.config.train.choose == "test" else "validation": scored},
        )


def clear_run(folder: Path) -> None:
    """Remove what a run leaves in its folder, and nothing else that may lie there."""
    for name in LEFT_BY_RUNS:
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
        else:
            (folder / name).unlink(missing_ok=True)


def clip_inputs(config: TrainConfig, source: ClipSource) -> Inputs:
    """What a checkpoint says of its clips: how images are made, and the time that a clip covers."""
    clip, members = config.clip, split_items(source.items, config.data.split)["train"]
    return Inputs(
        event=clip.event,
        rgb=clip.rgb,
        stride=clip.stride,
        span_s=median_span_s(source, members),
        rate_hz=source.rate_hz,
    )


def run_identity(config: TrainConfig, source: ClipSource) -> dict[str, Any]:
    """What a checkpoint and a bundle say of the run that they come from; evaluation reads `data` of it."""
    tree = config.model_dump(mode="json")
    return {
        "name": config.run.name,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "version": __version__,
        "config_sha256": hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest(),
        "seed": config.train.seed,
        "tuning": config.model.tuning,
        "data": {
            "kind": source.kind,
            "name": source.path.name,
            "fingerprint": fingerprint(source.items),
            "split": config.data.split.model_dump(mode="json"),
            "seed": config.data.seed,
            "chosen_by": config.train.choose,
            "sampling": config.clip.sampling,
            "cameras": list(source.cameras),
            "event_frames": source.event_frames,
        },
    }
