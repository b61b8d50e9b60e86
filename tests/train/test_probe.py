"""Features of frozen towers, kept on disk: the same as through the towers, and never stale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from toy_runs import toy_tree, write_clips

from velora_edge.errors import ConfigError
from velora_edge.model.checkpoint import load_model
from velora_edge.model.head import Streams
from velora_edge.model.velora import VELoRA, create_model
from velora_edge.train.batches import ClipDataset, load, training_variety
from velora_edge.train.loop import blank_colour
from velora_edge.train.objective import Objective
from velora_edge.train.probe import FEATURES, features_key, read_features
from velora_edge.train.session import model_config, open_data, train
from velora_edge.train.settings import TrainConfig

if TYPE_CHECKING:
    from pathlib import Path

    from velora_edge.data.clips.clips import ClipSource


def _config(folder: Path, data: Path, **train: Any) -> TrainConfig:
    tree = toy_tree(folder, data, **{"cache_views": 3, **train})
    tree["model"]["tuning"] = "linear"
    return TrainConfig.model_validate(tree)


def _parts(config: TrainConfig) -> tuple[ClipSource, VELoRA, ClipDataset]:
    source = open_data(config)
    torch.manual_seed(0)
    model = create_model(model_config(config, source)).eval()
    return source, model, ClipDataset(source, training_variety(config.train, config.data.augment))


@torch.no_grad()
def test_a_probe_tells_the_same_by_features_as_by_images(tmp_path: Path, toy_clips: Path) -> None:
    config = _config(tmp_path, toy_clips, drop_rgb=0.3, drop_event=0.3)
    _, model, varied = _parts(config)
    members = np.array([3, 0, 7, 5, 11, 20], np.int64)
    features, is_kept = read_features(model, varied, members, 3, config)
    assert not is_kept
    assert features.values.shape == (3, 6, 3, 32)
    for view in range(3):
        (batch,) = load(varied, [[(view, int(index)) for index in members]], 0)
        wanted = Objective(model).logits(batch)
        given = model.decide_pooled(
            Streams(*features.values[view].unbind(1)), Streams(*features.present[view].unbind(1))
        )
        torch.testing.assert_close(given, wanted, atol=1e-5, rtol=1e-5)
    assert not features.present.all()


def test_features_are_computed_once(tmp_path: Path, toy_clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = _config(tmp_path, toy_clips)
    lines: list[str] = []
    first = train(config, say=lines.append)
    assert any(line.endswith("in 3 variations, computed and kept") for line in lines)
    monkeypatch.setattr(VELoRA, "encode", None)
    second = train(config, overwrite=True, say=lines.append)
    assert any(line.endswith("in 3 variations, read from disk") for line in lines)
    assert first.best == second.best


def test_a_probe_on_features_learns_and_its_checkpoint_tells_it(tmp_path: Path, toy_clips: Path) -> None:
    outcome = train(_config(tmp_path, toy_clips, epochs=60, lr=0.03, ema=0, drop_rgb=0, drop_event=0))
    assert outcome.best["top1"] == 1.0
    model = load_model(outcome.folder / "best")
    assert model.config.tuning == "linear"
    assert (model.head.classifier.weight.abs() > 0).any()


def _change(config: TrainConfig, part: str, **values: Any) -> TrainConfig:
    return config.model_copy(update={part: getattr(config, part).model_copy(update=values)})


@pytest.mark.parametrize("change", ["weights", "data", "window", "augment", "members", "views", "seed"])
def test_features_of_anything_else_have_another_key(change: str, tmp_path: Path) -> None:
    config = _config(tmp_path, write_clips(tmp_path / "clips.h5"))
    source, model, varied = _parts(config)
    members, views = np.arange(4), 3
    before = features_key(model, varied, members, views, config)
    assert features_key(*_parts(config)[1:], members, views, config) == before
    if change == "weights":
        model.tower("event").vit.pos_embed.data.add_(1e-3)
    elif change == "data":
        write_clips(tmp_path / "clips.h5")
    elif change == "window":
        event = config.clip.event.model_copy(update={"window_us": 1})
        config = _change(config, "clip", event=event)
    elif change == "augment":
        augment = config.data.augment.model_copy(update={"shift": 0.2})
        varied = ClipDataset(source, training_variety(config.train, augment))
    elif change == "seed":
        varied = ClipDataset(
            source, training_variety(_change(config, "train", seed=1).train, config.data.augment)
        )
    members, views = (members[:3] if change == "members" else members), (2 if change == "views" else views)
    assert features_key(model, varied, members, views, config) != before


@pytest.mark.parametrize("content", [b"not safetensors", None])
def test_a_damaged_or_renamed_file_is_computed_anew(
    content: bytes | None, tmp_path: Path, toy_clips: Path
) -> None:
    config = _config(tmp_path, toy_clips)
    _, model, varied = _parts(config)
    members = np.arange(4)
    wanted, _ = read_features(model, varied, members, 2, config)
    (file,) = (tmp_path / FEATURES).iterdir()
    if content is not None:
        file.write_bytes(content)
    else:
        read_features(model, varied, members[:2], 2, config)
        (other,) = set((tmp_path / FEATURES).iterdir()) - {file}
        file.write_bytes(other.read_bytes())
    again, is_kept = read_features(model, varied, members, 2, config)
    assert not is_kept
    torch.testing.assert_close(again.values, wanted.values)


def test_features_are_for_frozen_towers_alone(tmp_path: Path, toy_clips: Path) -> None:
    config = TrainConfig.model_validate(toy_tree(tmp_path, toy_clips, cache_views=1))
    assert config.problems() == ["train.cache_views: towers must be frozen, and model.tuning lora tunes them"]


def test_a_set_in_many_files_is_to_be_packed_first(tmp_path: Path, toy_clips: Path) -> None:
    config = _config(tmp_path, toy_clips)
    source, model, varied = _parts(config)
    source.path = tmp_path
    with pytest.raises(ConfigError, match=r"train\.cache_views: features are kept of a set in one file"):
        features_key(model, varied, np.arange(2), 1, config)


@pytest.mark.parametrize(
    ("changes", "mean", "said_by"),
    [
        ({}, (0.5, 0.5, 0.5), "default"),
        ({"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}, (0.1, 0.2, 0.3), "given"),
        (
            {"backbone": {"name": "vit_small_patch14_dinov2.lvd142m", "weights": "x.pth"}},
            (0.485, 0.456, 0.406),
            "timm",
        ),
    ],
)
def test_mean_and_std_are_given_or_the_weights_own_or_the_default(
    changes: dict[str, Any], mean: Any, said_by: str, tmp_path: Path, toy_clips: Path
) -> None:
    tree = toy_tree(tmp_path, toy_clips)
    tree["model"] |= changes
    config = TrainConfig.model_validate(tree)
    found = model_config(config, open_data(config))
    assert (found.mean, found.normalised) == (mean, said_by)


def test_a_mean_without_its_std_is_told(tmp_path: Path, toy_clips: Path) -> None:
    tree = toy_tree(tmp_path, toy_clips)
    tree["model"]["mean"] = [0.1, 0.2, 0.3]
    assert TrainConfig.model_validate(tree).problems() == [
        "model.mean: give it together with std, or neither"
    ]


def test_active_patches_are_found_by_the_blank_colour_of_the_data_s_representation(
    tmp_path: Path, toy_clips: Path
) -> None:
    tree = toy_tree(tmp_path, toy_clips)
    source = open_data(TrainConfig.model_validate(tree))
    tree["model"]["active_patches"] = True
    found = model_config(TrainConfig.model_validate(tree), source)
    assert (found.active_patches, found.blank) == (True, blank_colour(source))
