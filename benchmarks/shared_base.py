"""Three towers with weights of their own beside one base with three adapters: bytes, roofline, a CPU.

    python benchmarks/shared_base.py                            # sizes and rooflines, nothing is measured
    python benchmarks/shared_base.py --measure vit-s vit-b      # and ONNX Runtime on this CPU, fp32, CPU time

Shared: the frozen weights once, the pictures of three towers at batch 3, and LoRA of each as a branch of rank
4 on the first and second layer of each FFN. Merged: what is exported today. Bytes and operations are those of
the three towers, counted as `velora_runtime.bench.roofline` does: a weight once for each time it is read.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import timm
import torch
from turns import percentiles, take_turns

from velora_edge.model.config import LoRA
from velora_edge.ort import open_session, session_options

if TYPE_CHECKING:
    from collections.abc import Callable

RANK, TOWERS, TOKENS = LoRA().rank, 3, 197


class Size(NamedTuple):
    """Form of a ViT with patches of 16 pixels at 224."""

    name: str
    width: int
    depth: int

    @property
    def linear(self) -> int:
        """Weights of matrices."""
        return 12 * self.depth * self.width**2 + 3 * 16**2 * self.width

    @property
    def others(self) -> int:
        """Biases, norms, positions and the class token."""
        return (13 * self.depth + 2 + 2 + TOKENS) * self.width

    @property
    def adapter(self) -> int:
        """Weights of one adapter: 4 D and D, into and out of the rank, of both layers."""
        return self.depth * 2 * RANK * 5 * self.width

    def weight_bytes(self, precision: str, *, shared: bool) -> float:
        """Of three towers. In int8 matrices alone are; adapters and the rest stay in fp16."""
        each = {"fp32": 4, "fp16": 2, "int8": 1}[precision]
        rest = 4 if precision == "fp32" else 2
        base = each * self.linear + rest * self.others
        return base + TOWERS * rest * self.adapter if shared else TOWERS * base

    def operations(self, *, shared: bool) -> float:
        """Of three towers; attention's two products besides those with weights."""
        attention = 4 * self.depth * TOKENS**2 * self.width
        return TOWERS * (2 * TOKENS * (self.linear + (self.adapter if shared else 0)) + attention)


SIZES = {
    "vit-s": Size("vit_small_patch16_224", 384, 12),
    "vit-b": Size("vit_base_patch16_224", 768, 12),
    "vit-l": Size("vit_large_patch16_224", 1024, 24),
}
DEVICES = {
    "Orin Nano 8 GB, 25 W": (102, 17, 33),
    "Orin NX 16 GB, 25 W": (102, 25, 50),
    "AGX Orin 64 GB": (205, 43, 85),
    "Thor T5000": (273, 259, 517),
    "GeForce RTX 4090": (1008, 165, 661),
}
"""GB/s of memory, dense TFLOP/s in fp16, dense TOP/s in int8 of the GPU, as published; no board was at hand,
and Thor's fp16 and int8 follow from its figure for FP4: check what a decision rests on."""
REACHED = 0.5
"""Of the arithmetic's peak, what engines reach of it at these sizes at best; of the memory's all."""


def print_sizes() -> None:
    print("| towers | precision | merged | shared with 3 adapters | share |\n|---|---|---|---|---|")
    for name, size in SIZES.items():
        for precision in ("fp32", "fp16", "int8"):
            merged, shared = (size.weight_bytes(precision, shared=one) / 1e6 for one in (False, True))
            print(f"| {name} | {precision} | {merged:.0f} MB | {shared:.0f} MB | {shared / merged:.1%} |")


def step_ms(size: Size, device: str, precision: str, reached: float, *, shared: bool) -> tuple[float, float]:
    """Milliseconds that three towers take at least: of the memory, and of the arithmetic."""
    gigabytes_s, *rates = DEVICES[device]
    memory_ms = size.weight_bytes(precision, shared=shared) / gigabytes_s / 1e6
    return memory_ms, size.operations(shared=shared) / (rates[precision == "int8"] * reached) / 1e9


def print_roofline() -> None:
    print("\n| device | towers | precision | merged: memory, arithmetic | shared: the same ", end="")
    print(f"| merged / shared at the peak | at {REACHED:.0%} of it |\n|---|---|---|---|---|---|---|")
    for device in DEVICES:
        for name, size in SIZES.items():
            for precision in ("fp16", "int8"):
                merged, shared = (step_ms(size, device, precision, 1.0, shared=one) for one in (False, True))
                halves = [max(step_ms(size, device, precision, REACHED, shared=one)) for one in (False, True)]
                print(f"| {device} | {name} | {precision} | {merged[0]:.2f}, {merged[1]:.2f} ms "
                      f"| {shared[0]:.2f}, {shared[1]:.2f} ms | {max(merged) / max(shared):.2f} "
                      f"| {halves[0] / halves[1]:.2f} |")  # fmt: skip


class Branched(torch.nn.Module):
    """A linear layer with a branch of low rank for each picture of the batch."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer
        self.down = torch.nn.Parameter(torch.randn(TOWERS, layer.in_features, RANK) * 0.02)
        self.up = torch.nn.Parameter(torch.randn(TOWERS, RANK, layer.out_features) * 0.02)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of [3, N, in]."""
        out: torch.Tensor = self.layer(x) + x @ self.down @ self.up
        return out


def open_tower(size: Size, seed: int, path: Path, *, shared: bool) -> Callable[[], Any]:
    """A tower in ONNX Runtime on one thread, ready to run."""
    torch.manual_seed(seed)
    model: Any = timm.create_model(size.name, num_classes=0, global_pool="").eval()
    for block in model.blocks if shared else ():
        block.mlp.fc1, block.mlp.fc2 = Branched(block.mlp.fc1), Branched(block.mlp.fc2)
    images = torch.randn(TOWERS if shared else 1, 3, 224, 224)
    with torch.no_grad():
        torch.onnx.export(model, (images,), path, input_names=["x"], dynamo=False, opset_version=18)
        expected = model(images).numpy()
    session = open_session(path, session_options(1))
    feeds = {"x": images.numpy()}
    np.testing.assert_allclose(session.run(None, feeds)[0], expected, atol=1e-3)
    return lambda: session.run(None, feeds)


def print_measured(name: str, rounds: int) -> None:
    size = SIZES[name]
    with tempfile.TemporaryDirectory() as folder:
        towers = [open_tower(size, k, Path(folder) / f"{k}.onnx", shared=False) for k in range(TOWERS)]
        together = open_tower(size, 0, Path(folder) / "shared.onnx", shared=True)
        ways = {"merged": (lambda: [tower() for tower in towers], 1), "shared": (together, 1)}
        times = take_turns(ways, rounds + 1, clock=time.process_time)
    ratios = np.array(times["merged"][1:]) / np.array(times["shared"][1:])
    merged, shared = (percentiles(times[way][1:])[0] for way in ways)
    print(f"| {name} | {merged:.0f} ms | {shared:.0f} ms | {np.median(ratios):.2f} |", flush=True)


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--measure", nargs="*", choices=SIZES, default=[], metavar="SIZE")
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    print_sizes()
    print_roofline()
    if given.measure:
        print("\n| towers | three at batch 1 | one at batch 3, three adapters | ratio |\n|---|---|---|---|")
    for name in given.measure:
        print_measured(name, given.rounds)


if __name__ == "__main__":
    main()
