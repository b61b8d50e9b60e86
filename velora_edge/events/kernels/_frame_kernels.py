"""Functions that every walk over events calls for each one: its place on the frame, and its effect there.

All of these are chosen by type (see `Switch` in `_intrinsics`): by the registration map's form and by the
state of the frame's representation.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from velora_edge.events.kernels._intrinsics import Switch, overload


class SeparableMap(NamedTuple):
    """cell = columns[x] + rows[y], or 0 where that is negative: int32, each as long as the sensor's side."""

    columns: Any
    rows: Any


class FullMap(NamedTuple):
    """cell = cells[y * width + x]: int32."""

    cells: Any
    width: int


class IdentityMap(NamedTuple):
    """cell = 1 + y * width + x: the sensor's own pixels."""

    width: int


_FIND_CELL, FIND_PLACE, ADD_EVENT = Switch(), Switch(), Switch()


def find_cell(table: Any, y: Any, x: Any) -> Any:
    """Find the cell of an event at the sensor's row `y` and column `x`: 1 + the model's pixel's index, or 0.

    All states have a cell 0, which nobody looks at: adding what falls beside the frame there costs less
    than asking.
    """
    return _FIND_CELL.of(table)(table, y, x)


def find_place(state: Any, cell: Any, p: Any) -> Any:
    """Find the index in the state's array for events of polarity 0 or 1 in a cell, below 2^31."""
    return FIND_PLACE.of(state)(state, cell, p)


def add_event(state: Any, place: Any, t_us: Any, p: Any) -> None:
    """Add an event of that polarity to the frame's state, at the place that was found for it."""
    ADD_EVENT.of(state)(state, place, t_us, p)


@overload(find_cell)
def _find_cell(table: Any, y: Any, x: Any) -> Any:
    return _FIND_CELL.of_type(table)


@overload(find_place)
def _find_place(state: Any, cell: Any, p: Any) -> Any:
    return FIND_PLACE.of_type(state)


@overload(add_event)
def _add_event(state: Any, place: Any, t_us: Any, p: Any) -> Any:
    return ADD_EVENT.of_type(state)


@_FIND_CELL.when(SeparableMap)
def _separable_cell(table: Any, y: Any, x: Any) -> Any:
    return max(np.int64(table.columns[np.uint64(x)]) + np.int64(table.rows[np.uint64(y)]), 0)


@_FIND_CELL.when(FullMap)
def _full_cell(table: Any, y: Any, x: Any) -> Any:
    return np.int64(table.cells[np.uint64(np.int64(y) * np.int64(table.width) + np.int64(x))])


@_FIND_CELL.when(IdentityMap)
def _own_cell(table: Any, y: Any, x: Any) -> Any:
    return np.int64(y) * np.int64(table.width) + np.int64(x) + 1
