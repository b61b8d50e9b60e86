"""numba's cache of kernels, where a representation of another package has been compiled into them."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

THEIRS = """
from __future__ import annotations
from typing import Any, NamedTuple
import numpy as np
from velora_edge.events.kernels._frame_kernels import ADD_EVENT, FIND_PLACE

class State(NamedTuple):
    sums: Any

@FIND_PLACE.when(State)
def _find(state: Any, cell: Any, p: Any) -> Any:
    return np.int64(cell)

@ADD_EVENT.when(State)
def _add(state: Any, place: Any, t_us: Any, p: Any) -> None:
    state.sums[place] += STEP

class Sums:
    uses_window = False
    def __init__(self, pixels, event_input):
        self.state = State(np.zeros(1 + pixels, np.int32))
    def begin(self, t0_us, t1_us):
        self.state.sums[:] = 0
    def render_into(self, pixels):
        pixels[:] = self.state.sums[1:, None]
"""
RUN = """
import sys
import numpy as np
from velora_edge.bundle import EventInput
from velora_edge.datatypes import EventBatch
from velora_edge.events.accumulate.images import PolarityImage
from velora_edge.events.accumulate.representations import Accumulator, RegistrationMap
from velora_edge.events.chunk_stream import BatchCursor

kind = PolarityImage
if sys.argv[1] == "theirs":
    from theirs import Sums as kind
frame = Accumulator(kind(4, EventInput()), RegistrationMap.identity((2, 2)))
frame.begin(0, 10)
cursor = BatchCursor()
one = np.ones(1, np.uint16)
cursor.load(EventBatch(np.ones(1, np.int64), one, one, np.ones(1, np.uint8)), None)
cursor.accumulate(10, frame)
image = np.zeros((2, 2, 3), np.uint8)
frame.render_into(image)
print(image[1, 1, 0])
"""


def run(folder: Path, *given: str, path: Path | None = None) -> str:
    paths = [str(path)] if path else []
    environment = {
        **os.environ,
        "NUMBA_CACHE_DIR": str(folder / "cache"),
        "PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(
        [sys.executable, "-c", RUN, *given], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def install(folder: Path, step: int) -> Path:
    (folder / "theirs.py").write_text(THEIRS.replace("STEP", str(step)))
    return folder


def test_kernels_work_after_a_package_with_a_representation_was_uninstalled(tmp_path: Path) -> None:
    theirs = install(tmp_path, 7)
    assert run(tmp_path, "theirs", path=theirs) == "7"
    before = run(tmp_path, "ours")
    (theirs / "theirs.py").unlink()
    assert run(tmp_path, "ours") == before


def test_a_newer_version_of_such_a_package_is_what_runs(tmp_path: Path) -> None:
    assert run(tmp_path, "theirs", path=install(tmp_path, 7)) == "7"
    assert run(tmp_path, "theirs", path=install(tmp_path, 9)) == "9"


def test_kernels_of_ours_are_compiled_once(tmp_path: Path) -> None:
    run(tmp_path, "ours")
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").rglob("*.nb?")}
    assert kept
    run(tmp_path, "ours")
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").rglob("*.nb?")} == kept
