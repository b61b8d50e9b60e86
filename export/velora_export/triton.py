"""Model repository for Triton Inference Server: one model a graph, served by its onnxruntime backend.

Layout and the text of `config.pbtxt`: Triton's model repository and model configuration documents, and its
`model_config.proto`. Each graph lies beside its own weights, copied out of the bundle's one file: links
would be taken for an attack by ONNX's checker, symbolic ones by ONNX Runtime.
"""

from __future__ import annotations

import contextlib
import json
import re
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from velora_edge.bundle import GRAPHS
from velora_edge.errors import BundleError
from velora_edge.files import PartFolder
from velora_edge.ort import checked_copy
from velora_export.bundle_export import manifest_metadata
from velora_export.onnx.onnx_graph import SharedWeights, save_graph

if TYPE_CHECKING:
    from pathlib import Path

    from velora_edge.bundle import Bundle

CONFIG, LABELS = "config.pbtxt", "labels.txt"
LOGITS = "logits"
TYPES = {
    ir.DataType.UINT8: "TYPE_UINT8",
    ir.DataType.INT64: "TYPE_INT64",
    ir.DataType.FLOAT: "TYPE_FP32",
    ir.DataType.FLOAT16: "TYPE_FP16",
}
MOST_CLIPS, MOST_IMAGES = 8, 32
"""Largest batches: of whole clips or rings, and of single images of several streams."""
WAIT_US = 2000
"""How long a request may wait for others to share a batch with."""


def write_repository(bundle: Bundle, folder: Path) -> list[str]:
    """Write the bundle's graphs as models into a repository; models of the same names are replaced.

    Args:
        bundle: whose files were checked.
        folder: the repository's; it may hold other models.

    Returns:
        The models' names.

    Raises:
        BundleError: if something else than a model is in the place of one, or it cannot be written to.
    """
    stem = re.sub(r"[^A-Za-z0-9_-]+", "_", bundle.manifest.name)
    names = {graph: f"{stem}_{graph}" for graph in GRAPHS}
    for name in names.values():
        if (folder / name).exists() and not (folder / name / CONFIG).is_file():
            raise BundleError(
                "exists and is not a Triton model", path=folder / name, remedy="choose another DIR"
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for graph, name in names.items():
            _write_model(bundle, graph, folder / name)
    except OSError as error:
        raise BundleError(
            f"cannot be written: {error.strerror}", path=folder, remedy="choose a DIR where you may write"
        ) from error
    return list(names.values())


def _write_model(bundle: Bundle, graph: str, place: Path) -> None:
    with PartFolder(place) as part, contextlib.ExitStack() as stack:
        folder = part.path
        version = folder / "1"
        version.mkdir()
        model = ir.load(stack.enter_context(checked_copy(bundle, graph)))
        (folder / CONFIG).write_text(write_config(bundle, model, place.name))
        if model.graph.outputs[0].name == LOGITS:
            (folder / LABELS).write_text("\n".join(bundle.manifest.labels) + "\n")
        with SharedWeights(version) as weights:
            weights.take(model)
        save_graph(model, version / "model.onnx", {})
        part.commit()


def write_config(bundle: Bundle, model: ir.Model, name: str) -> str:
    """The text of a model's `config.pbtxt`.

    Args:
        bundle: whose graph it is.
        model: the graph.
        name: the model's, which is its folder's.
    """
    precision = bundle.manifest.precision
    # No CPU computes bf16 or fp8, and fp16 only by way of fp32; an int8 or fp32 model goes anywhere.
    kind = "KIND_GPU" if precision in ("fp16", "bf16", "fp8") else "KIND_AUTO"
    most = MOST_CLIPS if model.graph.outputs[0].name == LOGITS else MOST_IMAGES
    blocks = [
        f"name: {_text(name)}",
        'backend: "onnxruntime"',
        f"max_batch_size: {most}",
        *(_tensor("input", value) for value in model.graph.inputs),
        *(_tensor("output", value) for value in model.graph.outputs),
        f"instance_group [\n  {{\n    count: 1\n    kind: {kind}\n  }}\n]",
        f"dynamic_batching {{\n  max_queue_delay_microseconds: {WAIT_US}\n}}",
        *(_parameter(key, value) for key, value in sorted(manifest_metadata(bundle.manifest).items())),
    ]
    return "\n".join(blocks) + "\n"


def _tensor(what: str, value: ir.Value) -> str:
    assert value.dtype is not None
    assert value.shape is not None
    sizes = (size if isinstance(size, int) else -1 for size in value.shape[1:])  # the batch is the server's
    dims = ", ".join(map(str, sizes))
    labels = f"\n    label_filename: {_text(LABELS)}" if value.name == LOGITS else ""
    return (
        f"{what} [\n  {{\n    name: {_text(value.name)}\n    data_type: {TYPES[value.dtype]}\n"
        f"    dims: [ {dims} ]{labels}\n  }}\n]"
    )


def _parameter(key: str, value: str) -> str:
    return f"parameters {{\n  key: {_text(key)}\n  value {{ string_value: {_text(value)} }}\n}}"


def _text(value: Any) -> str:
    """A string literal of protobuf's text format; JSON's escapes are among its own."""
    return json.dumps(str(value))
