"""Fixtures that more than one folder of tests uses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def _shared(name: str) -> Path:
    root = Path(os.environ.get("VELORA_SHARED", Path(__file__).parents[2] / "shared"))
    if not (root / name).is_dir():
        pytest.skip(f"needs the real recordings in {root / name} (set VELORA_SHARED)")
    return root / name


@pytest.fixture(scope="session")
def shared_events() -> Path:
    """Folder of real event recordings."""
    return _shared("data/events")


@pytest.fixture(scope="session")
def shared_nmnist() -> Path:
    """Folder of the N-MNIST subset."""
    return _shared("data/nmnist")


@pytest.fixture(scope="session")
def shared_objects() -> Path:
    """Folder of recordings of objects before a DVS128."""
    return _shared("data/dvs128_objects")


@pytest.fixture(scope="session")
def shared_golden() -> Path:
    """Folder of the published network's reference tensors."""
    return _shared("golden/velora_tiny_seed11")
