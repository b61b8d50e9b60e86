from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file
from toy_runs import SIDE, toy_config, toy_tree

from velora_edge.errors import ConfigError, InputError
from velora_edge.model.checkpoint import load_model
from velora_edge.train.pretrain import pretrain
from velora_edge.train.session import train
from velora_edge.train.settings import PretrainConfig

if TYPE_CHECKING:
    from pathlib import Path


def config(folder: Path, data: Path, **train: Any) -> PretrainConfig:
    backbone = toy_tree(folder, data)["model"]["backbone"]
    tree = {
        "run": {"name": "tower", "folder": str(folder)},
        "data": {"path": str(data)},
        "tower": {**backbone, "image_size": [SIDE, SIDE], "images": 1},
        "train": {"epochs": 3, "batch_size": 7, "lr": 1e-2, "device": "cpu", "ema": 0.8, **train},
    }
    return PretrainConfig.model_validate(tree)


def test_each_camera_learns_its_half_of_the_label(tmp_path: Path, toy_clips: Path) -> None:
    figures = pretrain(config(tmp_path, toy_clips, epochs=25)).figures
    # One camera alone leaves two of four classes: log 2 = 0.69 and half right on average.
    assert figures["rgb_loss"] < 1.1
    assert figures["event_loss"] < 1.1


def test_the_tower_is_what_training_starts_from(tmp_path: Path, toy_clips: Path) -> None:
    tower = pretrain(config(tmp_path, toy_clips))
    facts = json.loads((tmp_path / "tower" / "tower.json").read_text())
    assert facts["backbone"]["name"] == "vit_tiny_patch16_224"
    tree = toy_tree(tmp_path, toy_clips, epochs=1)
    tree["model"]["backbone"]["weights"] = str(tower.weights)
    run = train(type(toy_config(tmp_path, toy_clips)).model_validate(tree)).folder
    weights = load_file(tower.weights)
    for modality in ("rgb", "event", "diff"):
        state = load_model(run / "best").tower(modality).vit.state_dict()
        torch.testing.assert_close(state["patch_embed.proj.weight"], weights["patch_embed.proj.weight"])
        torch.testing.assert_close(
            state["blocks.1.mlp.fc1.base_layer.weight"], weights["blocks.1.mlp.fc1.weight"]
        )


def test_the_same_seed_gives_the_same_tower(tmp_path: Path, toy_clips: Path) -> None:
    towers = [load_file(pretrain(config(tmp_path / name, toy_clips, epochs=1)).weights) for name in "ab"]
    assert all(torch.equal(towers[0][name], towers[1][name]) for name in towers[0])


def test_a_tower_is_not_replaced_unasked(tmp_path: Path, toy_clips: Path) -> None:
    settings = config(tmp_path, toy_clips, epochs=1)
    before = pretrain(settings).weights.read_bytes()
    with pytest.raises(InputError, match="holds a tower already; replace it by --overwrite"):
        pretrain(settings)
    assert pretrain(settings, overwrite=True).weights.read_bytes() == before


def test_a_tower_that_timm_cannot_make_is_named(tmp_path: Path, toy_clips: Path) -> None:
    settings = config(tmp_path, toy_clips)
    wrong = settings.tower.model_copy(update={"args": {"embed_dim": 15, "num_heads": 2}})
    with pytest.raises(ConfigError, match=r"tower\.args: timm cannot make vit_tiny_patch16_224"):
        pretrain(settings.model_copy(update={"tower": wrong}))
