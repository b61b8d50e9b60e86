"""A bundle's graphs in ONNX Runtime on the CPU, for parity and evaluation at export."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from velora_edge.errors import EngineError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray


class Sessions:
    """Runs the graphs of one folder; a session is made when a graph is first asked for.

    Args:
        folder: where `rgb.onnx` and the others lie, with their weights beside them.
        threads: for each graph; 0: as many as the machine has cores.
    """

    def __init__(self, folder: Path, *, threads: int = 0) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError("onnxruntime", "cpu", "checking an exported model") from error
        self._runtime, self._folder = onnxruntime, folder
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = threads
        self._options.log_severity_level = 3
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}

    def run(self, graph: str, inputs: Mapping[str, NDArray[np.generic]]) -> NDArray[np.float32]:
        """The one output of a graph.

        Raises:
            EngineError: if ONNX Runtime refuses the graph.
        """
        if graph not in self._sessions:
            path = self._folder / f"{graph}.onnx"
            try:
                self._sessions[graph] = self._runtime.InferenceSession(
                    str(path), self._options, providers=["CPUExecutionProvider"]
                )
            except Exception as error:  # onnxruntime's own types, none of them public
                raise EngineError(f"ONNX Runtime cannot load {path.name}: {error}".splitlines()[0]) from error
        (output,) = self._sessions[graph].run(None, dict(inputs))
        return np.asarray(output, np.float32)
