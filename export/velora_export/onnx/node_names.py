"""Nodes named by the module of the network that they compute: `caller/module/operator`.

Profilers and TensorRT's layer information show these names, and a layer has the same one in every graph.
"""

from __future__ import annotations

import ast
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

SCOPES = "pkg.torch.onnx.name_scopes"
"""Where torch's exporter writes which modules a node lies in, the outermost first, its own name last."""
HEAD, MODEL = "head", "model"
"""The callers: the last blocks of two towers are called by their tower, and by the head again."""
_NONE = ("", "_empty_nn_module_stack_from_metadata_hook")
"""Modules of what belongs to the graph as a whole."""


def name_nodes(graph: ir.Graph, name: str) -> None:
    """Name the nodes of a graph as torch's exporter left it.

    Args:
        graph: its nodes carry torch's scopes, some of them none.
        name: rgb, event, diff, head or clip.
    """
    used: Counter[str] = Counter()
    for node in graph:
        scopes = _scopes(node)
        in_head = any(scope == "model.head" or scope.startswith("model.head.") for scope in scopes)
        module = next((scope for scope in scopes[-2:-1] if scope not in _NONE), name)
        if module == "tower" or module.startswith("tower."):
            module = f"towers.{name}{module.removeprefix('tower')}"
        path = f"{HEAD if in_head else MODEL}/{module.removeprefix('model.')}/{node.op_type}"
        node.name = path if not used[path] else f"{path}.{used[path]}"
        used[path] += 1


def module_of(node: ir.Node) -> tuple[str, str]:
    """Caller and module of a named node, such as ("model", "towers.rgb.patch_embed"), or two empty texts."""
    parts = (node.name or "").split("/")
    return (parts[0], parts[1]) if len(parts) == 3 and parts[0] in (HEAD, MODEL) else ("", "")


def _scopes(node: ir.Node) -> list[str]:
    try:
        return [str(scope) for scope in ast.literal_eval(node.metadata_props[SCOPES])]
    except (KeyError, ValueError, SyntaxError):
        return []
