"""Session of `velora train`: its processes, from the configuration to the best checkpoint."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from velora_edge.data.build import require_sound
from velora_edge.data.registry import open_clips
from velora_edge.errors import ConfigError, InputError, MissingExtraError
from velora_edge.model.config import ModelConfig
from velora_edge.model.lora import ParameterCounts, count_parameters
from velora_edge.model.velora import create_model
from velora_edge.train.loop import Trainer
from velora_edge.train.run import STATE, RunFolder, RunRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from accelerate import Accelerator

    from velora_edge.data.clips.clips import ClipSource
    from velora_edge.train.settings import OptimSection, TrainConfig


@dataclass(frozen=True)
class Launch:
    """Processes of a run.

    Attributes:
        processes: on this host; None: one for each GPU, or one.
        hosts: how many take part.
        host: this one's number, from 0; host 0 is the main one.
        main: the main host's address and a free port there, HOST:PORT; needed where there are several hosts.
    """

    processes: int | None = None
    hosts: int = 1
    host: int = 0
    main: str | None = None

    def check(self) -> None:
        """Raise InputError if the numbers do not go together."""
        address, _, port = (self.main or "").rpartition(":")
        if self.hosts > 1 and not (address and port.isdigit()):
            raise InputError(
                "several hosts need to know where to meet",
                place="--main",
                remedy="give every host the same --main HOST:PORT, the address of host 0",
            )
        if not 0 <= self.host < self.hosts:
            raise InputError(f"expected 0 to {self.hosts - 1}, got {self.host}", place="--host")


def is_launched() -> bool:
    """Whether this process was started by a launcher (ours, torchrun, accelerate launch)."""
    return "LOCAL_RANK" in os.environ


def count_processes(launch: Launch, *, on_cpu: bool) -> int:
    """Return how many processes this host is to start."""
    if launch.processes is not None:
        return launch.processes
    import torch

    return 1 if on_cpu else max(1, torch.cuda.device_count())


def start(launch: Launch, processes: int, worker: str, arguments: Sequence[str]) -> int:
    """Start the processes and wait for them; returns the exit code.

    Args:
        launch: where they run.
        processes: how many, on this host.
        worker: the module that each of them runs (`python -m`).
        arguments: the command's own.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    if launch.hosts > 1:
        command += ["--nnodes", str(launch.hosts), "--node-rank", str(launch.host)]
        address, _, port = (launch.main or "").rpartition(":")
        command += ["--master-addr", address, "--master-port", port]
    else:
        command += ["--standalone"]
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    environment = {"OMP_NUM_THREADS": threads, **os.environ}
    return subprocess.run([*command, "-m", worker, *arguments], env=environment, check=False).returncode


@dataclass(frozen=True)
class Outcome:
    """Outcome of a run.

    Attributes:
        folder: the run's.
        best: figures of the best checkpoint on validation.
        parameters: how many the network has, by what training did with them.
        is_main: whether this is the process that speaks for all.
    """

    folder: Path
    best: dict[str, Any]
    parameters: ParameterCounts
    is_main: bool = True


def train(
    config: TrainConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Train a model; every process of a run calls this with the same arguments.

    Args:
        config: all that the run follows from.
        resume: go on with the run in the folder; a run that never saved a state starts from its beginning.
        overwrite: remove a run that is in the folder.
        say: called with lines for the user, in the main process alone.

    Raises:
        DatasetError: if the data is not sound.
        ConfigError: if the configuration does not fit the data or the machine.
        InputError: if the folder holds a run and neither `resume` nor `overwrite` is set.
    """
    accelerator = make_accelerator(config.train)
    tell = say if accelerator.is_main_process else lambda line: None
    source = open_data(config)
    if config.data.check and accelerator.is_main_process:
        require_sound(source)
    folder = RunFolder(config, source)
    is_resumed = resume and (folder.path / STATE).exists()
    if not (resume or overwrite):
        folder.require_free()
    torch.manual_seed(config.train.seed)
    model = create_model(model_config(config, source))
    torch.manual_seed(config.train.seed * 1000 + accelerator.process_index + 1)
    trainer = Trainer(config, source, model, accelerator, folder)
    if accelerator.is_main_process and not is_resumed:
        folder.begin()
    accelerator.wait_for_everyone()
    if is_resumed:
        trainer.resume(folder.state())
        tell(f"resumed at step {trainer.progress.step} of {trainer.steps}")
    counts = count_parameters(model)
    folder.identity["parameters"] = {"trained": counts.trained, "frozen": counts.frozen}
    tell(
        f"{len(trainer.members)} clips to train on, {len(trainer.val)} for validation, "
        f"{len(source.labels)} classes; {counts.trained:,} parameters trained, {counts.frozen:,} frozen"
    )
    record = RunRecord(
        folder.path, trainer.steps, trainer.progress.step, silent=not accelerator.is_main_process
    )
    best = trainer.run(record)
    source.close()
    accelerator.end_training()
    return Outcome(folder.path, best, counts, accelerator.is_main_process)


def open_data(config: TrainConfig) -> ClipSource:
    """The data set in the form that the configuration's model takes."""
    spec = config.clip.spec(config.model.clip_length, config.model.image_size)
    return open_clips(config.data.path, spec, kind=config.data.kind, seed=config.data.seed)


def model_config(config: TrainConfig, source: ClipSource) -> ModelConfig:
    """The network's form with the data set's labels.

    Raises:
        ConfigError: if the configuration names labels that are not the data set's.
    """
    labels = config.model.labels or source.labels
    if labels != source.labels:
        raise ConfigError(
            [f"model.labels: the data set's are {', '.join(source.labels)}; leave the key out to take them"]
        )
    return ModelConfig(**{**config.model.model_dump(), "labels": labels})


def make_accelerator(config: OptimSection) -> Accelerator:
    """Device, precision and processes, as the launcher's environment says.

    Raises:
        ConfigError: if the machine cannot compute in the precision.
    """
    try:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState
        from accelerate.utils import DistributedDataParallelKwargs
    except ImportError as error:
        raise MissingExtraError("accelerate", "train", "training") from error
    on_cpu = config.device == "cpu" or not torch.cuda.is_available()
    if config.precision == "fp16" and on_cpu:
        raise ConfigError(["train.precision: fp16 needs a GPU; use bf16 or fp32 on a CPU"])
    # Gradients of clips that are learned become denormal, and a CPU is half as fast with such numbers.
    torch.set_flush_denormal(True)
    if not is_launched():
        # accelerate keeps the first one's settings for the life of the process; a process may train again.
        AcceleratorState._reset_state(reset_partial_state=True)
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    return Accelerator(
        cpu=on_cpu,
        mixed_precision={"fp32": "no"}.get(config.precision, config.precision),
        # A process whose clips all lack a camera has no gradient for that camera's tower.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
