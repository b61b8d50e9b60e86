"""Bundles of models that compute active patches alone."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest
from networks import SHALLOW, tiny_model
from velora_export.bundle_export import Target, export_bundle, manifest_metadata
from velora_export.evaluation.parity import measure_parity
from velora_export.evaluation.sessions import Sessions, random_clips
from velora_export.precision.calibration import calibrate
from velora_export.precision.precisions import FORMATS, convert
from velora_export.triton import write_repository

from velora_edge.events.accumulate.active_patches import PatchFinder, list_lengths, list_patches
from velora_edge.manifest import ActivePatches
from velora_edge.model.checkpoint import load_model, save_checkpoint

if TYPE_CHECKING:
    from velora_export.evaluation.sessions import Clips

    from velora_edge.bundle import Bundle
    from velora_edge.manifest import Precision
    from velora_edge.model.velora import VELoRA

CLIENT = Path(__file__).parents[2] / "export" / "triton_client.py"
BLANK = (12, 200, 40)


@pytest.fixture(scope="module")
def model() -> VELoRA:
    return tiny_model(active_patches=True, blank=BLANK, backbone=SHALLOW)


@pytest.fixture(scope="module")
def clips(model: VELoRA) -> Clips:
    """Noise: a clip with events everywhere, and clips where some images have them in one half, or nowhere."""
    noise = random_clips(model.config)
    event = noise.event.copy()
    event[1, :, :16], event[2, 1:], event[3] = BLANK, BLANK, BLANK
    return replace(noise, event=event)


@pytest.fixture(scope="module")
def bundle(model: VELoRA, clips: Clips, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path = tmp_path_factory.mktemp("models") / "active.velora"
    return export_bundle(model, path, name="active", trained=True, target=Target(judged=clips))


def test_the_manifest_says_which_patches_are_computed(bundle: Bundle) -> None:
    assert bundle.manifest.active_patches == ActivePatches(grid=(4, 4), blank=BLANK)
    assert bundle.manifest.weights.architecture.endswith("active patches alone")


def test_clip_graph_and_streaming_graphs_agree_with_the_model(bundle: Bundle) -> None:
    report = bundle.manifest.report
    assert report is not None
    assert report.onnx < 1e-4
    assert report.streaming < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "allowed"), [("fp16", 1e-3), ("bf16", 1e-3), ("int8", 1e-3), ("fp8", 5e-3)]
)
def test_streaming_agrees_with_the_clip_graph_in_every_precision(
    model: VELoRA, bundle: Bundle, clips: Clips, tmp_path: Path, precision: Precision, allowed: float
) -> None:
    """To what rounding differs by: the clip graph projects patches by a convolution."""
    ranges = calibrate(bundle.path, clips, "max").thresholds if precision in FORMATS else None
    convert(bundle.path, tmp_path, precision, manifest_metadata(bundle.manifest), thresholds=ranges)
    parity = measure_parity(model, model, Sessions(tmp_path, threads=2), clips)
    assert parity.streaming < allowed
    assert parity.top1_agreement == 1


def test_a_checkpoint_keeps_them(model: VELoRA, tmp_path: Path) -> None:
    save_checkpoint(model, tmp_path / "best", include_base=True)
    config = load_model(tmp_path / "best").config
    assert (config.active_patches, config.blank) == (True, BLANK)


def test_graphs_say_what_is_still(bundle: Bundle) -> None:
    finder = Sessions(bundle.path).finder
    assert finder is not None
    image = np.full((32, 32, 3), BLANK, np.uint8)
    assert list_patches(finder.find(image)).tolist() == []
    image[8, 31, 2] += 1
    assert list_patches(finder.find(image)).tolist() == [7]


def test_lengths_of_lists_end_with_all_patches() -> None:
    assert list_lengths(196) == (32, 64, 96, 128, 196)
    assert list_lengths(256) == (40, 80, 120, 160, 256)
    assert list_lengths(4) == (4,)


def test_triton_s_models_take_lists_of_any_length(bundle: Bundle, tmp_path: Path) -> None:
    write_repository(bundle, tmp_path / "models")
    config = (tmp_path / "models" / "active_diff" / "config.pbtxt").read_text()
    assert 'name: "patches"\n    data_type: TYPE_INT64\n    dims: [ -1 ]' in config


def test_triton_s_client_lists_the_same_patches(bundle: Bundle) -> None:
    spec = importlib.util.spec_from_file_location("triton_client", CLIENT)
    assert spec is not None
    assert spec.loader is not None
    client = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(client)
    form = bundle.manifest.active_patches
    assert form is not None
    finder = PatchFinder(form, bundle.manifest.image_size)
    images = np.full((2, 32, 32, 3), BLANK, np.uint8)
    images[0, 3, 3], images[1, 20:, 9:20] = 0, 1
    stream = client.Stream(None, "active", 4, form.model_dump())
    either = finder.find(images[0]) | finder.find(images[1])
    assert stream._patches(*images)["patches"].tolist() == [list_patches(either).tolist()]


def test_inputs_are_in_the_graphs_alone_that_take_a_list(bundle: Bundle) -> None:
    inputs = {
        name: [value.name for value in ir.load(bundle.graph(name)).graph.inputs]
        for name in ("rgb", "event", "diff")
    }
    assert inputs["rgb"] == ["image"]
    assert inputs["event"] == ["image", "patches"]
    assert inputs["diff"] == ["rgb", "rgb_before", "event", "event_before", "patches"]
