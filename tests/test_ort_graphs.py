"""The files that a graph keeps its weights in, wherever in it a tensor may lie."""

from __future__ import annotations

import pytest

from velora_edge.ort import external_files

onnx = pytest.importorskip("onnx", reason="writes graphs")

from onnx import TensorProto, helper  # noqa: E402


def elsewhere(location: str) -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.UINT8, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "4")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return tensor


def graph(*nodes: onnx.NodeProto, tensors: tuple[TensorProto, ...] = ()) -> onnx.GraphProto:
    output = helper.make_tensor_value_info("y", TensorProto.UINT8, [4])
    return helper.make_graph(list(nodes), "g", [], [output], list(tensors))


def constant(location: str) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["y"], value=elsewhere(location))


def test_a_graph_that_holds_its_weights_refers_to_no_file() -> None:
    tensor = helper.make_tensor("location", TensorProto.UINT8, [4], [1, 2, 3, 4])
    model = helper.make_model(graph(tensors=(tensor,)))
    assert external_files(model.SerializeToString()) == set()


def test_initializers_attributes_subgraphs_and_functions_are_looked_through() -> None:
    branch = helper.make_node(
        "If",
        ["c"],
        ["y"],
        then_branch=graph(constant("then")),
        else_branch=graph(tensors=(elsewhere("else"),)),
    )
    tensors = helper.make_node("Custom", [], ["z"], domain="x")
    attribute = tensors.attribute.add()
    attribute.name, attribute.type = "many", onnx.AttributeProto.TENSORS
    attribute.tensors.extend([elsewhere("one"), elsewhere("two")])
    model = helper.make_model(graph(branch, tensors, tensors=(elsewhere("../first"),)))
    sparse = model.graph.sparse_initializer.add()
    sparse.values.CopyFrom(elsewhere("values"))
    sparse.indices.CopyFrom(elsewhere("indices"))
    function = model.functions.add()
    function.node.append(constant("/etc/function"))
    model.training_info.add().algorithm.CopyFrom(graph(constant("training")))
    assert external_files(model.SerializeToString()) == {
        "../first", "then", "else", "one", "two", "values", "indices", "/etc/function", "training",
    }  # fmt: skip


def test_a_graph_with_a_compiled_program_is_refused() -> None:
    node = helper.make_node(
        "EPContext", [], ["y"], domain="com.microsoft", ep_cache_context="../../evil.engine"
    )
    with pytest.raises(ValueError, match="compiled program"):
        external_files(helper.make_model(graph(node)).SerializeToString())


@pytest.mark.parametrize(
    "data", [b"\xff" * 20, b"\x3a\x80", b"\x3a\xff\xff\xff\xff\x0f", b"\x3b", b"\x3a\x05\x01"]
)
def test_bytes_that_are_no_graph_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"wire type|cut off|reaches past"):
        external_files(data)


def test_graphs_nested_without_end_are_refused() -> None:
    data = b""
    for _ in range(200):  # graph > node > attribute > graph ...
        attribute = b"\x32" + onnx_length(data) + data
        node = b"\x2a" + onnx_length(attribute) + attribute
        data = b"\x0a" + onnx_length(node) + node
    with pytest.raises(ValueError, match="nested too deeply"):
        external_files(b"\x3a" + onnx_length(data) + data)


def onnx_length(data: bytes) -> bytes:
    n, out = len(data), bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)
