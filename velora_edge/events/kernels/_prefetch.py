"""Asking for memory before it is needed, so that many places far apart are fetched at once."""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic, overload


def prefetch(array: Any, place: Any) -> None:
    """Say that `array[place]` will soon be written to; changes nothing, and any place may be asked for."""


@intrinsic
def _prefetch(context: Any, array: Any, place: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        pointer = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, number, number, number])
        call = builder.module.declare_intrinsic("llvm.prefetch", (pointer.type,), kind)
        to_write, keep_near, as_data = number(1), number(3), number(1)
        builder.call(call, [pointer, to_write, keep_near, as_data])
        return context.get_dummy_value()

    return types.void(array, place), generate


@overload(prefetch)
def _overload_prefetch(array: Any, place: Any) -> Any:
    def ask(array: Any, place: Any) -> None:
        _prefetch(array, place)  # type: ignore[call-arg]

    return ask
