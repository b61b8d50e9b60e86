"""A bundle's streaming graphs in ONNX Runtime, checked: what CPU and GPU engines have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge.errors import BundleError, EngineError
from velora_edge.ort import CPU, GraphError, first_line, open_session, session_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from velora_edge.bundle import Bundle
    from velora_edge.ort import Provider

INPUTS = {
    "rgb": ("image",),
    "event": ("image",),
    "diff": ("rgb", "rgb_before", "event", "event_before"),
    "head": ("rgb", "event", "diff", "rgb_present", "event_present", "diff_present"),
}
"""The graphs' inputs by name; the bundle's exporter keeps to the same."""
BATCH = "batch"
"""Name of the open axis. A stream has one pair at a time: fixed, it leaves no arithmetic on shapes."""
TYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
}
"""What tokens may be."""


class Graph:
    """One ONNX graph in a session, batch 1.

    Args:
        bundle: whose it is.
        name: rgb, event, diff or head.
        providers: see `velora_edge.ort.open_session`.
        threads: for the arithmetic on the CPU; 0: all cores.
        entries: more of ONNX Runtime's session options, by key.

    Raises:
        BundleError: if ONNX Runtime does not take the graph, or it has other inputs than a bundle's graph.
        EngineError: if ONNX Runtime does not start on the provider.

    Attributes:
        session: ONNX Runtime's.
        output: name of the output.
    """

    def __init__(
        self,
        bundle: Bundle,
        name: str,
        providers: Sequence[Provider] = ((CPU, {}),),
        *,
        threads: int = 0,
        entries: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.name = name
        options = session_options(threads)
        options.add_free_dimension_override_by_name(BATCH, 1)
        for key, value in entries:
            options.add_session_config_entry(key, value)
        path = bundle.graph(name)
        try:
            self.session = open_session(path, options, providers)
        except GraphError as error:
            raise BundleError(
                str(error),
                path=bundle.path,
                place=path.name,
                remedy="export the model again, or pip install -U onnxruntime",
            ) from error
        check_inputs(bundle, name, tuple(entry.name for entry in self.session.get_inputs()))
        self.output = self.session.get_outputs()[0].name

    def run(self, binding: Any, options: Any = None) -> None:
        """Run on what is bound.

        Raises:
            EngineError: if ONNX Runtime fails.
        """
        try:
            self.session.run_with_iobinding(binding, options)
        except Exception as error:  # onnxruntime raises types of its own, all of them straight from Exception
            raise EngineError(f"onnxruntime failed in {self.name}.onnx: {first_line(error)}") from error


def check_inputs(bundle: Bundle, name: str, found: Sequence[str]) -> None:
    """Make sure that a graph has the inputs of its kind.

    Raises:
        BundleError: if it has others.
    """
    if sorted(found) != sorted(INPUTS[name]):
        raise BundleError(
            f"expected a graph with the inputs {', '.join(INPUTS[name])}, got {', '.join(found)}",
            path=bundle.path,
            place=f"{name}.onnx",
            remedy="export the model again",
        )


def token_type(graphs: dict[str, Graph], bundle: Bundle) -> np.dtype[Any]:
    """The type of tokens that the towers give and the head takes.

    Raises:
        BundleError: if they do not agree, or it is one that a ring cannot hold.
    """
    given = {graphs[name].session.get_outputs()[0].type for name in ("rgb", "event", "diff")}
    inputs = graphs["head"].session.get_inputs()
    taken = {entry.type for entry in inputs if entry.name in ("rgb", "event", "diff")}
    if len(given | taken) != 1 or not given <= TYPES.keys():
        raise BundleError(
            f"towers give tokens of {', '.join(sorted(given))}, the head takes {', '.join(sorted(taken))}",
            path=bundle.path,
            place="head.onnx",
            remedy="export the model again",
        )
    return TYPES[given.pop()]
