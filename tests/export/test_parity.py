"""What an export may differ by, and what it says when it does."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from networks import tiny_config
from velora_export.parity import Parity, check_parity, normalise, random_clips

from velora_edge.errors import EngineError


def _parity(**changes: float) -> Parity:
    figures = {"merged": 1e-6, "onnx": 2e-6, "streaming": 3e-6, "top1_agreement": 1.0, "tolerance": 1e-4}
    return Parity("random, seed 0", 4, **{**figures, **changes})


def test_small_differences_pass() -> None:
    check_parity(_parity(onnx=9.9e-5))


@pytest.mark.parametrize("which", ["merged", "onnx", "streaming"])
@pytest.mark.parametrize("value", [1.1e-4, math.inf, math.nan])
def test_large_differences_and_nan_are_refused(which: str, value: float) -> None:
    with pytest.raises(EngineError, match=f"{which} logits are .* away on 4 clips .random, seed 0., allowed"):
        check_parity(_parity(**{which: value}))


def test_figures_are_rounded_for_the_manifest() -> None:
    assert _parity(onnx=1.23456e-6).as_dict() == {
        "source": "random, seed 0",
        "clips": 4,
        "merged": 1e-6,
        "onnx": 1.23e-6,
        "streaming": 3e-6,
        "top1_agreement": 1.0,
        "tolerance": 1e-4,
    }


def test_random_clips_are_of_the_model_s_size_and_come_back() -> None:
    config = tiny_config(image_size=(30, 42))
    clips = random_clips(config, count=2, seed=5)
    assert clips.rgb.shape == clips.event.shape == (2, 4, 30, 42, 3)
    assert clips.rgb.dtype == np.uint8
    np.testing.assert_array_equal(clips.event, random_clips(config, count=2, seed=5).event)
    assert not np.array_equal(clips.rgb[0, 0], clips.rgb[0, 1])
    assert not np.array_equal(clips.rgb, clips.event)


def test_images_are_normalised_by_channel() -> None:
    config = tiny_config(mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 0.25))
    image = np.full((1, 2, 2, 3), 255, np.uint8)
    assert normalise(image, config)[0, :, 1, 1].tolist() == [1.0, 1.0, 0.0]
    assert torch.equal(normalise(image * 0, config)[0, :, 0, 0], torch.tensor([0.0, -1.0, -4.0]))
