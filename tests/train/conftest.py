"""Clips that the tests of training share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from toy_runs import write_clips

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def toy_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 40 clips by both cameras."""
    return write_clips(tmp_path_factory.mktemp("toy") / "clips.h5")


@pytest.fixture(autouse=True)
def _few_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
