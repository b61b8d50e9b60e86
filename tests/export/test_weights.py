"""One file of weights for several graphs."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from velora_export.onnx.onnx_graph import INLINE_BYTES, LINE_BYTES, PAGE_BYTES, SharedWeights, save_graph

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Exported
    from numpy.typing import NDArray


def _graph(name: str, **weights: NDArray[np.float32]) -> onnx_ir.Model:
    """A graph that adds all its weights to `x`."""
    value, nodes = "x", []
    for weight in weights:
        nodes.append(helper.make_node("Add", [value, weight], [f"plus_{weight}"]))
        value = f"plus_{weight}"
    shape = next(iter(weights.values())).shape
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(array, weight) for weight, array in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return onnx_ir.serde.deserialize_model(proto)


def _references(path: Path) -> dict[str, dict[str, str]]:
    tensors = onnx.load(path, load_external_data=False).graph.initializer
    return {t.name: {entry.key: entry.value for entry in t.external_data} for t in tensors}


def test_equal_tensors_of_two_graphs_are_stored_once_and_both_graphs_run(tmp_path: Path) -> None:
    shared, own = np.full(1000, 3, np.float32), np.arange(1000, dtype=np.float32)
    with SharedWeights(tmp_path) as weights:
        for name, graph in (("a", _graph("a", w=shared)), ("b", _graph("b", v=shared.copy(), u=own))):
            weights.take(graph)
            save_graph(graph, tmp_path / f"{name}.onnx", {"velora.name": '"t"'})
    a, b = _references(tmp_path / "a.onnx"), _references(tmp_path / "b.onnx")
    assert a["w"] == b["v"] == {"location": "weights.bin", "offset": "0", "length": "4000"}
    assert b["u"] == {"location": "weights.bin", "offset": "4032", "length": "4000"}
    assert (tmp_path / "weights.bin").stat().st_size == 8032
    assert (weights.stored_bytes, weights.shared_bytes) == (8032, 4000)
    session = onnxruntime.InferenceSession(tmp_path / "b.onnx", providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"x": np.zeros(1000, np.float32)})
    np.testing.assert_array_equal(output, 3 + own)


def test_small_tensors_stay_in_their_graph_and_large_ones_begin_on_a_page(tmp_path: Path) -> None:
    small = np.ones(INLINE_BYTES // 4 - 1, np.float32)
    with SharedWeights(tmp_path) as weights:
        tiny = _graph("small", s=small)
        weights.take(tiny)
        save_graph(tiny, tmp_path / "small.onnx", {})
        large = _graph("large", l=np.ones(300, np.float32), m=np.zeros(20_000, np.float32)[:300])
        weights.take(large)
        page = _graph("page", p=np.arange(16 * PAGE_BYTES // 4, dtype=np.float32))
        weights.take(page)
        save_graph(page, tmp_path / "page.onnx", {})
    assert _references(tmp_path / "small.onnx") == {"s": {}}
    assert int(_references(tmp_path / "page.onnx")["p"]["offset"]) == PAGE_BYTES


def test_a_bundle_stores_what_its_graphs_share_once(exported: Exported) -> None:
    folder = exported.bundle.path
    references = {graph: _references(folder / f"{graph}.onnx") for graph in ("rgb", "head", "clip")}
    places = {
        graph: {(r["offset"], r["length"]) for r in tensors.values() if r}
        for graph, tensors in references.items()
    }
    assert places["rgb"] <= places["clip"]
    assert places["head"] <= places["clip"]
    assert len(places["rgb"] & places["head"]) >= 4  # the last block: qkv, proj, fc1, fc2
    spans = sorted({(int(o), int(n)) for found in places.values() for o, n in found})
    assert all(offset % LINE_BYTES == 0 for offset, _ in spans)
    assert all(start + size <= after for (start, size), (after, _) in pairwise(spans))
    assert sum(file.stat().st_size for file in folder.glob("*.onnx")) < 400_000
