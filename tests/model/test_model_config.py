"""The network's configuration: what it refuses, and that it travels as JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from networks import tiny_config

from velora_edge.config import build_config
from velora_edge.errors import ConfigError
from velora_edge.model.config import LoRA, ModelConfig, default_heads


def test_a_configuration_survives_json() -> None:
    config = tiny_config(lora=LoRA(rank=8, alpha=16, targets=r"blocks\.[01]\.mlp\.fc1"), tuning="full")
    assert ModelConfig.model_validate_json(config.model_dump_json()) == config
    assert build_config(json.loads(config.model_dump_json()), ModelConfig) == config


def test_all_problems_come_at_once_each_with_its_key() -> None:
    data: dict[str, Any] = {
        "labels": ["wave", "wave"],
        "clip_length": 1,
        "lora": {"rank": 0, "targets": "blocks.(", "ranks": 3},
        "tunning": "lora",
    }
    with pytest.raises(ConfigError) as caught:
        build_config(data, ModelConfig, path="run.yaml")
    keys = [problem.split(":")[0] for problem in caught.value.problems]
    assert keys == ["labels", "clip_length", "lora.rank", "lora.targets", "lora.ranks", "tunning"]
    assert str(caught.value).startswith("run.yaml: ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"std": (0.5, 0.0, 0.5)}, "std: .*above 0"),
        ({"backbone": {"pretrained": True, "weights": "a.pth"}}, "pretrained or weights, not both"),
        ({"compat": "reference", "tuning": "linear"}, "tuning cannot be linear"),
        ({"labels": []}, "labels: "),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_config({"labels": ["wave"], **changes}, ModelConfig)


@pytest.mark.parametrize(("width", "heads"), [(64, 4), (192, 4), (384, 6), (768, 12), (1024, 16)])
def test_published_heads_have_64_channels_but_are_4_at_least(width: int, heads: int) -> None:
    assert default_heads(width) == heads


def test_one_number_is_the_side_of_a_square_image() -> None:
    assert build_config({"labels": ["wave"], "image_size": 64}, ModelConfig).image_size == (64, 64)
    assert build_config({"labels": ["wave"], "image_size": [48, 64]}, ModelConfig).image_size == (48, 64)
    with pytest.raises(ConfigError, match=r"image_size: expected a valid tuple, got 64\.5"):
        build_config({"labels": ["wave"], "image_size": 64.5}, ModelConfig)
