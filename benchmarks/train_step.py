"""Clips a second and peak memory of a training step: ours, and the same maths image by image as published.

    python benchmarks/train_step.py [--backbone vit_tiny_patch16_224] [--clips 4] [--steps 8] [--device cuda]
    python benchmarks/train_step.py --backbone vit_base_patch16_224 --clips 1 --steps 2

Both train one network from one seed on the same clips: LoRA, reconstruction loss, AdamW, fp32. The published
code sends each image of each clip through a tower on its own; ours sends all images of a batch through at
once. Their losses are compared before anything is said of speed. Each way runs in a process of its own, so
that the peak memory is its own; a process that has only loaded the network and a batch is the floor. The
first step of a process is told apart: compiling happens there. "Of cores" is the processor's time for a step,
of all its threads, which other programs on the machine change little. bf16 and TF32 are measured on a GPU
alone: few CPUs have them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

WAYS = {
    "floor": "network and batch loaded, nothing run",
    "published": "image by image",
    "ours": "batched",
    "ours-checkpointing": "batched, gradient checkpointing",
    "ours-compiled": "batched, compiled blocks",
    "ours-tf32": "batched, TF32",
    "ours-bf16": "batched, bf16",
    "ours-bf16-loop": "batched, bf16, AdamW by many kernels",
    "ours-bf16-checkpointing": "batched, bf16, gradient checkpointing",
    "ours-bf16-compiled": "batched, bf16, compiled blocks",
}
ON_GPU = ("tf32", "bf16")


def make_parts(options: argparse.Namespace) -> tuple[Any, Any, Any]:
    """The network in training mode with its loss, its optimizer, and a batch of random clips."""
    import torch

    from velora_edge.model.config import Backbone, LoRA, ModelConfig
    from velora_edge.model.velora import create_model
    from velora_edge.train.batches import Batch
    from velora_edge.train.objective import Objective
    from velora_edge.train.schedule import make_optimizer
    from velora_edge.train.settings import OptimSection

    torch.manual_seed(0)
    config = ModelConfig(
        labels=tuple(f"class {k}" for k in range(24)),
        clip_length=options.frames,
        backbone=Backbone(name=options.backbone),
        lora=LoRA(dropout=0.0),
    )
    model = create_model(config)
    features = options.way.split("-")
    model.set_grad_checkpointing("checkpointing" in features)
    if "compiled" in features:
        model.compile_blocks()
    objective = Objective(model, label_smoothing=0.0, reconstruction=1.0).to(options.device).train()
    names = {name: p for name, p in model.named_parameters() if p.requires_grad}
    height, width = config.image_size
    shape = (options.clips, options.frames, height, width, 3)
    rgb, event = (torch.randint(0, 256, shape, dtype=torch.uint8) for _ in range(2))
    label = torch.arange(options.clips) % 24
    batch = Batch(rgb, event, torch.ones(options.clips, 2, dtype=torch.bool), label, label)
    settings = OptimSection(lr=1e-4, fused="loop" not in features)
    return objective, make_optimizer(names, settings), batch.to(torch.device(options.device))


def image_by_image(objective: Any) -> None:
    """Make the network's towers take one image at a time, as the published loop does."""
    import torch

    model = objective.model

    def encode(modality: str, images: Any) -> Any:
        tower = model.tower(modality)
        return torch.stack([torch.cat([tower(image[None]) for image in clip]) for clip in images])

    model.encode = encode


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run one way and tell seconds by step, losses and peak memory."""
    import contextlib

    import torch

    torch.set_num_threads(options.threads)
    objective, optimizer, batch = make_parts(options)
    if options.way == "published":
        image_by_image(objective)
    on_gpu, features = options.device == "cuda", options.way.split("-")
    low = torch.autocast(options.device, torch.bfloat16) if "bf16" in features else None
    if on_gpu and (low or "tf32" in features):
        torch.set_float32_matmul_precision("high")
    seconds, cpu_seconds, losses = [], [], []
    for _ in range(0 if options.way == "floor" else options.steps + 1):
        start, cpu_start = time.perf_counter(), time.process_time()
        with low or contextlib.nullcontext():
            loss = objective(batch).total
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
    peak = (
        torch.cuda.max_memory_allocated()
        if on_gpu
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    return {
        "first": seconds[:1], "seconds": seconds[1:], "cpu_seconds": cpu_seconds[1:],
        "losses": losses, "peak_bytes": peak,
    }  # fmt: skip


def run_apart(options: argparse.Namespace, way: str) -> dict[str, Any]:
    """Measure one way in a process of its own."""
    command = [sys.executable, __file__, "--way", way]
    for name in ("backbone", "clips", "frames", "steps", "device", "threads"):
        command += [f"--{name}", str(getattr(options, name))]
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    result = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return dict(json.loads(result.stdout.splitlines()[-1]))


def check_same(found: dict[str, dict[str, Any]]) -> float:
    """Largest difference of a loss between the published way and ours, in fp32."""
    pairs = zip(found["published"]["losses"], found["ours"]["losses"], strict=True)
    difference = max(abs(a - b) for a, b in pairs)
    if difference > 1e-3:
        raise SystemExit(f"the two ways are not the same maths: losses differ by {difference:.2g}")
    return difference


def show(options: argparse.Namespace, found: dict[str, dict[str, Any]], difference: float) -> None:
    """Print the table."""
    import torch

    machine = torch.cuda.get_device_name() if options.device == "cuda" else f"{options.threads} CPU threads"
    print(f"{options.backbone}, {options.clips} clips of {options.frames} pairs, LoRA, AdamW; {machine}")
    print(f"torch {torch.__version__}, {platform.machine()}; losses differ by at most {difference:.1e}\n")
    print("| way | clips/s, median | first step | slowest other | of cores | peak memory | above the floor |")
    print("|---|---|---|---|---|---|---|")
    floor = found["floor"]["peak_bytes"]
    for way, figures in found.items():
        if way == "floor":
            continue
        rate = options.clips / statistics.median(figures["seconds"])
        peak = figures["peak_bytes"]
        print(
            f"| {WAYS[way]} | {rate:.2f} | {figures['first'][0]:.2f} s | {max(figures['seconds']):.2f} s "
            f"| {statistics.median(figures['cpu_seconds']):.2f} s "
            f"| {peak / 2**20:.0f} MiB | {(peak - floor) / 2**20:.0f} MiB |"
        )


def main() -> None:
    """Measure every way, or the one that a parent process asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--backbone", default="vit_tiny_patch16_224")
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(measure(options)))
        return
    ways = [way for way in WAYS if options.device == "cuda" or not set(way.split("-")) & set(ON_GPU)]
    found = {way: run_apart(options, way) for way in ways}
    show(options, found, check_same(found))


if __name__ == "__main__":
    main()
