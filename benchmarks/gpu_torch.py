"""Yardsticks of the GPU check in torch: the graphs' own modules on the GPU, and the card's bf16 rate."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from streaming_models import make_model
from velora_export.onnx.graphs import make_graphs

from velora_edge.datatypes import MODALITIES
from velora_edge.errors import EngineError
from velora_edge.model.lora import merge

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpu_ways import Pairs
    from numpy.typing import NDArray

    from velora_edge.model.config import ModelConfig

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
SIDE = 8192
"""Of the matrices whose product is the card's bf16 rate: large enough that nothing but arithmetic counts."""


def bf16_rate(seconds: float = 2.0) -> float:
    """Multiplications and additions a second in a large product of bf16 matrices, the best of several."""
    factors = [torch.randn(SIDE, SIDE, device="cuda", dtype=torch.bfloat16) for _ in range(2)]
    best, begun = float("inf"), time.perf_counter()
    while time.perf_counter() - begun < seconds:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(10):
            torch.mm(*factors)
        end.record()
        torch.cuda.synchronize()
        best = min(best, start.elapsed_time(end) / 1e3 / 10)
    return 2 * SIDE**3 / best


class TorchWay:
    """A model's modules on a device, weights in one precision, tokens in rings there.

    Args:
        config: of the model; its random weights are the same as the prepared graphs'.
        pairs: the images.
        precision: fp32, fp16 or bf16.
        cuda_graph: replay a step as a CUDA graph; with `compiled`: torch.compile's own (reduce-overhead).
        compiled: compile the modules.
        device: cuda.

    Raises:
        EngineError: for a precision that torch does not have here.
    """

    def __init__(
        self,
        config: ModelConfig,
        pairs: Pairs,
        precision: str,
        *,
        cuda_graph: bool = False,
        compiled: bool = False,
        device: str = "cuda",
    ) -> None:
        if precision not in DTYPES:
            raise EngineError(f"torch has no {precision} of the model's layers")
        self.note, self.has_graphs, self._device = "", cuda_graph, torch.device(device)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        self._modules = _modules(config, DTYPES[precision], self._device)
        if compiled:
            mode = "reduce-overhead" if cuda_graph else "default"
            self._modules = {name: torch.compile(module, mode=mode) for name, module in self._modules.items()}
        self._pairs, self._number, self._replay = pairs, 0, None
        T = len(pairs.rgb)
        image = torch.zeros(1, *pairs.rgb.shape[1:], dtype=torch.uint8, device=self._device)
        self._images = {name: image.clone() for name in ("rgb", "rgb_before", "event", "event_before")}
        self._slots = {
            name: torch.zeros(1, dtype=torch.long, device=self._device) for name in ("pair", "diff")
        }
        self._flags = [torch.ones(1, count, device=self._device) for count in (T, T, T - 1)]
        with torch.inference_mode():
            tokens = self._modules["rgb"](image)
        shape, options = tokens.shape[1:], {"dtype": tokens.dtype, "device": self._device}
        self._rings = {name: torch.zeros(1, T - (name == "diff"), *shape, **options) for name in MODALITIES}
        if cuda_graph and not compiled:
            self._record()

    def step(self) -> NDArray[np.float32]:
        """The logits [K] after the next pair."""
        self._queue_step()
        return np.asarray(self._logits.float().cpu().numpy())[0]

    def first_clip(self) -> NDArray[np.float32]:
        """The logits when the first clip is full."""
        self._number = 0
        for _ in self._pairs.rgb[1:]:
            self.step()
        return self.step()

    def warm_clip(self) -> None:
        """Put a clip's constants on the device and run it twice."""
        inputs = self._pairs.clip()
        self._clip_flags = [
            torch.from_numpy(inputs[key]).to(self._device) for key in inputs if "present" in key
        ]
        for _ in range(2):
            self.clip()

    def clip(self) -> NDArray[np.float32]:
        """The clip's logits [K]."""
        with torch.inference_mode():
            images = [
                torch.from_numpy(a[None]).to(self._device) for a in (self._pairs.rgb, self._pairs.event)
            ]
            logits = self._modules["clip"](*images, *self._clip_flags)
        return np.asarray(logits.float().cpu().numpy())[0]

    def host_ms(self, run: Callable[[], object], runs: int) -> float | None:
        """Median time to queue a step; not told of a clip."""
        if run != self.step:
            return None
        taken = []
        for _ in range(runs):
            torch.cuda.synchronize()
            start = time.perf_counter()
            self._queue_step()
            taken.append(time.perf_counter() - start)
        torch.cuda.synchronize()
        return float(np.median(taken)) * 1e3

    def close(self) -> None:
        """Give the GPU's memory back."""
        self._replay, self._modules, self._rings = None, {}, {}
        torch.cuda.empty_cache()

    def _queue_step(self) -> None:
        T, number = len(self._pairs.rgb), self._number
        new, old = number % T, (number - 1) % T
        for name, index in (("rgb", new), ("rgb_before", old), ("event", new), ("event_before", old)):
            array = self._pairs.rgb if name.startswith("rgb") else self._pairs.event
            self._images[name].copy_(torch.from_numpy(array[index][None]))
        self._slots["pair"].fill_(new)
        self._slots["diff"].fill_((number - 1) % (T - 1))
        if self._replay is None:
            self._run()
        else:
            self._replay.replay()
        self._number += 1

    def _run(self) -> None:
        """Three towers into their slots, then the head; nothing here depends on the host."""
        images = self._images
        with torch.inference_mode():
            for name in ("rgb", "event"):
                self._rings[name].index_copy_(1, self._slots["pair"], self._modules[name](images[name])[None])
            tokens = self._modules["diff"](*images.values())
            self._rings["diff"].index_copy_(1, self._slots["diff"], tokens[None])
            self._logits = self._modules["head"](*(self._rings[name] for name in MODALITIES), *self._flags)

    def _record(self) -> None:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # torch's manual asks for a few runs on a stream of their own
            for _ in range(3):
                self._run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._run()
        self._replay = graph


def _modules(config: ModelConfig, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """The graphs' modules, attention by torch's own fused kernel; pixels are normalised in fp32."""
    merged = merge(make_model(config)).to(device, dtype)
    for name in MODALITIES:
        merged.tower(name).register_forward_pre_hook(lambda _, given: (given[0].to(dtype), *given[1:]))
    return {name: graph.module.to(device).eval() for name, graph in make_graphs(merged).items()}
