from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from toy_runs import toy_config

from velora_edge.config import load_config
from velora_edge.errors import ConfigError
from velora_edge.train.settings import PretrainConfig, TrainConfig, same_run

if TYPE_CHECKING:
    from velora_edge.config import Section

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_configuration_opens_with_the_command_that_runs_it(path: Path, tmp_path: Path) -> None:
    words = path.read_text().splitlines()[0].split()
    assert words[:2] == ["#", "velora"]
    assert words[2] in ("train", "pretrain")
    assert words[3] == f"configs/{path.name}"
    schema: type[Section] = TrainConfig if words[2] == "train" else PretrainConfig
    weights = tmp_path / "tower.safetensors"
    weights.touch()
    here = [] if words[2] == "pretrain" else [f"model.backbone.weights={weights}"]
    given = [word if not word.startswith("data.path=") else f"data.path={tmp_path}" for word in words[4:]]
    load_config(path, schema, [*given, *here])


def test_three_mistakes_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "run: {name: x}\ndata: {path: nowhere}\nmodel: {backbone: {nme: vit}}\ntrain: {epochs: 0}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "c.yaml", TrainConfig)
    assert caught.value.problems == (
        "model.backbone.nme: unknown key, did you mean name?",
        "train.epochs: expected greater than or equal to 1, got 0",
        "data.path: no such file or folder: nowhere; set data.path=..., or data.path=synthetic",
    )


def test_values_that_do_not_go_together_are_told(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "run: {name: x}\ndata: {path: synthetic, split: {val: 0.6, test: 0.6}}\n"
        "model: {backbone: {weights: missing.safetensors}}\n"
        "train: {drop_rgb: 0.6, drop_event: 0.6, batch_size: 5, accumulate: 2}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "c.yaml", TrainConfig)
    assert caught.value.problems == (
        "model.backbone.weights: no such file: missing.safetensors; velora pretrain makes one",
        "data.split.val: together with test must leave something to train on",
        "train.drop_rgb: together with drop_event must not exceed 1",
        "train.accumulate: must divide batch_size (5), got 2",
    )


def test_a_run_is_the_same_whatever_its_place_and_its_workers(tmp_path: Path) -> None:
    first = toy_config(tmp_path / "a", tmp_path / "x.h5")
    second = first.model_copy(
        update={
            "run": first.run.model_copy(update={"folder": "elsewhere"}),
            "data": first.data.model_copy(update={"path": "moved.h5", "workers": 4}),
        }
    )
    assert same_run(first, second) == []


def test_a_run_with_another_seed_or_another_event_window_is_another_run(tmp_path: Path) -> None:
    first = toy_config(tmp_path, tmp_path / "x.h5")
    clip = first.clip.model_copy(update={"event": first.clip.event.model_copy(update={"window_us": 5})})
    second = first.model_copy(update={"clip": clip, "train": first.train.model_copy(update={"seed": 3})})
    assert same_run(first, second) == ["clip.event.window_us", "train.seed"]
