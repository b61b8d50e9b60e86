"""What one decision costs: the published model's way, and what each part of ours brings, in one run.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/streaming_step.py --json vit_b.json
    OMP_WAIT_POLICY=PASSIVE python benchmarks/streaming_step.py --model vit_small_patch16_224

One network with random weights and the published fusion (`compat="reference"`), one clip of 8 pairs, 224x224:

1. published: 8 RGB frames, 8 event frames and 7 differences through their towers, image by image, then the
   fusion; torch, fp32, LoRA apart. This is what the published code computes for every decision.
2. cache: the same, but tokens of earlier pairs are kept: three images and the fusion.
3. merge: the same with LoRA merged into the weights.
4. graphs: the same weights as ONNX graphs in ONNX Runtime, fp32.
5. int8: the same with linear layers in int8.
6. OpenVINO: the graphs in fp32, in bf16 where the processor has it, and in int8.

All have the same threads and take turns, so that they see the same machine. How far logits and tokens are
apart is told too; those of 1 to 4 must be the same. A first run exports the graphs (ViT-B: minutes, 5 GB of
memory); `--graphs DIR` keeps them for the next.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # torch's threads must not spin while ONNX Runtime's work

import numpy as np
import torch
from streaming_models import VIT_B, make_model, trace_graphs, vit_config
from turns import percentiles, take_turns
from velora_export.evaluation.parity import normalise
from velora_export.evaluation.sessions import clip_runs, head_inputs, random_clips
from velora_export.precision.calibration import calibrate
from velora_export.precision.precisions import STREAMING, convert, folder_bytes
from velora_runtime.engines.openvino_graphs import load_core, settings

from velora_edge.datatypes import MODALITIES
from velora_edge.doctor.host import system
from velora_edge.model.head import Streams
from velora_edge.model.lora import merge
from velora_edge.model.velora import frame_differences
from velora_edge.ort import open_session, session_options

if TYPE_CHECKING:
    from velora_export.evaluation.sessions import Clips

    from velora_edge.model.velora import VELoRA

T = 8


def tell(text: str) -> None:
    """A line for people, beside the results."""
    print(text, file=sys.stderr, flush=True)


def export_graphs(model: VELoRA, folder: Path, clips: Clips) -> None:
    """The streaming graphs in fp32 and int8, under `folder`."""
    for precision in ("fp32", "bf16", "int8"):
        (folder / precision).mkdir(parents=True)
    trace_graphs(model, folder / "fp32", STREAMING, tell)
    tell("calibrate")
    ranges = calibrate(folder / "fp32", clips, "percentile")
    convert(folder / "fp32", folder / "int8", "int8", {}, thresholds=ranges.thresholds, graphs=STREAMING)
    convert(folder / "fp32", folder / "bf16", "bf16", {}, graphs=STREAMING)


class InTorch:
    """Decisions in torch; `whole` computes every image of the clip, a step only the newest pair's."""

    def __init__(self, model: VELoRA, clips: Clips) -> None:
        self._model = model
        rgb, event = (normalise(images[0], model.config)[None] for images in (clips.rgb, clips.event))
        everywhere = torch.ones(1, T, dtype=torch.bool)
        diff = frame_differences(rgb, event, everywhere, everywhere)
        self._images = dict(zip(MODALITIES, (rgb[0], event[0], diff[0]), strict=True))
        self._present = Streams(everywhere, everywhere, everywhere[:, 1:])
        self._tokens: dict[str, torch.Tensor] = {}

    def whole(self) -> np.ndarray:
        """Logits, every image computed anew."""
        self._tokens = {name: self._encode(name, range(len(images))) for name, images in self._images.items()}
        return self._decide()

    def step(self) -> np.ndarray:
        """Logits, the newest pair's images computed."""
        for name, tokens in self._tokens.items():
            with torch.inference_mode():
                tokens[-1] = self._encode(name, [len(tokens) - 1])[0]
        return self._decide()

    def _encode(self, name: str, which: Any) -> torch.Tensor:
        tower = self._model.tower(name)
        with torch.inference_mode():
            return torch.cat([tower(self._images[name][j : j + 1]) for j in which])

    def _decide(self) -> np.ndarray:
        with torch.inference_mode():
            rings = Streams(*(self._tokens[name][None] for name in MODALITIES))
            return np.asarray(self._model.decide(rings, self._present).numpy())


def open_graph(path: Path, threads: int) -> Any:
    """As the runtime opens it."""
    options = session_options(threads)
    options.add_free_dimension_override_by_name("batch", 1)
    return open_session(path, options)


class InGraphs:
    """Decisions by ONNX graphs, batch 1."""

    def __init__(self, folder: Path, threads: int, clips: Clips) -> None:
        self._sessions = {name: self._open(folder / f"{name}.onnx", threads) for name in STREAMING}
        self._flags = clips.flags()
        self._tokens: dict[str, list[np.ndarray]] = {name: [] for name in MODALITIES}
        self._last: dict[str, Any] = {}
        for name, images in clip_runs(clips.rgb[0], clips.event[0], self._flags):
            self._tokens[name].append(self._run(name, images))
            self._last[name] = images
        self._rings = head_inputs(self._tokens, self._flags)
        self.parts_ms: dict[str, list[float]] = {name: [] for name in STREAMING}

    def _open(self, path: Path, threads: int) -> Any:
        return open_graph(path, threads)

    def _run(self, name: str, inputs: Any) -> np.ndarray:
        return np.asarray(self._sessions[name].run(None, inputs)[0])

    def step(self) -> np.ndarray:
        """Logits, the newest pair's images computed into their slots."""
        for name in MODALITIES:
            newest = 1  # rings are turned by two
            self._rings[name][0, newest] = self._timed(name, self._last[name])[0]
        return self._timed("head", self._rings)

    def tokens(self) -> np.ndarray:
        """The newest pair's tokens, all three towers'; after a step."""
        return np.concatenate([self._rings[name][0, 1].ravel() for name in MODALITIES]).astype(np.float32)

    def _timed(self, name: str, inputs: Any) -> np.ndarray:
        start = time.perf_counter()
        output = self._run(name, inputs)
        self.parts_ms[name].append((time.perf_counter() - start) * 1e3)
        return output


class InOpenVino(InGraphs):
    """The same by OpenVINO, with the runtime's settings; `hint` is the precision of floats."""

    def __init__(self, folder: Path, threads: int, clips: Clips, hint: str) -> None:
        self._hint = hint
        super().__init__(folder, threads, clips)

    def _open(self, path: Path, threads: int) -> Any:

        core = load_core()
        graph = core.read_model(path)
        graph.reshape({entry.any_name: [1, *list(entry.partial_shape)[1:]] for entry in graph.inputs})
        return core.compile_model(graph, "CPU", settings("CPU", self._hint, threads)).create_infer_request()

    def _run(self, name: str, inputs: Any) -> np.ndarray:
        request = self._sessions[name]
        request.infer(inputs, share_inputs=True)
        return np.array(request.get_output_tensor().data)


def has_bf16() -> bool:

    return "BF16" in load_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def tell_round(number: int, times: dict[str, list[float]]) -> None:
    done = ", ".join(f"{name} {np.median(taken):.0f} ms" for name, taken in times.items())
    tell(f"round {number}: {done}")


def table(times: dict[str, list[float]]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    before = None
    first = float(np.median(next(iter(times.values()))))
    for name, taken in times.items():
        p50, p99 = percentiles(taken)
        row = {"way": name, "p50_ms": round(p50, 1), "p99_ms": round(p99, 1), "runs": len(taken)}
        adds = before is None or name.startswith("+")  # to the row before it; the others stand beside those
        part = round((before or p50) / p50, 2) if adds else None
        rows.append({**row, "times_faster": round(first / p50, 2), "this_part": part})
        before = p50 if adds else before
    return rows


def show(rows: list[dict[str, Any]]) -> str:
    lines = ["| way | p50 ms | p99 ms | runs | against published | this part |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {r['way']} | {r['p50_ms']:.0f} | {r['p99_ms']:.0f} | {r['runs']} | {r['times_faster']:.1f}x "
        f"| {'' if r['this_part'] is None else format(r['this_part'], '.2f') + 'x'} |"
        for r in rows
    ]
    return "\n".join(lines)


def show_parts(result: dict[str, Any]) -> str:
    """A step's parts, and how far off it is, by precision, as a table."""
    said = {"fp32": "graphs"}  # as `logits_away` calls it
    lines = [
        "| precision | rgb, event, diff, head, ms | logits away from published | tokens away from fp32's |",
        "|---|---|---|---|",
    ]
    for name, parts in result["parts_ms"].items():
        shown = ", ".join(f"{parts[part]:.0f}" for part in STREAMING)
        logits, tokens = result["logits_away"][said.get(name, name)], result["tokens_away"].get(name, 0.0)
        lines.append(f"| {name} | {shown} | {logits:.2g} | {tokens:.2g} |")
    return "\n".join(lines)


def facts(name: str, threads: int, folder: Path) -> dict[str, Any]:
    import onnxruntime
    import openvino

    host = system()
    return {
        "model": name,
        "machine": f"{host['cpu']}, {host['cores']} cores",
        "threads": threads,
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
        "openvino": openvino.__version__,
        "wait_policy": os.environ["OMP_WAIT_POLICY"],
        "load_before": os.getloadavg()[0],
        "graph_mb": {p: round(folder_bytes(folder / p) / 1e6, 1) for p in ("fp32", "bf16", "int8")},
    }


def run(name: str, folder: Path, threads: int, rounds: int) -> dict[str, Any]:
    """Export where that was not done, measure, and tell the result."""
    torch.set_num_threads(threads)
    model = make_model(vit_config(name))
    clips = random_clips(model.config, count=2)
    if not (folder / "int8" / "head.onnx").is_file():
        export_graphs(model, folder, clips)
    apart, merged = InTorch(model, clips), InTorch(merge(model), clips)
    fp32, int8 = (InGraphs(folder / precision, threads, clips) for precision in ("fp32", "int8"))
    hints = {"fp32": "f32", "int8": "f32", **({"bf16": "bf16"} if has_bf16() else {})}
    by_openvino = {p: InOpenVino(folder / p, threads, clips, hint) for p, hint in hints.items()}
    logits = {"published": apart.whole(), "merged": merged.whole()}
    logits |= {"cache": apart.step(), "graphs": fp32.step(), "int8": int8.step()}
    logits |= {f"openvino {p}": graphs.step() for p, graphs in by_openvino.items()}
    away = {key: float(np.abs(value - logits["published"]).max()) for key, value in logits.items()}
    reference = fp32.tokens()
    graphs_by_name = {"int8": int8, **{f"openvino {p}": graphs for p, graphs in by_openvino.items()}}
    tokens_away = {
        name: float(f"{np.abs(graphs.tokens() - reference).max() / np.abs(reference).max():.2g}")
        for name, graphs in graphs_by_name.items()
    }
    if max(away[key] for key in ("merged", "cache", "graphs", "openvino fp32")) > 1e-4:
        raise SystemExit(f"these do not compute the same: {away}")
    for graphs in (fp32, int8, *by_openvino.values()):
        graphs.parts_ms = {part: [] for part in STREAMING}
    about = facts(name, threads, folder)
    times = take_turns(
        {
            "published, image by image (torch)": (apart.whole, 1),
            "+ cache (torch)": (apart.step, 2),
            "+ merge (torch)": (merged.step, 2),
            "+ graphs, fp32 (ONNX Runtime)": (fp32.step, 4),
            "+ int8 (ONNX Runtime)": (int8.step, 4),
            **{f"{p} (OpenVINO)": (graphs.step, 4) for p, graphs in by_openvino.items()},
        },
        rounds,
        told=tell_round,
    )
    parts = {
        precision: {part: round(float(np.median(taken)), 1) for part, taken in graphs.parts_ms.items()}
        for precision, graphs in (
            ("fp32", fp32),
            ("int8", int8),
            *((f"openvino {p}", graphs) for p, graphs in by_openvino.items()),
        )
    }
    away = {key: float(f"{value:.2g}") for key, value in away.items()}
    return {
        **about,
        "logits_away": away,
        "tokens_away": tokens_away,
        "rows": table(times),
        "parts_ms": parts,
        "times_ms": times,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=VIT_B, help="timm's name of a ViT")
    parser.add_argument("--graphs", type=Path, help="keep the exported graphs in this folder")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.graphs or Path(temporary)
        result = run(given.model, folder, given.threads, given.rounds)
    print(f"\n{result['model']}, {result['machine']}, {result['threads']} threads\n")
    print(show(result["rows"]))
    print("\n" + show_parts(result))
    if given.json is not None:
        given.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
