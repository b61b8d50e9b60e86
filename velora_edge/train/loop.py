"""Training loop, the same for one process and for many, for a new run and for a resumed one."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from velora_edge.data.build import leave_out_damaged
from velora_edge.data.clips.clips import fingerprint, split_items
from velora_edge.errors import ConfigError, DatasetError, VeloraError
from velora_edge.model.lora import is_of_head
from velora_edge.train.batches import (
    Batch,
    ClipDataset,
    ClipLoader,
    Share,
    TrainSampler,
    count_workers,
    evaluation_batches,
    training_variety,
)
from velora_edge.train.objective import ChanceWatch, Objective, Scores, fair_share, score
from velora_edge.train.run import RunState, generators, set_generators
from velora_edge.train.schedule import Ema, make_optimizer, rate_factor, set_rate, swapped
from velora_edge.train.throughput import ThroughputMeter

if TYPE_CHECKING:
    from collections.abc import Callable

    from accelerate import Accelerator

    from velora_edge.data.clips.clips import ClipSource
    from velora_edge.model.velora import VELoRA
    from velora_edge.train.run import RunFolder, RunRecord
    from velora_edge.train.settings import TrainConfig

LOG_EVERY = 10


@dataclass
class Progress:
    """Progress of a run.

    Attributes:
        epoch: number of the epoch that the next step belongs to.
        done: steps of that epoch that are done.
        step: steps of the whole run that are done.
        best: figures of the best checkpoint so far, with their epoch and step.
    """

    epoch: int = 0
    done: int = 0
    step: int = 0
    best: dict[str, Any] | None = None


class Trainer:
    """One run of training.

    Args:
        config: all that it follows from.
        source: the data set.
        model: the network, its tuning set.
        accelerator: device, precision and processes.
        folder: where results go.
        say: called with what `data.skip_damaged` leaves out, and with a warning where the run only guesses.
    """

    def __init__(
        self,
        config: TrainConfig,
        source: ClipSource,
        model: VELoRA,
        accelerator: Accelerator,
        folder: RunFolder,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.config, self.source, self.accelerator, self.folder = config, source, accelerator, folder
        settings = config.train
        self.share = Share(accelerator.process_index, accelerator.num_processes)
        parts = split_items(source.items, config.data.split)
        self.members, self.val = parts["train"], parts["test" if settings.choose == "test" else "val"]
        if config.data.skip_damaged:
            sound = leave_out_damaged(
                source, np.concatenate([self.members, self.val]), lambda problem: say(f"left out: {problem}")
            )
            self.members, self.val = (part[np.isin(part, sound)] for part in (self.members, self.val))
        self.sampler = TrainSampler(self.members, settings.batch_size, settings.seed, self.share)
        self._check_size()
        labels = [source.items[int(index)].label for index in self.val]
        self.chance, self._loss = ChanceWatch(labels, source.labels, settings.epochs, say), math.nan
        self.loader = self._make_loader()
        self.meter = ThroughputMeter.on(accelerator.device, self.share.processes)

        model.set_grad_checkpointing(settings.gradient_checkpointing)
        if settings.compile:
            model.compile_blocks()
        self.model = model
        objective = Objective(model, settings.label_smoothing, settings.reconstruction).to(accelerator.device)
        names = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.parameters: dict[str, torch.nn.Parameter] = names
        self.clipped = [p for name, p in names.items() if settings.clip_norm_of == "all" or is_of_head(name)]
        self.objective, self.optimizer = accelerator.prepare(
            objective, make_optimizer(names, settings, settings.head_lr)
        )
        self.ema = Ema(names, settings.ema) if settings.ema else None
        self.steps = self.sampler.steps * settings.epochs
        self.progress = Progress()

    def _make_loader(self) -> ClipLoader:
        """Training clips and those of validation come from the same workers."""
        config, on_gpu = self.config, self.accelerator.device.type == "cuda"
        variety = training_variety(config.train, config.data.augment)
        clips = ClipDataset(self.source, variety, blank_colour(self.source))
        workers = count_workers(
            config.data.workers, on_gpu=on_gpu, batch_bytes=batch_bytes(self.source, config.train.batch_size)
        )
        return ClipLoader(clips, workers, pin=on_gpu)

    def _check_size(self) -> None:
        if self.sampler.steps == 0:
            whole = self.sampler.batch_size * self.share.processes
            raise ConfigError(
                [
                    f"train.batch_size: a step takes {whole} clips and there are {len(self.members)} "
                    "to train on; make it smaller"
                ]
            )
        if len(self.val) == 0 and self.config.train.choose == "test":
            raise DatasetError(
                ["there is no test part by which a checkpoint could be chosen"],
                path=self.source.path,
                remedy="set data.split.test, or train.choose=val",
            )
        if len(self.val) == 0 and self.config.train.choose == "val":
            raise DatasetError(
                ["validation has no clips, so that no checkpoint can be chosen"],
                path=self.source.path,
                remedy="set data.split.val, such as data.split.val=0.1, or take the last: train.choose=last",
            )

    def run(self, record: RunRecord) -> dict[str, Any]:
        """Train to the end; returns what the best checkpoint scored on the part that chose it.

        Raises:
            VeloraError: if the loss stops being a number.
        """
        try:
            while self.progress.epoch < self.config.train.epochs:
                self._train_epoch(record)
                self._finish_epoch(record)
        finally:
            self.loader.close()
            record.close()
        assert self.progress.best is not None
        return self.progress.best

    def _train_epoch(self, record: RunRecord) -> None:
        progress, settings = self.progress, self.config.train
        self.objective.train()
        keys = self.sampler.batches(progress.epoch, progress.done)
        for batch in self.meter.watch(self.loader.read(keys)):
            set_rate(
                self.optimizer, rate_factor(progress.step, self.steps, settings.warmup, settings.final_lr)
            )
            loss = self._step(batch.to(self.accelerator.device))
            self.meter.step_done(len(batch))
            progress.step += 1
            progress.done += 1
            is_logged = progress.step % LOG_EVERY == 0 or progress.done == self.sampler.steps
            record.step(progress.step, progress.epoch, self._figures(loss) if is_logged else None)
            if progress.done % settings.save_every == 0 and progress.done < self.sampler.steps:
                self.save_state()

    def _step(self, batch: Batch) -> torch.Tensor:
        """One update of the weights; returns the mean losses (total, classification, reconstruction)."""
        accelerator, settings = self.accelerator, self.config.train
        size = len(batch) // settings.accumulate
        parts = [batch[k : k + size] for k in range(0, len(batch), size)]
        sums = torch.zeros(3, device=accelerator.device)
        with_both = self._clips_with_both(batch)
        for number, part in enumerate(parts):
            share = fair_share(part.present, with_both, self.share.processes * len(parts))
            is_last = number == len(parts) - 1
            with contextlib.nullcontext() if is_last else accelerator.no_sync(self.objective):
                losses = self.objective(part, share)
                accelerator.backward(losses.total / len(parts))
            sums += torch.stack(
                [losses.total, losses.classification, losses.reconstruction * share]
            ).detach() / len(parts)
        if settings.clip_norm:
            accelerator.clip_grad_norm_(self.clipped, settings.clip_norm)
        self.optimizer.step()
        if self.ema is not None and not accelerator.optimizer_step_was_skipped:
            self.ema.update(self.parameters)
        self.optimizer.zero_grad(set_to_none=True)
        return sums

    def _clips_with_both(self, batch: Batch) -> float:
        """Count the clips of the step that have both cameras, over all processes."""
        if self.share.processes == 1:
            return float(batch.present.all(dim=1).sum())
        mine = batch.present.all(dim=1).sum().float()
        return float(self.accelerator.reduce(mine, "sum"))

    def _figures(self, sums: torch.Tensor) -> dict[str, float]:
        total, classification, reconstruction = self.accelerator.reduce(sums, "mean").tolist()
        if not math.isfinite(total):
            raise VeloraError(
                f"the loss is {total} after step {self.progress.step}; lower train.lr, "
                "or use train.precision=bf16 in place of fp16"
            )
        self._loss = classification
        return {
            "loss": total,
            "classification": classification,
            "reconstruction": reconstruction,
            "lr": self.optimizer.param_groups[0]["lr"],
            **self.meter.take().figures(),
        }

    def _finish_epoch(self, record: RunRecord) -> None:
        """Validate, keep the best and the last weights, save the state for the next epoch."""
        progress = self.progress
        with swapped(self.parameters, self.ema.weights if self.ema else {}):
            figures, chosen_by = dict[str, float](), self.config.train.choose
            if len(self.val):
                scores = self._validate()
                figures = {"top1": scores.top1, "top5": scores.top5, "loss": scores.loss}
                record.evaluated(
                    progress.step, progress.epoch, figures, "test" if chosen_by == "test" else "val"
                )
                self.chance.see(progress.epoch + 1, scores.top1, self._loss)
            told = {"epoch": progress.epoch + 1, "step": progress.step, **figures}
            is_best = chosen_by == "last" or progress.best is None or _rank(figures) > _rank(progress.best)
            if is_best:
                progress.best = told
            if self.accelerator.is_main_process:
                self.folder.save_model(self.model, "last", told)
                if is_best:
                    self.folder.save_model(self.model, "best", told)
        progress.epoch, progress.done = progress.epoch + 1, 0
        self.save_state()

    @torch.no_grad()
    def _validate(self) -> Scores:
        """Scores on the part that chooses the checkpoint, the same in every process."""
        self.objective.eval()
        objective: Objective = self.accelerator.unwrap_model(self.objective)
        keys = evaluation_batches(self.val, self.config.train.batch_size, self.share)
        told: list[tuple[Any, Any]] = []
        for batch in self.loader.read(keys):
            with self.accelerator.autocast():
                logits = objective.logits(batch.to(self.accelerator.device))
            told.append((logits.float().cpu().numpy(), batch.label.numpy()))
        everything = _gather(told, self.accelerator)
        return score(*(np.concatenate(column) for column in zip(*everything, strict=True)))

    def save_state(self) -> None:
        """Save what a resumed run needs."""
        rng = _gather([generators()], self.accelerator)
        if not self.accelerator.is_main_process:
            return
        progress, scaler = self.progress, self.accelerator.scaler
        self.folder.save_state(
            RunState(
                config=self.config.model_dump(mode="json"),
                fingerprint=fingerprint(self.source.items),
                epoch=progress.epoch,
                done=progress.done,
                step=progress.step,
                weights={name: p.detach() for name, p in self.parameters.items()},
                optimizer=self.optimizer.state_dict(),
                ema=self.ema.state_dict() if self.ema else None,
                scaler=scaler.state_dict() if scaler else None,
                rng=rng,
                best=progress.best,
            )
        )

    @torch.no_grad()
    def resume(self, state: RunState) -> None:
        """Go on exactly where the state was saved."""
        for name, parameter in self.parameters.items():
            parameter.copy_(state.weights[name])
        self.optimizer.load_state_dict(state.optimizer)
        if self.ema is not None and state.ema is not None:
            self.ema.load_state_dict(state.ema)
        if self.accelerator.scaler and state.scaler:
            self.accelerator.scaler.load_state_dict(state.scaler)
        if self.share.rank < len(state.rng):
            set_generators(state.rng[self.share.rank])
        self.progress = Progress(state.epoch, state.done, state.step, state.best)


def batch_bytes(source: ClipSource, clips: int) -> int:
    """Bytes of the images of so many clips."""
    height, width = source.spec.image_size
    return clips * len(source.cameras) * source.spec.length * height * width * 3


def blank_colour(source: ClipSource) -> tuple[int, int, int]:
    """The colour that an event image of the source has where no event fell."""
    from velora_edge.events.accumulate.representations import RegistrationMap, make_accumulator

    event = source.spec.event
    frame = make_accumulator(event, RegistrationMap.from_fit((1, 1), (1, 1)))
    frame.begin(0, event.window_us)
    image = np.empty((1, 1, 3), np.uint8)
    frame.render_into(image)
    red, green, blue = image[0, 0].tolist()
    return red, green, blue


def _rank(figures: dict[str, Any]) -> tuple[float, float]:
    return figures["top1"], -figures["loss"]


def _gather(mine: list[Any], accelerator: Accelerator) -> list[Any]:
    """The lists of all processes as one, in the order of the processes."""
    if accelerator.num_processes == 1:
        return mine
    from accelerate.utils import gather_object

    return list(gather_object(mine))
