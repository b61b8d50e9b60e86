"""Bit counting that compiles to one instruction and also runs in plain Python.

Through the builder's own `cttz` and `ctpop`: declaring the LLVM intrinsics by name crashes llvmlite.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba.extending import intrinsic, overload


def count_trailing_zeros(value: Any) -> Any:
    """How many bits below the lowest one that is set; 64 for 0."""
    value = int(value)
    return (value & -value).bit_length() - 1 if value else 64


def count_ones(value: Any) -> Any:
    """How many bits are set; `value` is not negative."""
    return bin(int(value)).count("1")


@intrinsic
def _cttz(context: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return value(value), generate


@intrinsic
def _ctpop(context: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return value(value), generate


@overload(count_trailing_zeros)
def _count_trailing_zeros(value: Any) -> Any:
    def count(value: Any) -> Any:
        return _cttz(value)  # type: ignore[call-arg]

    return count


@overload(count_ones)
def _count_ones(value: Any) -> Any:
    def count(value: Any) -> Any:
        return _ctpop(value)  # type: ignore[call-arg]

    return count
