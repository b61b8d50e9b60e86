"""One small exported bundle for all tests here: exporting takes seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import torch
from filelock import FileLock
from networks import SHALLOW, tiny_config, tiny_model
from velora_export.bundle_export import export_bundle
from velora_export.evaluation.sessions import Sessions

from velora_edge.bundle import EventInput, Palette, open_bundle

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from velora_edge.bundle import Bundle
    from velora_edge.model.velora import VELoRA

torch.set_num_threads(2)

EVENT = EventInput(window_us=20_000, palette=Palette(background=(0, 0, 0)))


@pytest.fixture(scope="session", autouse=True)
def short_timing() -> Iterator[None]:
    """Half a second of steps in each export's report, not two or eight: these models take a millisecond."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("STEP_SECONDS", "BESIDE_SECONDS"):
            patch.setattr(f"velora_export.report.{name}", 0.5)
        yield


@dataclass(frozen=True)
class Exported:
    """A model, its bundle, and the bundle's graphs in ONNX Runtime."""

    model: VELoRA
    bundle: Bundle
    sessions: Sessions


def shared_folder(factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A temporary folder that all of pytest's processes see."""
    base = factory.getbasetemp()
    return base if worker_id == "master" else base.parent


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Exported:
    model = tiny_model(backbone=SHALLOW)
    path = shared_folder(tmp_path_factory, worker_id) / "tiny.velora"
    with FileLock(f"{path}.lock"):
        if not path.exists():
            export_bundle(
                model,
                path,
                name="tiny",
                trained=True,
                event=EVENT,
                stride=3,
                run={"name": "test", "seed": 0},
                accuracy={"top1": 0.5},
            )
    assert tiny_config(backbone=SHALLOW) == model.config
    bundle = open_bundle(path)
    return Exported(model, bundle, Sessions(path, threads=2))
