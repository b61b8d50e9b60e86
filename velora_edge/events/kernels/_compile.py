"""How kernels are compiled: without the GIL, cached on disk, anew when a file that goes into them changes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from numba import njit

if TYPE_CHECKING:
    from collections.abc import Callable

    AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])


def _digest_sources() -> str:
    events = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted((*events.rglob("_*.py"), *(events / "accumulate").glob("*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


_SOURCES = _digest_sources()


def kernel(function: AnyFunction) -> AnyFunction:
    """Decorator: compile when called; `py_func` of the result runs uncompiled.

    numba's cache looks only at the file of the function itself, but our kernels inline functions of other
    files: with the digest of all of them in its name, a kernel finds no cache entry made from older sources.
    """
    function.__qualname__ = f"{function.__qualname__}_{_SOURCES}"
    return cast("AnyFunction", njit(nogil=True, cache=True)(function))
