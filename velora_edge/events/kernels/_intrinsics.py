"""Compilation of kernels, and their intrinsics: bit counts, prefetch, dispatch, borrowed arrays.

Bit counts compile to one instruction and also run in plain Python. They go through the builder's own `cttz`
and `ctpop`: declaring the LLVM intrinsics by name crashes llvmlite.

Dispatch (`Switch`) gives one name to several small functions, chosen by the type of the first argument, in
kernels and in Python. A kernel calls `add_event(state, ...)`; numba puts the function that belongs to the
state's type in its place when it compiles the kernel for that type, and the optimiser inlines it. So a choice
costs nothing when running, a compiled kernel is cached by its signature, and the same source runs uncompiled
in tests. The rejected choice, functions as arguments, cannot be cached by numba.

Borrowed arrays (`borrow`) are used by a loop without their reference counts. numba counts references whenever
an array is taken out of a tuple or handed to a function, and in a loop of some size its optimiser gives up
removing that: a walk over words then takes five times as long. Borrowed arrays have no owner to count; the
kernel's caller holds them all the while.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from llvmlite import ir
from numba import njit, types
from numba.core import sigutils
from numba.core.caching import FunctionCache
from numba.extending import intrinsic, overload

if TYPE_CHECKING:
    from collections.abc import Callable

    AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])


def _digest_sources() -> str:
    """Compute a digest of all files of `velora_edge.events` that hold kernels, or functions they inline."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        source = path.read_bytes()
        if path.name.startswith("_") or path.parent.name == "accumulate" or b"@kernel" in source:
            digest.update(source)
    return digest.hexdigest()[:8]


_SOURCES = _digest_sources()
_PACKAGE = __name__.partition(".")[0]


class _OwnCache(FunctionCache):
    """numba's cache of a kernel, without what was compiled for a representation of another package.

    Such code is inlined, so that a newer version of that package would not be seen; and once the package is
    gone, numba cannot read the kernel's index any more, for anything.
    """

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep what was compiled for types of ours."""
        above: Any = super()
        if _is_ours(sig):
            above.save_overload(sig, data)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """What was kept for these types, or None."""
        above: Any = super()
        return above.load_overload(sig, target_context) if _is_ours(sig) else None


def _is_ours(signature: Any) -> bool:
    """Whether every named tuple among the arguments is of this package."""
    normalize: Any = sigutils.normalize_signature
    arguments: list[Any] = list(normalize(signature)[0])
    classes = [kind.instance_class for kind in arguments if hasattr(kind, "instance_class")]
    return all(one.__module__.partition(".")[0] == _PACKAGE for one in classes)


def kernel(function: AnyFunction) -> AnyFunction:
    """Decorator: compile when called; `py_func` of the result runs uncompiled.

    numba's cache looks only at the file of the function itself, but our kernels inline functions of other
    files: with the digest of all of them in its name, a kernel finds no cache entry made from older sources.
    """
    function.__qualname__ = f"{function.__qualname__}_{_SOURCES}"
    compiled: Any = njit(nogil=True)(function)
    if hasattr(compiled, "_cache"):  # not where numba is told to compile nothing
        make_cache: Any = _OwnCache
        compiled._cache = make_cache(function)
    return cast("AnyFunction", compiled)


def count_trailing_zeros(value: Any) -> Any:
    """Count the bits below the lowest one that is set; 64 for 0."""
    value = int(value)
    return (value & -value).bit_length() - 1 if value else 64


def count_ones(value: Any) -> Any:
    """Count the bits that are set; `value` is not negative."""
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


class Switch:
    """The functions behind one name, by the NamedTuple class that they take first."""

    def __init__(self) -> None:
        self._by_class: dict[type, Callable[..., Any]] = {}

    def when(self, first: type) -> Callable[[AnyFunction], AnyFunction]:
        """Decorator: the function to call for this class; its arguments are named as the switch's are."""

        def keep(function: AnyFunction) -> AnyFunction:
            self._by_class[first] = function
            return function

        return keep

    def of(self, first: object) -> Callable[..., Any]:
        """The function for this value, when running uncompiled."""
        return self._by_class[type(first)]

    def of_type(self, first: object) -> Callable[..., Any] | None:
        """The function for this numba type, when compiling; None where there is none."""
        return self._by_class.get(getattr(first, "instance_class", type(None)))


__all__ = ["Switch", "overload"]


def borrow(value: Any) -> Any:
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
def _borrow(context: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _disown(context, builder, signature.args[0], arguments[0])

    return value(value), generate


@overload(borrow)
def _overload_lend(value: Any) -> Any:
    def without_owner(value: Any) -> Any:
        return _borrow(value)  # type: ignore[call-arg]

    return without_owner


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
