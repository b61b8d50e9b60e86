"""Linear probe on features of frozen towers, which are computed once and kept on disk.

A probe's towers never change, so what they make of a clip is the same in every epoch. `train.cache_views` of
each training clip's variations, those of the first epochs, go through the towers; epoch e takes variation
e mod N. The classifier then trains in seconds.

    RUNS/features/KEY.safetensors    of one part: `features` float32 [V, N, 3, F], `present` uint8 [V, N, 3]

KEY is a digest of all that the features follow from: the towers' weights, the data's names, labels and file,
how clips are made and varied. The file carries the key too, so that no other is taken for it.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn import functional

from velora_edge import __version__
from velora_edge.console import progress
from velora_edge.data.clips.augment import DIGITS, SYNTHETIC
from velora_edge.data.clips.clips import fingerprint
from velora_edge.errors import ConfigError, VeloraError
from velora_edge.files import PartFile
from velora_edge.model.checkpoint import state_sha256
from velora_edge.model.head import Streams
from velora_edge.model.lora import base_names
from velora_edge.train.batches import ClipDataset, evaluation_batches, load, training_variety
from velora_edge.train.loop import LOG_EVERY, blank_colour
from velora_edge.train.objective import Objective, score
from velora_edge.train.schedule import rate_factor, set_rate, swapped

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from velora_edge.data.clips.clips import ClipSource
    from velora_edge.model.velora import VELoRA
    from velora_edge.train.loop import Trainer
    from velora_edge.train.run import RunRecord
    from velora_edge.train.settings import TrainConfig

FEATURES = "features"


@dataclass(frozen=True)
class Features:
    """What frozen towers make of the clips of one part.

    Attributes:
        values: float32 [V, N, 3, F], by variation, clip and modality (rgb, event, diff): class and mean
            tokens, averaged over the clip.
        present: bool [V, N, 3], whether the modality is there at all.
        labels: int64 [N].
        rows: a clip's row by its number in the data set.
    """

    values: torch.Tensor
    present: torch.Tensor
    labels: torch.Tensor
    rows: dict[int, int]


def read_features(
    model: VELoRA, dataset: ClipDataset, members: NDArray[np.int64], views: int, config: TrainConfig
) -> tuple[Features, bool]:
    """The features of clips, from disk where they were computed before.

    Args:
        model: a linear probe, on the device that computes them.
        dataset: its clips, varied or not.
        members: int64[N], which clips.
        views: variations of each, V.
        config: of the run.

    Returns:
        The features, and whether they were there.

    Raises:
        ConfigError: if the data set is none whose change would be noticed: a folder of many files.
    """
    key = features_key(model, dataset, members, views, config)
    file = Path(config.run.folder) / FEATURES / f"{key[:32]}.safetensors"
    stored = _read(file, key)
    if stored is None:
        stored = _compute(model, dataset, members, views, config)
        file.parent.mkdir(parents=True, exist_ok=True)
        with PartFile(file) as part:
            save_file(stored, part.path, metadata={"key": key})
            part.commit()
        is_kept = False
    else:
        is_kept = True
    items = dataset.source.items
    labels = torch.tensor([items[int(index)].label for index in members])
    rows = {int(index): row for row, index in enumerate(members)}
    return Features(stored["features"], stored["present"].bool(), labels, rows), is_kept


def features_key(
    model: VELoRA, dataset: ClipDataset, members: NDArray[np.int64], views: int, config: TrainConfig
) -> str:
    """Digest of all that the features of these clips follow from."""
    state, source = model.state_dict(), dataset.source
    variety = None
    if dataset.variety is not None:
        varied = dataset.variety
        variety = [varied.augment.model_dump(mode="json"), varied.drop_rgb, varied.drop_event, varied.seed]
    facts = {
        "version": __version__,
        "towers": state_sha256({name: state[name] for name in base_names(model)}),
        "normalisation": [model.config.mean, model.config.std],
        "precision": config.train.precision,
        "data": [fingerprint(source.items), _stamp(source, config)],
        "clip": [config.clip.model_dump(mode="json"), model.config.clip_length, model.config.image_size],
        "variety": variety,
        "views": views,
        "members": members.tolist(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _stamp(source: ClipSource, config: TrainConfig) -> list[int]:
    """What changes when the set's images do, though its names stay: its file's size and time, or its seed."""
    if config.data.path in (SYNTHETIC, DIGITS):
        return [config.data.seed]
    if source.path.is_file():
        stat = source.path.stat()
        return [stat.st_size, stat.st_mtime_ns]
    raise ConfigError(
        [
            "train.cache_views: features are kept of a set in one file, whose change is noticed; "
            f"pack it: velora dataset build {source.path} OUT.h5 --for CONFIG"
        ]
    )


def _read(file: Path, key: str) -> dict[str, torch.Tensor] | None:
    """What a file of features holds; None where there is none, it is damaged, or it is of another key."""
    try:
        with safe_open(file, "pt") as opened:
            if (opened.metadata() or {}).get("key") != key:
                return None
        return load_file(file)
    except Exception:  # safetensors' own type: a damaged file is computed anew
        return None


@torch.no_grad()
def _compute(
    model: VELoRA, dataset: ClipDataset, members: NDArray[np.int64], views: int, config: TrainConfig
) -> dict[str, torch.Tensor]:
    objective = Objective(model.eval())
    device = next(model.parameters()).device
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(config.train.precision)
    batches = [
        [(view, index) for _, index in batch]
        for view in range(views)
        for batch in evaluation_batches(members, config.train.batch_size)
    ]
    values, present = [], []
    with progress(len(batches), "features of frozen towers") as tick:
        for batch in load(dataset, batches, config.data.workers or 0):
            with torch.autocast(device.type, kind or torch.bfloat16, enabled=kind is not None):
                tokens, there = objective.encode(batch.to(device))
            pooled = model.pool(tokens, there)
            values.append(torch.stack(list(pooled), dim=1).float().cpu())
            present.append(torch.stack([slots.any(dim=1) for slots in there], dim=1).cpu())
            tick()
    shape = (views, len(members), 3)
    return {
        "features": torch.cat(values).reshape(*shape, -1).contiguous(),
        "present": torch.cat(present).reshape(shape).to(torch.uint8),
    }


class ProbeRun:
    """Training of the probe's classifier on features, with the run's optimiser, schedule and records.

    Args:
        trainer: of the run; its loop over images is not used.
        say: gets a line on the features.
    """

    def __init__(self, trainer: Trainer, say: Callable[[str], None]) -> None:
        config, model = trainer.config, trainer.model
        if trainer.share.processes > 1:
            raise ConfigError(["train.cache_views: one process is enough; start it with --processes 1"])
        self.trainer, self.config, self.model = trainer, config, model
        self._loss = math.nan
        views, source, blank = config.train.cache_views, trainer.source, blank_colour(trainer.source)
        varied = ClipDataset(source, training_variety(config.train, config.data.augment), blank)
        self.train, train_kept = read_features(model, varied, trainer.members, views, config)
        self.val, is_kept = self.train, train_kept
        if len(trainer.val):
            self.val, is_kept = read_features(model, ClipDataset(source, None, blank), trainer.val, 1, config)
        told = "read from disk" if train_kept and is_kept else "computed and kept"
        say(f"features of {len(trainer.members)} clips in {views} variations, {told}")

    def run(self, record: RunRecord) -> dict[str, Any]:
        """Train to the end; returns what the best checkpoint scored on the part that chose it.

        Raises:
            VeloraError: if the loss stops being a number.
        """
        trainer, step, best = self.trainer, 0, None
        weights = trainer.ema.weights if trainer.ema else {}
        try:
            for epoch in range(self.config.train.epochs):
                self.model.train()
                for keys in trainer.sampler.batches(epoch):
                    self._loss = loss = self._step([index for _, index in keys], epoch, step)
                    step += 1
                    record.step(step, epoch, {"loss": loss} if step % LOG_EVERY == 0 else None)
                with swapped(trainer.parameters, weights):
                    best = self._finish_epoch(record, epoch, step, best)
        finally:
            trainer.loader.close()
            record.close()
        assert best is not None
        return best

    def _finish_epoch(
        self, record: RunRecord, epoch: int, step: int, best: dict[str, Any] | None
    ) -> dict[str, Any] | None:
        """Validate, keep the best and the last weights; gives what the best ones scored."""
        chosen_by, folder = self.config.train.choose, self.trainer.folder
        is_last = epoch + 1 == self.config.train.epochs
        told: dict[str, Any] = {"epoch": epoch + 1, "step": step}
        if len(self.trainer.val):
            figures = self._validate()
            record.evaluated(step, epoch, figures, "test" if chosen_by == "test" else "val")
            self.trainer.chance.see(epoch + 1, figures["top1"], self._loss)
            told |= figures
        if is_last if chosen_by == "last" else best is None or _rank(told) > _rank(best):
            best = told
            folder.save_model(self.model, "best", told)
        if is_last:
            folder.save_model(self.model, "last", told)
        return best

    def _step(self, members: list[int], epoch: int, step: int) -> float:
        trainer, settings = self.trainer, self.config.train
        set_rate(trainer.optimizer, rate_factor(step, trainer.steps, settings.warmup, settings.final_lr))
        rows = torch.tensor([self.train.rows[index] for index in members])
        view = epoch % len(self.train.values)
        logits = self._logits(self.train.values[view, rows], self.train.present[view, rows])
        labels = self.train.labels[rows].to(logits.device)
        loss = functional.cross_entropy(logits, labels, label_smoothing=settings.label_smoothing)
        trainer.accelerator.backward(loss)
        if settings.clip_norm:
            torch.nn.utils.clip_grad_norm_(trainer.clipped, settings.clip_norm)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad(set_to_none=True)
        if trainer.ema is not None:
            trainer.ema.update(trainer.parameters)
        if not math.isfinite(value := float(loss.detach())):
            raise VeloraError(f"the loss is {value} after step {step + 1}; lower train.lr")
        return value

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        self.model.eval()
        logits = self._logits(self.val.values[0], self.val.present[0])
        scores = score(logits.float().cpu().numpy(), self.val.labels.numpy())
        return {"top1": scores.top1, "top5": scores.top5, "loss": scores.loss}

    def _logits(self, values: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        device = next(self.model.parameters()).device
        return self.model.decide_pooled(
            Streams(*values.to(device).unbind(dim=1)), Streams(*present.to(device).unbind(dim=1))
        )


def _rank(figures: dict[str, Any]) -> tuple[float, float]:
    return figures["top1"], -figures["loss"]
