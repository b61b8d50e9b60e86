"""Today's towers as bundles: graphs and streaming give the model's own logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from todays_towers import TOWERS, todays_model
from velora_export.bundle_export import export_bundle

if TYPE_CHECKING:
    from pathlib import Path

torch.set_num_threads(2)

TOLERANCE = 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(TOWERS))
def test_a_bundle_of_the_tower_gives_its_logits_at_once_and_image_by_image(name: str, tmp_path: Path) -> None:
    bundle = export_bundle(todays_model(name), tmp_path / "tower.velora", name=name, trained=False)
    report = bundle.manifest.report
    assert report is not None
    assert report.relative is not None
    assert max(report.merged, report.onnx, report.streaming, report.relative) < TOLERANCE
