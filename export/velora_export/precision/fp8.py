"""fp8 for linear layers: E4M3FN, four bits of exponent and three of mantissa, without infinities.

The largest number is 448, and what is larger becomes 448: unbounded, a cast would make it NaN. Numbers from
2**-6 on keep four significant bits; below lie steps of 2**-9. (ONNX, "Float stored in 8 bits"; Micikevicius
et al., FP8 Formats for Deep Learning, 2022.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from velora_export.precision.quantization import NumberFormat

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOP = 448.0


def weight_scales(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """One scale for a weight [I, O], float32[].

    With one for each output TensorRT for RTX 1.7 writes products to fp16 that are not scaled yet, and keeps
    the scales of both factors multiplied, in fp16, where they have few bits left (docs/decisions/0035).
    """
    largest = np.abs(weight).max()
    return np.array(largest / TOP if largest > 0 else 1, np.float32)


def round_weight(weight: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[Any]:
    """A weight [I, O] in units of its scales, to the nearest number, ties to even."""
    return np.clip(weight / scales, -TOP, TOP).astype(ir.DataType.FLOAT8E4M3FN.numpy())


FP8 = NumberFormat("fp8", ir.DataType.FLOAT8E4M3FN, TOP, ("max", "percentile"), weight_scales, round_weight)
