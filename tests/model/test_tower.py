"""Towers: any plain timm ViT, with weights from a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import timm
import torch
from networks import ARGS, tiny_config
from safetensors.torch import save_file

from velora_edge.errors import BundleError, InputError
from velora_edge.model.config import Backbone
from velora_edge.model.tower import Tower, create_tower
from velora_edge.model.weights import check_hub

if TYPE_CHECKING:
    from pathlib import Path

torch.set_num_threads(2)

CLIP = "vit_base_patch16_clip_quickgelu_224.openai"


def _tower(name: str = "vit_tiny_patch16_224", size: int = 32, **changes: Any) -> Tower:
    backbone = Backbone(name=name, **{"args": ARGS, **changes})
    return create_tower(tiny_config(backbone=backbone, image_size=(size, size)))


@torch.no_grad()
def test_all_tokens_come_out_normed() -> None:
    tower = _tower().eval()
    images = torch.rand(2, 3, 32, 32)
    tokens = tower(images)
    assert tokens.shape == (2, 17, 48)
    torch.testing.assert_close(tokens, tower.vit.forward_features(images))
    torch.testing.assert_close(tokens.mean(dim=-1), torch.zeros(2, 17), atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_clip_tower_projects_its_tokens_by_its_own_head() -> None:
    tower = _tower(CLIP).eval()
    assert (tower.width, tower.token_size) == (48, 512)
    images = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(tower(images), tower.vit.head(tower.vit.forward_features(images)))


@pytest.mark.parametrize(
    ("name", "projection", "size"),
    [
        (CLIP, 0, 48),
        (CLIP, 32, 32),
        ("vit_base_patch16_clip_224.openai_ft_in1k", None, 48),
        ("vit_tiny_patch16_224.augreg_in21k", None, 48),
        ("vit_tiny_patch16_224", 16, 16),
    ],
)
def test_a_classifier_is_never_taken_for_a_projection(name: str, projection: int | None, size: int) -> None:
    assert _tower(name, projection=projection).token_size == size


@torch.no_grad()
def test_images_need_not_be_square() -> None:
    tower = create_tower(
        tiny_config(backbone=Backbone(name="vit_tiny_patch16_224", args=ARGS), image_size=(32, 48))
    )
    assert tower.eval()(torch.rand(1, 3, 32, 48)).shape == (1, 1 + 4 * 6, 48)


def test_an_attention_pool_that_nothing_uses_is_left_out() -> None:
    names = dict(_tower(args={**ARGS, "global_pool": "map", "class_token": False}).named_parameters())
    assert not any("attn_pool" in name for name in names)


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ({"name": "vit_tiny_patch61_224"}, "timm has no model vit_tiny_patch61_224"),
        ({"name": "resnet18", "args": {}}, "timm cannot make resnet18|not a plain vision transformer"),
        ({"name": "beit_base_patch16_224"}, "not a plain vision"),
        ({"args": {**ARGS, "patch": 8}}, "timm cannot make vit_tiny_patch16_224.*patch"),
        ({"args": {**ARGS, "num_heads": 5}}, "timm cannot make vit_tiny_patch16_224: dim should be"),
    ],
)
def test_a_backbone_that_cannot_be_had_gives_one_line(backbone: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        _tower(**backbone)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_come_from_a_local_file(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(7)
    source = timm.create_model("vit_tiny_patch16_224", num_classes=10, img_size=32, **ARGS)
    path = tmp_path / f"tower{suffix}"
    state = source.state_dict()
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    loaded = _tower(weights=str(path)).vit.state_dict()
    assert set(loaded) == {name for name in state if not name.startswith("head.")}
    assert all(torch.equal(value, state[name]) for name, value in loaded.items())


@torch.no_grad()
def test_positions_are_resampled_to_another_image_size(tmp_path: Path) -> None:
    small = _tower()
    small.vit.pos_embed.copy_(torch.arange(17.0).view(1, 17, 1).expand(1, 17, 48))
    save_file(small.vit.state_dict(), tmp_path / "tower.safetensors")
    large = _tower(size=64, weights=str(tmp_path / "tower.safetensors"))
    positions = large.vit.pos_embed[0, :, 0]
    assert positions.shape == (65,)
    assert positions[0] == 0
    assert torch.all(positions[1:].view(8, 8).diff(dim=1)[:, 1:-1] > 0)


def _file(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / "weights.safetensors"
    state = _tower().vit.state_dict()
    if kind == "text":
        path.write_text("hello")
    elif kind == "fewer":
        save_file({name: value for name, value in state.items() if name != "norm.weight"}, path)
    elif kind == "more":
        save_file({**state, "blocks.2.norm1.weight": torch.zeros(48)}, path)
    elif kind == "wider":
        save_file(_tower(args={**ARGS, "embed_dim": 96}).vit.state_dict(), path)
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("none", "no such file of weights"),
        ("text", "not a file of weights"),
        ("fewer", "lacks norm.weight"),
        ("more", r"has an unknown blocks\.2\.norm1\.weight"),
        ("wider", r"proj\.bias is \(96,\), not \(48,\).* and \d+ more"),
    ],
)
def test_a_file_that_does_not_fit_says_what_differs(tmp_path: Path, kind: str, message: str) -> None:
    path = _file(tmp_path, kind)
    with pytest.raises(BundleError, match=message) as caught:
        _tower(weights=str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_published_weights_out_of_reach_say_how_to_give_them_as_a_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class HubError(Exception):
        pass

    def unreachable(*_: object, **__: object) -> None:
        raise HubError("cannot reach the hub\nfor several reasons")

    monkeypatch.setattr("velora_edge.model.tower.check_hub", lambda name: None)
    monkeypatch.setattr("timm.create_model", unreachable)
    with pytest.raises(InputError, match=r"cannot reach the hub; .* local file in backbone\.weights$"):
        _tower(pretrained=True)


def test_without_a_network_published_weights_are_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("timm.create_model", lambda *_, **__: pytest.fail("the hub was asked"))
    message = (
        r"backbone\.pretrained: the weights of vit_tiny_patch16_224 are not in the cache, and "
        r"http://127\.0\.0\.1:9 is out of reach: .*refused; fetch timm/vit_tiny_\S+ where there is a "
        r"network, and give the file in backbone\.weights, in place of pretrained"
    )
    with pytest.raises(InputError, match=message):
        _tower(pretrained=True)


def test_weights_in_the_cache_need_no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub_id = timm.get_pretrained_cfg("vit_tiny_patch16_224").hf_hub_id
    (tmp_path / f"models--{hub_id.replace('/', '--')}" / "snapshots" / "1").mkdir(parents=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    check_hub("vit_tiny_patch16_224")
