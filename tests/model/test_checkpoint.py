"""Checkpoints: they come back as they were, and say what is wrong with them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from networks import ARGS, clips, tiny_config, tiny_model
from safetensors.torch import load_file, save_file

import velora_edge
from velora_edge.bundle import EventInput
from velora_edge.errors import BundleError, InputError
from velora_edge.model.checkpoint import Inputs, load_model, read_checkpoint, save_checkpoint
from velora_edge.model.config import Backbone
from velora_edge.model.tower import create_tower
from velora_edge.model.velora import VELoRA, create_model

if TYPE_CHECKING:
    from pathlib import Path

torch.set_num_threads(2)


def _same_state(first: VELoRA, second: VELoRA) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def named_base(tmp_path: Path) -> VELoRA:
    """A model whose towers come from a file of weights."""
    torch.manual_seed(5)
    save_file(create_tower(tiny_config()).vit.state_dict(), tmp_path / "tower.safetensors")
    backbone = Backbone(name="vit_tiny_patch16_224", args=ARGS, weights=str(tmp_path / "tower.safetensors"))
    return tiny_model(backbone=backbone)


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, {"compat": "reference"}, {"tuning": "full"}, {"tuning": "linear"}])
def test_a_model_comes_back_as_it_was_saved(tmp_path: Path, changes: dict[str, Any]) -> None:
    model = tiny_model(**changes)
    if changes.get("tuning") == "full":
        model.tower("event").vit.blocks[0].attn.qkv.weight.normal_()
        model.head.shared.attn.proj.weight.normal_()
    save_checkpoint(model, tmp_path / "best", include_base=True)
    loaded = velora_edge.load_model(tmp_path / "best")
    assert loaded.config == model.config
    assert not loaded.training
    assert _same_state(loaded, model)
    assert torch.equal(loaded(*clips()), model(*clips()))


def test_what_a_checkpoint_says_of_itself_comes_back(tmp_path: Path) -> None:
    inputs = Inputs(event=EventInput(window_us=10_000, fit="letterbox"), stride=3)
    saved = save_checkpoint(
        tiny_model(),
        tmp_path / "best",
        include_base=True,
        trained=False,
        inputs=inputs,
        run={"name": "poker", "seed": 3},
        accuracy={"top1": 0.58},
    )
    assert read_checkpoint(tmp_path / "best") == saved
    assert (saved.inputs, saved.trained, saved.run["seed"]) == (inputs, False, 3)


def test_copies_of_the_base_are_stored_once(tmp_path: Path) -> None:
    save_checkpoint(tiny_model(), tmp_path / "best", include_base=True)
    stored = load_file(tmp_path / "best" / "base.safetensors")
    assert all(name.startswith("towers.rgb.") for name in stored)
    tuned = load_file(tmp_path / "best" / "tuned.safetensors")
    assert all("lora_" in name or name.startswith("head.") for name in tuned)


def test_a_named_base_is_not_copied_and_is_made_again(named_base: VELoRA, tmp_path: Path) -> None:
    save_checkpoint(named_base, tmp_path / "best", include_base=False)
    assert sorted(file.name for file in (tmp_path / "best").iterdir()) == [
        "checkpoint.json",
        "tuned.safetensors",
    ]
    assert _same_state(load_model(tmp_path / "best"), named_base)


def test_a_stored_base_needs_its_source_no_more(named_base: VELoRA, tmp_path: Path) -> None:
    save_checkpoint(named_base, tmp_path / "best", include_base=True)
    (tmp_path / "tower.safetensors").unlink()
    loaded = load_model(tmp_path / "best")
    assert _same_state(loaded, named_base)
    assert loaded.config == named_base.config


def test_another_base_than_the_one_trained_on_is_refused(named_base: VELoRA, tmp_path: Path) -> None:
    save_checkpoint(named_base, tmp_path / "best", include_base=False)
    torch.manual_seed(6)
    save_file(create_tower(tiny_config()).vit.state_dict(), tmp_path / "tower.safetensors")
    with pytest.raises(BundleError, match=r"tower\.safetensors: expected a base with SHA-256"):
        load_model(tmp_path / "best")


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_a_base_that_nothing_names_must_be_stored(tmp_path: Path, tuning: str) -> None:
    with pytest.raises(InputError, match="save it with include_base"):
        save_checkpoint(tiny_model(tuning=tuning), tmp_path / "best", include_base=False)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_is_replaced_whole(tmp_path: Path) -> None:
    save_checkpoint(tiny_model(seed=1), tmp_path / "last", include_base=True)
    newer = tiny_model(seed=2)
    save_checkpoint(newer, tmp_path / "last", include_base=True)
    assert [file.name for file in tmp_path.iterdir()] == ["last"]
    assert _same_state(load_model(tmp_path / "last"), newer)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="exists and is not a checkpoint"):
        save_checkpoint(tiny_model(), tmp_path / "home", include_base=True)
    assert [file.name for file in (tmp_path / "home").iterdir()] == ["letter.txt"]


def test_a_failure_while_saving_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tiny_model(seed=1)
    save_checkpoint(old, tmp_path / "last", include_base=True)

    def full_disk(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("velora_edge.model.checkpoint.save_file", full_disk)
    with pytest.raises(OSError, match="no space left"):
        save_checkpoint(tiny_model(seed=2), tmp_path / "last", include_base=True)
    assert [file.name for file in tmp_path.iterdir()] == ["last"]
    assert _same_state(load_model(tmp_path / "last"), old)


def _damage(folder: Path, kind: str) -> None:
    tuned = folder / "tuned.safetensors"
    description = json.loads((folder / "checkpoint.json").read_text())
    if kind == "cut":
        tuned.write_bytes(tuned.read_bytes()[:1000])
    elif kind == "missing":
        (folder / "base.safetensors").unlink()
    elif kind == "fewer":
        state = load_file(tuned)
        state.pop("head.classifier.bias")
        save_file(state, tuned)
    elif kind == "shape":
        save_file({**load_file(tuned), "head.classifier.bias": torch.zeros(9)}, tuned)
    elif kind == "base":
        state = load_file(folder / "base.safetensors")
        state["towers.rgb.vit.norm.weight"][0] += 1
        save_file(state, folder / "base.safetensors")
    elif kind == "key":
        (folder / "checkpoint.json").write_text(json.dumps({**description, "colour": "red"}))
    elif kind == "newer":
        (folder / "checkpoint.json").write_text(json.dumps({**description, "schema_version": 9}))
    elif kind == "text":
        (folder / "checkpoint.json").write_text("hello")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("cut", r"tuned\.safetensors: cannot be read"),
        ("missing", r"base\.safetensors: the file is missing"),
        ("fewer", r"tuned\.safetensors: of another model: lacks head\.classifier\.bias"),
        ("shape", r"head\.classifier\.bias is \(9,\), not \(3,\)"),
        ("base", r"base\.safetensors: expected a base with SHA-256"),
        ("key", r"checkpoint\.json: colour: "),
        ("newer", r"checkpoint\.json: schema version 9 is newer"),
        ("text", r"checkpoint\.json: "),
    ],
)
def test_damage_is_told_with_the_file_it_is_in(tmp_path: Path, kind: str, message: str) -> None:
    folder = tmp_path / "best"
    save_checkpoint(tiny_model(), folder, include_base=True)
    _damage(folder, kind)
    with pytest.raises(BundleError, match=message) as caught:
        load_model(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_checkpoint_is_told_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "published.pth").write_bytes(b"x")
    (tmp_path / "demo.velora").mkdir()
    (tmp_path / "demo.velora" / "manifest.json").write_text("{}")
    for name, message in (
        ("nothing", "no such checkpoint"),
        ("published.pth", "velora import-checkpoint"),
        ("demo.velora", "it is a bundle"),
        (".", r"it holds no checkpoint\.json"),
    ):
        with pytest.raises(BundleError, match=message):
            load_model(tmp_path / name)


def test_a_new_model_is_not_drawn_into_a_loaded_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    first = create_model(tiny_config())
    save_checkpoint(first, tmp_path / "best", include_base=True)
    torch.manual_seed(99)
    assert _same_state(load_model(tmp_path / "best"), first)
