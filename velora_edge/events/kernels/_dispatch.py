"""One name for several small functions, chosen by the type of the first argument, in kernels and in Python.

A kernel calls `add_event(state, ...)`; numba puts the function that belongs to the state's type in its place
when it compiles the kernel for that type, and the optimiser inlines it. So a choice costs nothing when
running, a compiled kernel is cached by its signature, and the same source runs uncompiled in tests. The
rejected choice, functions as arguments, cannot be cached by numba.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from numba.extending import overload

if TYPE_CHECKING:
    from collections.abc import Callable

    AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])


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
