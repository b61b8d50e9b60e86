"""int8 for linear layers, by scales that no CPU's sums can overflow with.

ONNX Runtime, on an x86 CPU without VNNI, multiplies pairs of neighbours, uint8 with int8, and adds the two
products in 16 bits, which saturate: a weight's scale is therefore chosen so that no pair can, whatever comes
in. That costs half a bit, and makes every CPU compute the same numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from velora_export.precision.quantization import NumberFormat

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOP = 127
PAIR = 128.0
"""Largest sum of two neighbouring weights of one sign: 255 * 128 < 2**15."""


def weight_scales(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """The scale of each output of a weight [I, O]: float32[O]."""
    whole = np.abs(weight).max(axis=0) / TOP
    even = np.concatenate([weight, np.zeros((len(weight) % 2, weight.shape[1]), weight.dtype)])
    pairs = even.reshape(-1, 2, weight.shape[1])
    sums = np.maximum(np.maximum(pairs, 0).sum(axis=1), np.maximum(-pairs, 0).sum(axis=1)).max(axis=0)
    # Two roundings may add one: 127 leaves room for them.
    scales = np.maximum(whole, sums / (PAIR - 1))
    return np.where(scales > 0, scales, 1).astype(np.float32)


def round_weight(weight: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.int8]:
    """A weight [I, O] in steps of its scales."""
    return np.clip(np.rint(weight / scales), -TOP, TOP).astype(np.int8)


INT8 = NumberFormat("int8", ir.DataType.INT8, TOP, ("percentile", "entropy"), weight_scales, round_weight)
