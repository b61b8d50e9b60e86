"""Session of `velora train`: its processes, from the configuration to the best checkpoint."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from velora_edge.data.build import pack_once, require_sound
from velora_edge.data.layouts.recordings import RecordingSet
from velora_edge.data.registry import open_clips
from velora_edge.errors import ConfigError, InputError, MissingExtraError
from velora_edge.model.config import ModelConfig
from velora_edge.model.lora import ParameterCounts, count_parameters
from velora_edge.model.tower import recorded_normalisation
from velora_edge.model.velora import create_model
from velora_edge.train.loop import Trainer, blank_colour
from velora_edge.train.probe import ProbeRun
from velora_edge.train.run import STATE, RunFolder, RunRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from accelerate import Accelerator

    from velora_edge.data.clips.augment import DataConfig
    from velora_edge.data.clips.clips import ClipSource, ClipSpec
    from velora_edge.train.settings import ModelSection, OptimSection, Precision, TrainConfig
    from velora_edge.train.throughput import Throughput


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
        best: its epoch, and figures of the best checkpoint on the part that chose it, where there was one.
        parameters: how many the network has, by what training did with them.
        throughput: of the steps that this process trained; None where there were none left to train.
        is_main: whether this is the process that speaks for all.
        data: where the clips came from: the set, or what was packed of it.
    """

    folder: Path
    best: dict[str, Any]
    parameters: ParameterCounts
    throughput: Throughput | None = None
    is_main: bool = True
    data: str = ""


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
    config = settle(config)
    if config.train.compile:
        require_compiler()
    accelerator = make_accelerator(config.train)
    tell = say if accelerator.is_main_process else lambda line: None
    with accelerator.local_main_process_first():
        spec = config.clip.spec(config.model.clip_length, config.model.image_size)
        source = open_packed(config.data, spec, config.run.folder, tell)
    if config.data.check and not config.data.skip_damaged and accelerator.is_main_process:
        require_sound(source)
    folder = RunFolder(config, source)
    is_resumed = resume and (folder.path / STATE).exists()
    if not (resume or overwrite):
        folder.require_free()
    torch.manual_seed(config.train.seed)
    model = create_model(model_config(config, source))
    torch.manual_seed(config.train.seed * 1000 + accelerator.process_index + 1)
    trainer = Trainer(config, source, model, accelerator, folder, tell)
    if accelerator.is_main_process and not is_resumed:
        folder.begin()
    accelerator.wait_for_everyone()
    if is_resumed:
        trainer.resume(folder.state())
        tell(f"resumed at step {trainer.progress.step} of {trainer.steps}")
    counts = count_parameters(model)
    folder.identity["parameters"] = {"trained": counts.trained, "frozen": counts.frozen}
    use = "of the test part to choose the epoch by" if config.train.choose == "test" else "for validation"
    tell(
        f"{len(trainer.members)} clips to train on, {len(trainer.val)} {use}, "
        f"{len(source.labels)} classes; {counts.trained:,} parameters trained, {counts.frozen:,} frozen"
    )
    tell(_conditions(config, accelerator, trainer.loader.workers))
    runner = ProbeRun(trainer, tell) if config.train.cache_views else trainer
    record = RunRecord(
        folder.path, trainer.steps, trainer.progress.step, silent=not accelerator.is_main_process
    )
    best = runner.run(record)
    throughput = trainer.meter.whole()
    if throughput is not None:
        tell(f"trained at {throughput}{_peak_memory(accelerator.device)}")
    source.close()
    accelerator.end_training()
    return Outcome(folder.path, best, counts, throughput, accelerator.is_main_process, str(source.path))


def _conditions(config: TrainConfig, accelerator: Accelerator, workers: int) -> str:
    """What the run computes on and how, in a line."""
    device = accelerator.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    count = accelerator.num_processes
    processes = f"{count} processes, each on " if count > 1 else "on "
    compiled = ", compiled blocks" if config.train.compile else ""
    return f"{processes}{name} in {config.train.precision}{compiled}, workers: {workers}"


def _peak_memory(device: torch.device) -> str:
    """The most memory of a GPU that tensors took so far; nothing on a CPU."""
    if device.type != "cuda":
        return ""
    return f", at most {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB of the GPU's memory"


PACKED = "packed"
"""Folder of the stores that runs packed of recordings, among the runs."""


def open_data(config: TrainConfig) -> ClipSource:
    """The data set in the form that the configuration's model takes; recordings can be listed, not read."""
    spec = config.clip.spec(config.model.clip_length, config.model.image_size)
    data = config.data
    return open_clips(data.path, spec, kind=data.kind, seed=data.seed, split=data.split)


def open_packed(data: DataConfig, spec: ClipSpec, runs: str, say: Callable[[str], None]) -> ClipSource:
    """A data set to train on; recordings are packed first, once for the same recordings and images.

    Args:
        data: the set.
        spec: the form of its clips.
        runs: folder of all runs, in which packed sets are kept.
        say: gets a line where there are recordings, and what is left out of them.
    """
    source = open_clips(
        data.path, spec, kind=data.kind, seed=data.seed, packs_recordings=True, split=data.split
    )
    if not isinstance(source, RecordingSet):
        return source
    return pack_once(source, Path(runs) / PACKED, skip_damaged=data.skip_damaged, say=say)


def model_config(config: TrainConfig, source: ClipSource) -> ModelConfig:
    """The network's form with the data set's labels, and the mean and std of its weights.

    Raises:
        ConfigError: if the configuration names labels that are not the data set's.
    """
    labels = config.model.labels or source.labels
    if labels != source.labels:
        raise ConfigError(
            [f"model.labels: the data set's are {', '.join(source.labels)}; leave the key out to take them"]
        )
    found = {"labels": labels, **_normalisation(config.model)}
    if config.model.active_patches:
        found["blank"] = blank_colour(source)
    return ModelConfig(**{**config.model.model_dump(), **found})


def _normalisation(model: ModelSection) -> dict[str, Any]:
    """Mean and std as they are given, or as the record of the weights says; 0.5 for random weights."""
    if model.mean is not None and model.std is not None:
        return {"mean": model.mean, "std": model.std, "normalised": model.normalised or "given"}
    known = recorded_normalisation(model.backbone)
    if known is None:
        return {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "normalised": "default"}
    return {"mean": known.mean, "std": known.std, "normalised": known.said_by}


def settle(config: TrainConfig) -> TrainConfig:
    """The configuration with the precision that `auto` comes to here, which a resumed run then keeps."""
    train = config.train.model_copy(update={"precision": choose_precision(config.train)})
    return config.model_copy(update={"train": train})


def choose_precision(config: OptimSection) -> Precision:
    """What is asked for; for `auto`, bf16 on a GPU that computes in it, fp32 elsewhere."""
    if config.precision != "auto":
        return config.precision
    has_bf16 = not is_on_cpu(config) and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if has_bf16 else "fp32"


def is_on_cpu(config: OptimSection) -> bool:
    """Whether a run trains on the CPU: as it is told to, or for want of a GPU."""
    return config.device == "cpu" or not torch.cuda.is_available()


def require_compiler() -> None:
    """Raise ConfigError if there is no C++ compiler, which torch.compile needs for a CPU and for a GPU."""
    names = (os.environ.get("CXX"), "g++", "clang++")
    if not any(name and shutil.which(name) for name in names):
        raise ConfigError(
            ["train.compile: needs a C++ compiler; install g++, name one by CXX, or leave it out"]
        )


def make_accelerator(config: OptimSection) -> Accelerator:
    """Device, precision and processes, as the launcher's environment says.

    Raises:
        ConfigError: if the machine cannot compute as the configuration says.
    """
    try:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState
        from accelerate.utils import DistributedDataParallelKwargs
    except ImportError as error:
        raise MissingExtraError("accelerate", "train", "training") from error
    on_cpu, precision = is_on_cpu(config), choose_precision(config)
    if on_cpu and precision in ("fp16", "tf32"):
        raise ConfigError([f"train.precision: {precision} needs a GPU; use bf16 or fp32 on a CPU"])
    if not on_cpu:
        torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")
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
        mixed_precision={"fp32": "no", "tf32": "no"}.get(precision, precision),
        # A process whose clips all lack a camera has no gradient for that camera's tower.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
