"""Arrays lent to a loop without their reference counts.

numba counts references whenever an array is taken out of a tuple or handed to a function, and in a loop of
some size its optimiser gives up removing that: a walk over words then takes five times as long. Lent arrays
have no owner to count. Whoever called the kernel holds them all the while.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic, overload


def lend(value: Any) -> Any:
    """The same array, or the same tuple of arrays, numbers and tuples; for use inside the kernel only."""
    return value


def _disown(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    if isinstance(kind, types.Array):
        array = context.make_array(kind)(context, builder, value)
        array.meminfo = ir.Constant(array.meminfo.type, None)
        array.parent = ir.Constant(array.parent.type, None)
        return array._getvalue()
    if isinstance(kind, types.BaseTuple):
        members: Any = kind
        for place, member in enumerate(members):
            lent = _disown(context, builder, member, builder.extract_value(value, place))
            value = builder.insert_value(value, lent, place)
    return value


@intrinsic
def _lend(context: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _disown(context, builder, signature.args[0], arguments[0])

    return value(value), generate


@overload(lend)
def _overload_lend(value: Any) -> Any:
    def without_owner(value: Any) -> Any:
        return _lend(value)  # type: ignore[call-arg]

    return without_owner
