"""A bundle's graphs hold what their engines ask of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir
import pytest

from velora_edge.bundle import GRAPHS

if TYPE_CHECKING:
    from conftest import Exported


@pytest.mark.parametrize("graph", [name for name in GRAPHS if name != "head"])
def test_uint8_values_go_into_a_cast_and_nothing_else(exported: Exported, graph: str) -> None:
    """TensorRT refuses any other use of one; asking for its shape is none."""
    model = ir.load(exported.bundle.graph(graph))
    pixels = [value for value in model.graph.inputs if value.dtype == ir.DataType.UINT8]
    users = {value.name: {node.op_type for node, _ in value.uses()} - {"Shape"} for value in pixels}
    assert users
    assert users == {value.name: {"Cast"} for value in pixels}
