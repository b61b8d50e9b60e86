"""How far an export is from its model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from networks import tiny_config
from velora_export.evaluation.parity import measure_parity, normalise
from velora_export.evaluation.sessions import Clips, random_clips

if TYPE_CHECKING:
    from conftest import Exported

CLIPS = random_clips(tiny_config(), count=3, seed=5)


def test_images_are_normalised_by_channel() -> None:
    config = tiny_config(mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 0.25))
    image = np.full((1, 2, 2, 3), 255, np.uint8)
    assert normalise(image, config)[0, :, 1, 1].tolist() == [1.0, 1.0, 0.0]
    assert torch.equal(normalise(image * 0, config)[0, :, 0, 0], torch.tensor([0.0, -1.0, -4.0]))


def _told(exported: Exported) -> np.ndarray:
    flags = {name: np.ones((3, 4), np.float32) for name in ("rgb_present", "event_present")}
    return exported.sessions.run("clip", {"rgb": CLIPS.rgb, "event": CLIPS.event, **flags}).argmax(1)


def test_accuracy_is_the_share_of_labels_told_by_each_side(exported: Exported) -> None:
    labels = _told(exported).astype(np.int64)
    labels[0] = (labels[0] + 1) % 3
    clips = Clips(CLIPS.rgb, CLIPS.event, "three", labels=labels)
    parity = measure_parity(exported.model, exported.model, exported.sessions, clips)
    assert parity.accuracy is not None
    assert (parity.accuracy.clips, parity.accuracy.torch, parity.accuracy.exported) == (3, 2 / 3, 2 / 3)
    assert (parity.source, parity.clips, parity.top1_agreement, parity.merged) == ("three", 3, 1.0, 0.0)
    assert 0 < parity.onnx < 1e-4
    assert 0 < parity.streaming < 1e-4


def test_a_graph_that_is_not_the_model_is_far_away(exported: Exported) -> None:
    other = {name: value + 0.1 for name, value in exported.model.state_dict().items()}
    import copy

    spoilt = copy.deepcopy(exported.model)
    spoilt.load_state_dict(other)
    parity = measure_parity(spoilt, exported.model, exported.sessions, CLIPS.first(1))
    assert parity.onnx > 1e-2
    assert parity.merged > 1e-2
    assert parity.streaming < 1e-4


def test_a_camera_that_never_was_there_counts_as_absent(exported: Exported) -> None:
    clips = Clips(CLIPS.rgb, np.zeros_like(CLIPS.event), "one camera", ("rgb",))
    assert {name: flag.tolist() for name, flag in clips.flags().items()} == {
        "rgb_present": [[1.0] * 4],
        "event_present": [[0.0] * 4],
    }
    parity = measure_parity(exported.model, exported.model, exported.sessions, clips)
    assert max(parity.onnx, parity.streaming) < 1e-4
    noisy = Clips(CLIPS.rgb, CLIPS.event, "one camera", ("rgb",))
    again = measure_parity(exported.model, exported.model, exported.sessions, noisy)
    assert again.largest == parity.largest  # what an absent camera's images hold does not matter
