"""One part of the GPU check, in a process of its own: its messages are lines of JSON on standard output.

    python benchmarks/gpu_part.py DIR --model vit-s --precision fp16 --kind backends --seconds 8

Each backend is opened, compared with fp32 on the CPU, then all that opened take turns: steps, then clips. One
that fails becomes a row with its reason; a line `{"at": ...}` goes before each, so that a process that dies
leaves behind where it did.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gpu_plan import Row
from turns import percentiles, take_turns

from velora_edge.gpu import cuda

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

BACKENDS = {
    "tensorrt": (True, False),
    "tensorrt-rtx": (True, False),
    "onnxruntime-cuda": (True, False),
    "torch": (True, False),
}
"""The backends, and whether each replays CUDA graphs or not."""
COMPILED = {"torch": (True,), "torch.compile": (True, False)}
STEPS, CLIPS, HOST_RUNS = 300, 100, 30
CLIP_SHARE = 1 / 3
"""Of a part's seconds."""


def say(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


class Part:
    """What is measured on one bundle.

    Args:
        folder: of the model's preparation.
        model, precision: for the rows.
        seconds: for the turns.
        rate: the card's bf16 rate, operations a second; 0: not known.
    """

    def __init__(self, folder: Path, model: str, precision: str, seconds: float, rate: float) -> None:
        from gpu_prepare import ABOUT
        from gpu_ways import Pairs

        from velora_edge.bundle import open_bundle

        self.model, self.precision, self._seconds, self._rate = model, precision, seconds, rate
        self.bundle = open_bundle(folder / f"{precision}.velora")
        with np.load(folder / "expected.npz") as file:
            self.pairs = Pairs(file["rgb"], file["event"])
            self._expected = {"step": file["step"][0], "clip": file["clip"][0]}
        self._products = json.loads((folder / ABOUT).read_text())["multiplications"]
        self._plans: dict[str, Any] = {}

    def run(self, backends: dict[str, Sequence[bool]], skipped: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Messages as they come."""
        ways: dict[tuple[str, bool], Any] = {}
        rows: dict[tuple[str, bool, str], Row] = {}
        for backend, graphs in backends.items():
            if backend in skipped:
                continue
            yield {"at": backend}
            failed: dict[bool, Row] = {}
            for cuda_graph in graphs:
                try:
                    way = self.open(backend, cuda_graph=cuda_graph)
                    rows[backend, cuda_graph, "step"] = self._row(backend, way, "step", way.first_clip())
                    ways[backend, cuda_graph] = way
                except Exception as error:  # noqa: PERF203 - whatever a library raises becomes a row
                    failed[cuda_graph] = self._failed(backend, cuda_graph, "step", error)
            yield from ({"row": row.as_dict()} for row in told_once(failed, graphs))
        yield {"at": ""}
        yield from self._turns(ways, rows, "step", STEPS, self._seconds * (1 - CLIP_SHARE))
        yield from self._clips(ways, rows)
        for way in ways.values():
            way.close()

    def open(self, backend: str, *, cuda_graph: bool) -> Any:
        """A backend on the bundle; see `gpu_ways` and `gpu_torch`."""
        from gpu_ways import OrtWay, TensorRTWay

        from velora_edge.gpu.kinds import KINDS

        if backend == "onnxruntime-cuda":
            return OrtWay(self.bundle, self.pairs, cuda_graph=cuda_graph)
        if backend in KINDS:
            plans, kind = self._plans_of(backend), KINDS[backend]
            way = TensorRTWay(self.bundle, self.pairs, plans, cuda_graph=cuda_graph, kind=kind)
            way.note = "; ".join(words for words in (way.note, plans.note) if words)
            return way
        return self._open_torch(cuda_graph=cuda_graph, compiled=backend == "torch.compile")

    def _open_torch(self, *, cuda_graph: bool, compiled: bool) -> Any:
        from gpu_prepare import torch_config
        from gpu_torch import TorchWay

        config = torch_config(self.model)
        if config is None:
            raise ValueError("the package has graphs of this model, no weights for torch")
        given = (config, self.pairs, self.precision)
        return TorchWay(*given, cuda_graph=cuda_graph, compiled=compiled)

    def _plans_of(self, backend: str) -> Any:
        """Found or built once for both of a backend's ways; a refusal is raised again each time."""
        from gpu_engines import RtxPlans, TensorRTPlans

        from velora_edge.errors import EngineError, MissingExtraError

        if backend not in self._plans:
            try:
                self._plans[backend] = (RtxPlans if backend == "tensorrt-rtx" else TensorRTPlans)(self.bundle)
            except (EngineError, MissingExtraError) as error:
                self._plans[backend] = error
        if isinstance(self._plans[backend], Exception):
            raise self._plans[backend]
        return self._plans[backend]

    def _clips(self, ways: dict[Any, Any], rows: dict[Any, Row]) -> Iterator[dict[str, Any]]:
        ready = {}
        for (backend, cuda_graph), way in ways.items():
            try:
                way.warm_clip()
                rows[backend, cuda_graph, "clip"] = self._row(backend, way, "clip", way.clip())
                ready[backend, cuda_graph] = way
            except Exception as error:  # noqa: PERF203 - a way that fails leaves the others
                yield {"row": self._failed(backend, cuda_graph, "clip", error).as_dict()}
        yield from self._turns(ready, rows, "clip", CLIPS, self._seconds * CLIP_SHARE)

    def _turns(
        self, ways: dict[Any, Any], rows: dict[Any, Row], graph: str, most: int, seconds: float
    ) -> Iterator[dict[str, Any]]:
        """Time the ways in turn; each row with its figures."""
        end = time.perf_counter() + seconds
        guarded = {key: Guarded(getattr(way, graph)) for key, way in ways.items()}
        times = take_turns(
            {key: (run, 1) for key, run in guarded.items()}, most, is_over=lambda: time.perf_counter() > end
        )
        for key, way in ways.items():
            row = rows[(*key, graph)]
            if guarded[key].error is not None:
                yield {"row": self._failed(*key, graph, guarded[key].error).as_dict()}
                continue
            row.p50_ms, row.p99_ms = percentiles(times[key])
            row.runs = len(times[key])
            row.host_ms = way.host_ms(getattr(way, graph), HOST_RUNS)
            if self._rate:
                row.share = 2 * self._products[graph] / (row.p50_ms / 1e3) / self._rate
            yield {"row": row.as_dict()}

    def _row(self, backend: str, way: Any, graph: str, logits: NDArray[np.float32]) -> Row:
        wanted = self._expected[graph]
        row = Row(self.model, self.precision, backend, graph, way.has_graphs, reason=way.note)
        row.relative = float(np.abs(logits - wanted).max() / np.abs(wanted).max())
        row.same_label = bool(logits.argmax() == wanted.argmax())
        row.layers = getattr(self._plans.get(backend), "layers", "")
        return row

    def _failed(self, backend: str, cuda_graph: bool, graph: str, error: BaseException | None) -> Row:
        words = " ".join(str(error).split()) or type(error).__name__
        return Row(self.model, self.precision, backend, graph, cuda_graph, reason=words[:400])


def told_once(failed: dict[bool, Row], graphs: Sequence[bool]) -> list[Row]:
    """A backend's failures; one row, of no graph, where all of its ways failed for the same reason."""
    rows = list(failed.values())
    if len(rows) < len(graphs) or len({row.reason for row in rows}) > 1:
        return rows
    return [replace(rows[0], graph="", cuda_graph=None)]


class Guarded:
    """A call that is not made again after it failed.

    Attributes:
        error: what it raised.
    """

    def __init__(self, run: Callable[[], object]) -> None:
        self._run = run
        self.error: Exception | None = None

    def __call__(self) -> None:
        """Call it, or do nothing."""
        if self.error is not None:
            return
        try:
            self._run()
        except Exception as error:  # it becomes a row
            self.error = error


def card() -> Iterator[dict[str, Any]]:
    """The card's facts, then its rate."""
    from gpu_report import card_facts

    yield {"facts": card_facts()}
    from gpu_torch import bf16_rate

    yield {"facts": {"bf16_rate": bf16_rate()}}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="")
    parser.add_argument("--precision", default="")
    parser.add_argument("--kind", choices=("backends", "compiled", "card"), default="backends")
    parser.add_argument("--seconds", type=float, default=9.0)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--skip", default="")
    parser.add_argument("--fake", action="store_true", help="let CUDA itself say that there is no GPU")
    given = parser.parse_args()
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    if given.fake:
        cuda.GPU_FILES = ("/",)
    if given.kind == "card":
        messages = card()
    else:
        preload()
        part = Part(given.folder / given.model, given.model, given.precision, given.seconds, given.rate)
        backends = COMPILED if given.kind == "compiled" else BACKENDS
        messages = part.run(backends, [name for name in given.skip.split(",") if name])
    for message in messages:
        say(message)


def preload() -> None:
    """Load CUDA's libraries that torch or NVIDIA's wheels brought: ONNX Runtime finds them from then on."""
    for name, call in (("torch", None), ("onnxruntime", "preload_dlls")):
        try:
            module = importlib.import_module(name)
            if call is not None:
                getattr(module, call)()
        except (ImportError, AttributeError, OSError, RuntimeError) as error:  # noqa: PERF203
            logging.getLogger("gpu_check").warning("no CUDA libraries from here: %s", error)


if __name__ == "__main__":
    main()
