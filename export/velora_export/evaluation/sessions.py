"""Sessions of a bundle's graphs in ONNX Runtime on the CPU, run on clips and as streams.

ONNX Runtime has no bf16 kernels for a CPU. A bf16 graph is therefore run as a twin in fp32 that rounds where
the graph does (`emulate_bf16`): its values are those of the graph itself but for the order in which a
product's sum is formed. At export this twin is compared with torch.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from velora_edge.datatypes import MODALITIES
from velora_edge.errors import EngineError
from velora_edge.ort import first_line, load_runtime, open_session, session_options

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from velora_export.evaluation.clips import Flags


FLOAT, HALF = ir.DataType.FLOAT, ir.DataType.BFLOAT16


def is_bf16(model: ir.Model) -> bool:
    """Whether a graph computes in bf16."""
    return any(value.dtype == HALF for node in model.graph for value in node.outputs)


def is_fp8(model: ir.Model) -> bool:
    """Whether a graph's linear layers compute in fp8."""
    fp8 = ir.DataType.FLOAT8E4M3FN
    return any(value.dtype == fp8 for node in model.graph for value in node.outputs)


def emulate_bf16(model: ir.Model) -> None:
    """Change a bf16 graph in place: fp32 everywhere, but rounded to bf16 wherever it was bf16."""
    graph = model.graph
    for node in list(graph):
        rounds = node.op_type == "Cast"
        for value in [value for value in node.outputs if value.dtype == HALF]:
            users = list(value.uses())
            down = node if rounds else _cast(value, HALF)
            up = _cast(down.outputs[0], FLOAT)
            if not rounds:
                value.dtype = FLOAT
                graph.insert_after(node, down)
            graph.insert_after(down, up)
            _feed(users, up)
    for weight in [value for value in graph.initializers.values() if value.dtype == HALF]:
        users = list(weight.uses())
        up = _cast(weight, FLOAT)
        graph.insert_before(graph[0], up)
        _feed(users, up)


def _cast(value: ir.Value, kind: ir.DataType) -> ir.Node:
    name = f"{value.name}.{kind.name.lower()}"
    cast = ir.node("Cast", [value], {"to": int(kind)}, name=name)
    made = cast.outputs[0]
    made.name, made.shape, made.type = name, value.shape, ir.TensorType(kind)
    return cast


def _feed(users: Sequence[tuple[ir.Node, int]], cast: ir.Node) -> None:
    for user, index in users:
        user.replace_input_with(index, cast.outputs[0])


_KEEPS_PAIRS = ("session.disable_quant_qdq", "1")
"""ONNX Runtime makes an int8 product of a pair of any type, and then refuses its own graph for being fp8."""


class Sessions:
    """Runs the graphs of one folder; a session is made when a graph is first asked for.

    A bf16 graph is computed in fp32, rounded after each operator (`emulate_bf16`). An fp8 graph's factors are
    rounded to fp8 and back, and multiplied as floats: what a GPU's products of fp8, summed in fp32, give.

    Args:
        folder: where `rgb.onnx` and the others lie, with their weights beside them.
        threads: for each graph; 0: as many as the machine has cores.

    Attributes:
        threads: as given.
    """

    def __init__(self, folder: Path, *, threads: int = 0) -> None:
        self._runtime = load_runtime("checking an exported model")
        self._folder, self.threads = folder, threads
        self._sessions: dict[str, Any] = {}

    @property
    def runtime(self) -> str:
        """What computes, for the report."""
        return f"ONNX Runtime {self._runtime.__version__} on the CPU"

    def run(self, graph: str, inputs: Mapping[str, NDArray[np.generic]]) -> NDArray[np.float32]:
        """The one output of a graph, as float32; inputs that are fp16 in the graph are rounded here.

        Raises:
            EngineError: if ONNX Runtime refuses the graph.
        """
        session = self.session(graph)
        halves = {entry.name for entry in session.get_inputs() if entry.type == "tensor(float16)"}
        given = {name: a.astype(np.float16) if name in halves else a for name, a in inputs.items()}
        try:
            (output,) = session.run(None, given)
        except Exception as error:  # onnxruntime's own types, none of them public
            raise EngineError(f"onnxruntime failed in {graph}.onnx: {first_line(error)}") from error
        return np.asarray(output, np.float32)

    def session(self, graph: str) -> Any:
        """The graph's session.

        Raises:
            EngineError: if ONNX Runtime refuses the graph.
        """
        if graph not in self._sessions:
            self._sessions[graph] = self._open(graph)
        return self._sessions[graph]

    def _open(self, graph: str) -> Any:
        path = self._folder / f"{graph}.onnx"
        options = session_options(self.threads)
        try:
            model = ir.load(path)
            if is_fp8(model):
                options.add_session_config_entry(*_KEEPS_PAIRS)
            if not is_bf16(model):
                return open_session(path, options)
            emulate_bf16(model)
            return open_session(ir.to_proto(model).SerializeToString(), options, weights=self._folder)
        except EngineError as error:
            raise EngineError(f"{path.name}: {error}") from error

    def close(self) -> None:
        """Let go of the sessions' memory."""
        self._sessions.clear()


Images = dict[str, "NDArray[np.uint8]"]


def clip_runs(rgb: NDArray[np.uint8], event: NDArray[np.uint8], flags: Flags) -> Iterator[tuple[str, Images]]:
    """Each tower's runs over a clip: the graph's name and its inputs, batch 1.

    Args:
        rgb: uint8[T, H, W, 3].
        event: uint8[T, H, W, 3].
        flags: `rgb_present` and `event_present`, float32[1, T]: the same for all pairs of the clip.
    """
    has_rgb, has_event = flags["rgb_present"][0, 0] > 0, flags["event_present"][0, 0] > 0
    for j in range(len(rgb)):
        yield "rgb", {"image": rgb[j][None]}
        yield "event", {"image": event[j][None]}
        if j:
            images = {
                "rgb": rgb[j],
                "rgb_before": rgb[j - 1] if has_rgb else rgb[j],
                "event": event[j],
                "event_before": event[j - 1] if has_event else event[j],
            }
            yield "diff", {name: image[None] for name, image in images.items()}


def head_inputs(
    tokens: Mapping[str, Sequence[NDArray[np.float32]]], flags: Flags
) -> dict[str, NDArray[np.float32]]:
    """The head's inputs for a clip, its slots turned by two, as a ring's are.

    Args:
        tokens: of each tower's runs, float32[1, N, P], in their order.
        flags: as for `clip_runs`.
    """
    rings = {name: np.roll(np.concatenate(tokens[name]), 2, axis=0)[None] for name in MODALITIES}
    moved = (flags["rgb_present"] + flags["event_present"] > 0)[:, 1:].astype(np.float32)
    return {**rings, **flags, "diff_present": moved}


def stream_clip(
    sessions: Sessions, rgb: NDArray[np.uint8], event: NDArray[np.uint8], flags: Flags
) -> NDArray[np.float32]:
    """Logits [1, K] of one clip as the runtime gets them: image by image, slots turned, then the head.

    Args:
        sessions: of the graphs.
        rgb: uint8[T, H, W, 3].
        event: uint8[T, H, W, 3].
        flags: `rgb_present` and `event_present`, float32[1, T]: the same for all pairs of the clip.
    """
    tokens: dict[str, list[NDArray[np.float32]]] = defaultdict(list)
    for graph, inputs in clip_runs(rgb, event, flags):
        tokens[graph].append(sessions.run(graph, inputs))
    return sessions.run("head", head_inputs(tokens, flags))
