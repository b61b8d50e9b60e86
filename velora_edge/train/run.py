"""The folder of a training run: its configuration, checkpoints, state and record."""

from __future__ import annotations

import hashlib
import json
import shutil
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from velora_edge import __version__
from velora_edge.config import build_config, write_yaml
from velora_edge.data.clips.splits import fingerprint
from velora_edge.errors import ConfigError, InputError
from velora_edge.model.checkpoint import Inputs, save_checkpoint
from velora_edge.train.record import METRICS
from velora_edge.train.settings import TrainConfig, same_run
from velora_edge.train.state import STATE, RunState, load_state, save_state

if TYPE_CHECKING:
    from pathlib import Path

    from velora_edge.data.clips.clips import ClipSource
    from velora_edge.model.velora import VELoRA

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

    def save_model(self, model: VELoRA, name: str, validation: dict[str, Any]) -> None:
        """Save the network as it is now as the checkpoint `name`."""
        backbone = model.config.backbone
        is_named = (backbone.pretrained or backbone.weights is not None) and model.config.tuning != "full"
        clip = self.config.clip
        save_checkpoint(
            model,
            self.path / name,
            include_base=not is_named,
            inputs=Inputs(event=clip.event, rgb=clip.rgb, stride=clip.stride),
            run=self.identity,
            accuracy={"validation": validation},
        )


def clear_run(folder: Path) -> None:
    """Remove what a run leaves in its folder, and nothing else that may lie there."""
    for name in LEFT_BY_RUNS:
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
        else:
            (folder / name).unlink(missing_ok=True)


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
            "sampling": config.clip.sampling,
            "cameras": list(source.cameras),
        },
    }
