"""ONNX Runtime sessions with our settings, on the provider that was asked for or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from velora_edge.errors import EngineError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"

# Where shapes are known the first makes a Gemm of a MatMul and its Add, and ONNX Runtime has none for int8:
# weights would be dequantized at every run. The second merges the QuantizeLinear of layers that have an input
# in common, whose products then stay in floats. fp32 is as fast without them.
_HINDERS_INT8 = ["MatMulAddFusion", "CommonSubexpressionElimination"]
_FOLDER_OF_WEIGHTS = "session.model_external_initializers_file_folder_path"

SPIN_US = 50
"""Longer than most operators wait for each other, shorter than to fall asleep and be woken would take."""
_BOUNDED_SPIN = (1, 26)
"""The first version that is sure to know `spin_duration_us`; one that does not would spin without a bound."""

Provider = tuple[str, dict[str, str]]
"""A provider's name and its options."""


class GraphError(EngineError):
    """ONNX Runtime does not take a graph."""


def load_runtime(purpose: str, extra: str = "cpu") -> Any:
    """The onnxruntime module.

    Raises:
        MissingExtraError: naming the extra to install, if it is not there.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", extra, purpose) from error
    return onnxruntime


def session_options(threads: int = 0) -> Any:
    """Options for short latencies on a machine that has other things to do.

    Args:
        threads: for the arithmetic on the CPU; 0: as many as it has cores.
    """
    runtime = load_runtime("inference")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    for key, value in _waiting(runtime.__version__).items():
        options.add_session_config_entry(f"session.{key}", value)
    return options


def _waiting(version: str) -> dict[str, str]:
    """How threads wait for the next operator: awake for a moment, asleep from then on and between graphs.

    The graphs run one after the other: pools that spun for longer would take the cores from decoding.
    """
    major, minor = (int(number) for number in version.split(".")[:2])
    if (major, minor) < _BOUNDED_SPIN:
        return {"intra_op.allow_spinning": "0"}
    return {"intra_op.spin_duration_us": str(SPIN_US), "force_spinning_stop": "1"}


def open_session(
    model: Path | bytes,
    options: Any,
    providers: Sequence[Provider] = ((CPU, {}),),
    *,
    weights: Path | None = None,
) -> Any:
    """A session on the first of `providers`.

    Args:
        model: the graph's file, or the graph.
        options: see `session_options`.
        providers: the one that is wanted, then those that may take what it cannot.
        weights: folder of the weights' file, for a graph that is no file.

    Raises:
        MissingExtraError: if ONNX Runtime is not installed.
        GraphError: if it does not take the graph.
        EngineError: if it cannot start on the provider, or fell back to another.
    """
    runtime = load_runtime("inference")
    wanted = providers[0][0]
    if weights is not None:
        options.add_session_config_entry(_FOLDER_OF_WEIGHTS, str(weights))
    try:
        session = runtime.InferenceSession(
            model if isinstance(model, bytes) else str(model),
            options,
            providers=list(providers),
            disabled_optimizers=_HINDERS_INT8 if wanted == CPU else None,
        )
    except Exception as error:  # onnxruntime raises types of its own, all of them straight from Exception
        kind = GraphError if wanted == CPU else EngineError
        raise kind(f"onnxruntime cannot load the graph: {first_line(error)}") from error
    found = session.get_providers()
    if found[:1] != [wanted]:
        raise EngineError(
            f"expected onnxruntime on {wanted}, got {', '.join(found)}; velora doctor tells more"
        )
    return session


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
