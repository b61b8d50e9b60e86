from __future__ import annotations

from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic import BaseModel
from toy_runs import toy_config

from velora_edge.config import commented_yaml, load_config, read_meanings, read_yaml
from velora_edge.errors import ConfigError
from velora_edge.train.settings import PretrainConfig, TrainConfig, same_run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from velora_edge.config import Section

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_configuration_opens_with_the_commands_that_run_it(path: Path, tmp_path: Path) -> None:
    first = takewhile(lambda line: line.startswith("# velora "), path.read_text().splitlines())
    words = list(first)[-1].split()
    assert words[2] in ("train", "pretrain")
    assert words[3] == f"configs/{path.name}"
    schema: type[Section] = TrainConfig if words[2] == "train" else PretrainConfig
    weights = tmp_path / "tower.safetensors"
    weights.touch()
    here = ["model.backbone.pretrained=false", f"model.backbone.weights={weights}"]
    here = [] if words[2] == "pretrain" else here
    load_config(path, schema, [*words[4:], f"data.path={tmp_path}", *here])


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
        "model.backbone.weights: no such file: missing.safetensors; velora weights or pretrain makes one",
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


def undocumented(config: BaseModel, prefix: str = "") -> Iterator[str]:
    meanings = read_meanings(type(config))
    for name in type(config).model_fields:
        if name not in meanings:
            yield prefix + name
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            yield from undocumented(value, f"{prefix}{name}.")


RUN = {"run": {"name": "x"}, "data": {"path": "synthetic"}}
TOWER = {"tower": {"name": "vit_tiny_patch16_224", "image_size": [64, 64]}}


@pytest.mark.parametrize(("schema", "tree"), [(TrainConfig, RUN), (PretrainConfig, RUN | TOWER)])
def test_every_key_of_a_configuration_says_what_it_means(
    schema: type[Section], tree: dict[str, object]
) -> None:
    assert list(undocumented(schema.model_validate(tree))) == []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_configuration_printed_with_all_its_keys_is_the_same(path: Path, tmp_path: Path) -> None:
    schema: type[Section] = PretrainConfig if "tower" in read_yaml(path) else TrainConfig
    config = load_config(path, schema, is_used=False)
    (tmp_path / "all.yaml").write_text(commented_yaml(config))
    assert load_config(tmp_path / "all.yaml", schema, is_used=False) == config
