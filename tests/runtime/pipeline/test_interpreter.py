"""What a run asks of the interpreter, and that it is itself again afterwards."""

from __future__ import annotations

import gc
import platform
import subprocess
import sys

import pytest
from velora_runtime.pipeline.supervisor import SWITCH_S, realtime_interpreter

IS_GLIBC = platform.libc_ver()[0] == "glibc"


def test_the_interpreter_is_itself_again_after_a_run_that_failed() -> None:
    before_s, frozen = sys.getswitchinterval(), gc.get_freeze_count()
    inside: list[float] = []

    def fail() -> None:
        with realtime_interpreter():
            inside.extend((sys.getswitchinterval(), gc.get_freeze_count()))
            raise RuntimeError("the run")

    with pytest.raises(RuntimeError, match="the run"):
        fail()
    assert inside[0] == pytest.approx(SWITCH_S)
    assert inside[1] > frozen
    assert sys.getswitchinterval() == pytest.approx(before_s)
    assert gc.get_freeze_count() == 0


HEAP = """
import re
from pathlib import Path
import numpy as np
from velora_runtime.pipeline.supervisor import give_back_memory

def resident_mb():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

large, small = [], []
for _ in range(500):
    large.append(np.ones(100_000, np.uint8))
    small.append(np.ones(2_000, np.uint8))
large.clear()
before_mb = resident_mb()
give_back_memory()
print(before_mb - resident_mb(), sum(int(block.sum()) for block in small))
"""
"""In a process of its own: one that has freed much before puts blocks where there is room."""


@pytest.mark.skipif(not IS_GLIBC, reason="needs glibc, which can be told to give memory back")
def test_what_was_freed_between_blocks_that_live_on_goes_back() -> None:
    done = subprocess.run([sys.executable, "-c", HEAP], capture_output=True, text=True, check=True)
    given_back_mb, kept = map(float, done.stdout.split())
    assert given_back_mb > 25
    assert kept == 1_000_000
