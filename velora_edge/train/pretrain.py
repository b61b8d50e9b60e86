"""Pre-training of a tower: a vision transformer that learns to classify single images."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from velora_edge.bundle import file_sha256
from velora_edge.config import write_yaml
from velora_edge.data.build import leave_out_damaged, require_sound
from velora_edge.data.clips.clips import CAMERAS, split_items
from velora_edge.errors import ConfigError, InputError
from velora_edge.files import PartFile, replace_file
from velora_edge.model.tower import TowerRecord
from velora_edge.train.batches import (
    ClipDataset,
    ClipLoader,
    Share,
    TrainSampler,
    Variety,
    count_workers,
    evaluation_batches,
)
from velora_edge.train.loop import LOG_EVERY, batch_bytes, blank_colour
from velora_edge.train.objective import score
from velora_edge.train.run import RunRecord, clear_run
from velora_edge.train.schedule import Ema, make_optimizer, rate_factor, set_rate, swapped
from velora_edge.train.session import make_accelerator, open_packed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from velora_edge.data.clips.clips import ClipSource, Modality
    from velora_edge.train.batches import Batch
    from velora_edge.train.settings import PretrainConfig, TowerSection

WEIGHTS, FACTS = "tower.safetensors", "tower.json"


@dataclass(frozen=True)
class Tower:
    """What pre-training came to.

    Attributes:
        weights: timm's state dict with its classifier, which whoever loads it leaves out.
        figures: of the validation part, image by image.
    """

    weights: Path
    figures: dict[str, float]


class ImageClassifier(nn.Module):
    """A timm vision transformer that tells each image of a clip, whichever camera it comes from.

    Args:
        tower: its form.
        classes: K.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, tower: TowerSection, classes: int) -> None:
        super().__init__()
        try:
            self.vit = timm.create_model(
                tower.name, pretrained=False, num_classes=classes, img_size=tower.image_size, **tower.args
            )
        except (TypeError, AssertionError, ValueError, RuntimeError) as error:
            raise ConfigError([f"tower.args: timm cannot make {tower.name}: {error}"]) from error
        positions = self.vit.pos_embed
        assert isinstance(positions, torch.Tensor)
        nn.init.normal_(positions, std=tower.position_std)
        for name in ("mean", "std"):
            values = torch.tensor(getattr(tower, name)).view(3, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits float32 [N, K] of uint8 images [N, H, W, 3]."""
        scaled = images.movedim(-1, -3).to(self.mean.dtype) / 255
        logits: torch.Tensor = self.vit((scaled - self.mean) / self.std)
        return logits.float()


def pretrain(
    config: PretrainConfig, *, overwrite: bool = False, say: Callable[[str], None] = lambda line: None
) -> Tower:
    """Pre-train a tower on single images, each with its recording's label.

    Args:
        config: all that it follows from.
        overwrite: replace a tower that is in the run's folder.
        say: called with lines for the user.

    Raises:
        InputError: if the folder holds a tower and `overwrite` is not set.
        DatasetError: if the data is not sound.
    """
    folder = config.run.path
    if (folder / WEIGHTS).exists() and not overwrite:
        raise InputError(
            "holds a tower already",
            path=folder,
            remedy="replace it by --overwrite, or choose another run.name",
        )
    spec = config.clip.spec(config.tower.images, config.tower.image_size)
    source = open_packed(config.data, spec, config.run.folder, say)
    if config.data.check and not config.data.skip_damaged:
        require_sound(source)
    clear_run(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_yaml(config, folder / "config.yaml")
    trainer = _Pretrainer(config, source, say)
    count = sum(p.numel() for p in trainer.model.parameters())
    say(f"{len(trainer.members)} recordings to learn from, {len(trainer.val)} held out; {count:,} parameters")
    figures = trainer.run(folder)
    weights = {name: value.contiguous().cpu() for name, value in trainer.averaged().items()}
    form = config.tower
    record = TowerRecord(
        name=form.name,
        args=form.args,
        image_size=form.image_size,
        mean=form.mean,
        std=form.std,
        source=source.path.name,
    )
    with PartFile(folder / WEIGHTS) as part:
        save_file(weights, part.path, metadata=record.metadata())
        part.commit()
    facts = {
        "backbone": {"name": config.tower.name, "args": config.tower.args},
        "image_size": config.tower.image_size,
        "sha256": file_sha256(folder / WEIGHTS),
        "data": str(source.path),
        "validation": figures,
    }
    replace_file(folder / FACTS, (json.dumps(facts, indent=2) + "\n").encode(), mode=0o644)
    source.close()
    return Tower(folder / WEIGHTS, figures)


class _Pretrainer:
    def __init__(self, config: PretrainConfig, source: ClipSource, say: Callable[[str], None]) -> None:
        self.config, self.source, settings = config, source, config.train
        parts = split_items(source.items, config.data.split)
        self.members, self.val = parts["train"], parts["val"]
        if config.data.skip_damaged:
            sound = leave_out_damaged(
                source, np.concatenate([self.members, self.val]), lambda problem: say(f"left out: {problem}")
            )
            self.members, self.val = (part[np.isin(part, sound)] for part in (self.members, self.val))
        self.sampler = TrainSampler(self.members, settings.batch_size, settings.seed, Share())
        if not self.sampler.steps:
            raise ConfigError(
                [f"train.batch_size: there are only {len(self.members)} recordings to learn from"]
            )
        self.steps = self.sampler.steps * settings.epochs
        self.accelerator = make_accelerator(settings)
        torch.manual_seed(settings.seed)
        self.model = ImageClassifier(config.tower, len(source.labels)).to(self.accelerator.device)
        self.parameters = dict(self.model.named_parameters())
        self.wrapped, self.optimizer = self.accelerator.prepare(
            self.model, make_optimizer(self.parameters, settings)
        )
        self.ema = Ema(self.parameters, settings.ema) if settings.ema else None
        variety = Variety(config.data.augment, 0.0, 0.0, settings.seed)
        on_gpu = self.accelerator.device.type == "cuda"
        workers = count_workers(
            config.data.workers, on_gpu=on_gpu, batch_bytes=batch_bytes(source, settings.batch_size)
        )
        self.loader = ClipLoader(ClipDataset(source, variety, blank_colour(source)), workers, pin=on_gpu)

    def run(self, folder: Path) -> dict[str, float]:
        record = RunRecord(folder, self.steps)
        step, figures = 0, dict[str, float]()
        try:
            for epoch in range(self.config.train.epochs):
                self.wrapped.train()
                for batch in self.loader.read(self.sampler.batches(epoch)):
                    loss = self._step(batch.to(self.accelerator.device), step)
                    step += 1
                    record.step(step, epoch, {"loss": float(loss)} if step % LOG_EVERY == 0 else None)
                figures = self._validate()
                record.evaluated(step, epoch, figures)
        finally:
            self.loader.close()
            record.close()
        return figures

    def averaged(self) -> dict[str, torch.Tensor]:
        """State dict of the averaged weights, as timm names them."""
        with swapped(self.parameters, self.ema.weights if self.ema else {}):
            return {name: value.detach().clone() for name, value in self.model.vit.state_dict().items()}

    def _step(self, batch: Batch, step: int) -> torch.Tensor:
        settings = self.config.train
        set_rate(self.optimizer, rate_factor(step, self.steps, settings.warmup, settings.final_lr))
        images, labels = _images(batch, CAMERAS)
        loss = functional.cross_entropy(
            self.wrapped(images), labels, label_smoothing=settings.label_smoothing
        )
        self.accelerator.backward(loss)
        if settings.clip_norm:
            self.accelerator.clip_grad_norm_(self.wrapped.parameters(), settings.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update(self.parameters)
        return loss.detach()

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """Top-1 and loss of single images, by camera; empty where nothing is held out."""
        if not len(self.val):
            return {}
        self.wrapped.eval()
        told: dict[Modality, list[tuple[Any, Any]]] = {camera: [] for camera in self.source.cameras}
        with swapped(self.parameters, self.ema.weights if self.ema else {}):
            for batch in self.loader.read(evaluation_batches(self.val, 16)):
                for camera, logits in told.items():
                    images, labels = _images(batch.to(self.accelerator.device), (camera,))
                    logits.append((self.wrapped(images).cpu().numpy(), labels.cpu().numpy()))
        figures: dict[str, float] = {}
        for camera, logits in told.items():
            found = score(*(np.concatenate(column) for column in zip(*logits, strict=True)))
            figures |= {f"{camera}_top1": found.top1, f"{camera}_loss": found.loss}
        return figures


def _images(batch: Batch, cameras: tuple[Modality, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """All images of the cameras that are there, uint8 [N, H, W, 3], and their labels int64 [N]."""
    images, labels = [], []
    for camera in cameras:
        of_camera = batch.rgb if camera == "rgb" else batch.event
        if of_camera is not None:
            there = batch.present[:, CAMERAS.index(camera)]
            images.append(of_camera[there].flatten(0, 1))
            labels.append(batch.label[there].repeat_interleave(of_camera.shape[1]))
    return torch.cat(images), torch.cat(labels)
