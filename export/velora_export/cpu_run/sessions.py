"""A bundle's graphs in ONNX Runtime on the CPU, for parity and evaluation at export."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from velora_edge.errors import EngineError
from velora_edge.ort import first_line, load_runtime, open_session, session_options
from velora_export.cpu_run.emulate_bf16 import emulate_bf16, is_bf16, is_fp8

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray


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

    def is_rounded(self, graph: str) -> bool:
        """Whether a graph is bf16, which here is computed in fp32 and rounded: its speed says nothing."""
        return is_bf16(ir.load(self._folder / f"{graph}.onnx"))

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
