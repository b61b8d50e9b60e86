"""What every walk over events calls for each one: where it falls on the frame, and what it does there.

All of these are chosen by type (see `_dispatch`): by the registration map's form and by the state of the
frame's representation. A walk finds the row of an event once, with `find_row`, and its cell with `find_cell`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from velora_edge.events._dispatch import Switch, overload


class SeparableMap(NamedTuple):
    """cell = columns[x] + rows[y]; both tables hold a number below -2**29 where nothing is to fall."""

    columns: Any
    rows: Any


class FullMap(NamedTuple):
    """cell = cells[y * width + x]."""

    cells: Any
    width: int


_FIND_ROW, _FIND_CELL, ADD_EVENT = Switch(), Switch(), Switch()


def find_row(table: Any, y: Any) -> Any:
    """What `find_cell` needs to know of the sensor's row `y`, which is inside the sensor."""
    return int(_FIND_ROW.of(table)(table, y))


def find_cell(table: Any, row: Any, x: Any) -> Any:
    """Flat index of the model's pixel for column `x`, inside the sensor, of that row; negative for none."""
    return int(_FIND_CELL.of(table)(table, row, x))


def add_event(state: Any, cell: Any, t_us: Any, p: Any) -> None:
    """Add an event, of polarity 0 or 1, to the frame's state at a flat index inside the frame."""
    ADD_EVENT.of(state)(state, cell, t_us, p)


@overload(find_row)
def _find_row(table: Any, y: Any) -> Any:
    return _FIND_ROW.of_type(table)


@overload(find_cell)
def _find_cell(table: Any, row: Any, x: Any) -> Any:
    return _FIND_CELL.of_type(table)


@overload(add_event)
def _add_event(state: Any, cell: Any, t_us: Any, p: Any) -> Any:
    return ADD_EVENT.of_type(state)


@_FIND_ROW.when(SeparableMap)
def _separable_row(table: Any, y: Any) -> Any:
    return np.int64(table.rows[np.uint64(y)])


@_FIND_CELL.when(SeparableMap)
def _separable_cell(table: Any, row: Any, x: Any) -> Any:
    return row + np.int64(table.columns[np.uint64(x)])


@_FIND_ROW.when(FullMap)
def _full_row(table: Any, y: Any) -> Any:
    return np.int64(y) * np.int64(table.width)


@_FIND_CELL.when(FullMap)
def _full_cell(table: Any, row: Any, x: Any) -> Any:
    return np.int64(table.cells[np.uint64(row + x)])
