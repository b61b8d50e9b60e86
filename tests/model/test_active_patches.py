"""Active patches: which they are, and that nothing but them is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from networks import ARGS, SIZE, T, clips, tiny_model

from velora_edge.errors import InputError
from velora_edge.events.accumulate.active_patches import NOTHING
from velora_edge.model.active_patches import active_differences, encode_patches, list_patches
from velora_edge.model.config import Backbone

if TYPE_CHECKING:
    from velora_edge.model.velora import VELoRA

torch.set_num_threads(2)
EXACT = {"atol": 1e-5, "rtol": 0}
NO_CLASS_TOKEN = {**ARGS, "class_token": False, "global_pool": "avg"}
WHITE = 1.0
"""Of a white pixel, normalised by a mean and a std of 0.5."""


@pytest.fixture(scope="module")
def model() -> VELoRA:
    return tiny_model(active_patches=True)


def _white(*shape: int) -> torch.Tensor:
    return torch.full((*shape, 3, SIZE, SIZE), WHITE)


def test_a_patch_is_active_where_a_pixel_has_an_events_colour(model: VELoRA) -> None:
    images = _white(1, 2)
    images[0, 1, 1, 0, SIZE - 1] = -1
    assert model.activity is not None
    active = model.activity(images)
    grid = model.tower("event").vit.patch_embed.grid_size
    assert active.shape == (1, 2, grid[0] * grid[1])
    assert active[0, 0].sum() == 0
    assert active[0, 1].nonzero().flatten().tolist() == [grid[1] - 1]


def test_a_difference_is_active_where_either_frame_is_and_everywhere_without_both() -> None:
    active = torch.tensor([[[1, 0, 0], [0, 1, 0], [0, 0, 0]]], dtype=torch.bool)
    in_both = torch.tensor([[1, 0]], dtype=torch.bool)
    assert active_differences(active, in_both).int().tolist() == [[[1, 1, 0], [1, 1, 1]]]


def test_lists_of_a_batch_are_of_one_length() -> None:
    active = torch.tensor([[0, 1, 0, 1], [0, 0, 0, 0]], dtype=torch.bool)
    listed = list_patches(active)
    assert listed.shape == (2, 4)
    assert sorted(listed[0].tolist()) == [NOTHING, NOTHING, 1, 3]
    assert listed[1].tolist() == [NOTHING] * 4


@torch.no_grad()
@pytest.mark.parametrize(
    "changes",
    [{}, {"reg_tokens": 2}, {"reg_tokens": 2, "no_embed_class": True}, {"pre_norm": True}],
    ids=["plain", "registers", "positions of patches alone", "norm before the blocks"],
)
def test_all_patches_give_the_tokens_of_the_whole_image(changes: dict[str, object]) -> None:
    backbone = Backbone(name="vit_tiny_patch16_224", args={**ARGS, **changes})
    model = tiny_model(active_patches=True, backbone=backbone)
    _, event = clips(2)
    tower, images = model.tower("event"), event[:, 0]
    patches = torch.arange(tower.tokens - tower.vit.num_prefix_tokens).flip(0).repeat(2, 1)
    still = torch.zeros(1, tower.tokens, tower.token_size)
    torch.testing.assert_close(encode_patches(tower, images, patches, still), tower(images), **EXACT)


@torch.no_grad()
def test_still_patches_are_neither_seen_nor_computed(model: VELoRA) -> None:
    _, event = clips(1)
    tower, images = model.tower("event"), event[:, 0]
    other = images.clone()
    other[..., tower.vit.patch_embed.patch_size[0] :, :] = 0.3
    first = torch.tensor([[0, NOTHING]])
    still = torch.full((1, tower.tokens, tower.token_size), 7.0)
    tokens = encode_patches(tower, images, first, still)
    torch.testing.assert_close(encode_patches(tower, other, first[:, :1], still), tokens, **EXACT)
    assert (tokens[0, 2:] == 7).all()
    assert not (tokens[0, :2] == 7).any()


@torch.no_grad()
def test_a_patch_without_events_has_the_token_of_an_image_without_events(model: VELoRA) -> None:
    images = _white(1, 1)
    active = torch.zeros(1, 1, model.tokens - 1, dtype=torch.bool)
    tokens = model.encode("event", images, active)
    torch.testing.assert_close(tokens[0, 0, 1:], model.tower("event")(images[0])[0, 1:], **EXACT)


@torch.no_grad()
def test_a_clip_with_events_everywhere_is_told_as_by_the_dense_model(model: VELoRA) -> None:
    rgb, event = clips(2)
    dense = tiny_model()
    dense.load_state_dict(model.state_dict())
    torch.testing.assert_close(model(rgb, event), dense(rgb, event), **EXACT)


@torch.no_grad()
def test_a_prediction_does_not_depend_on_how_active_its_batch_mates_are(model: VELoRA) -> None:
    rgb, event = clips(3)
    event[1] = WHITE
    event[2, :, :, SIZE // 2 :] = WHITE
    alone = torch.cat([model(rgb[i : i + 1], event[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(model(rgb, event), alone, **EXACT)


@torch.no_grad()
def test_an_absent_event_camera_leaves_the_differences_of_pictures_whole(model: VELoRA) -> None:
    rgb, event = clips(1)
    absent = torch.zeros(1, T, dtype=torch.bool)
    dense = tiny_model()
    dense.load_state_dict(model.state_dict())
    torch.testing.assert_close(
        model(rgb, event, event_present=absent), dense(rgb, event, event_present=absent), **EXACT
    )


def test_gradients_reach_the_towers_with_and_without_checkpointing(model: VELoRA) -> None:
    rgb, event = clips(1)
    event[:, :, :, : SIZE // 2] = WHITE
    gradients = []
    for recompute in (False, True):
        one = tiny_model(active_patches=True).train()
        one.set_grad_checkpointing(recompute)
        torch.manual_seed(5)
        one(rgb, event).sum().backward()
        branch = one.tower("event").vit.blocks[0].mlp.fc2.lora_B["default"]
        gradients.append(branch.weight.grad)
    assert gradients[0] is not None
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize(
    "backbone",
    [Backbone(name="vit_small_patch16_rope_224"), Backbone(name="vit_tiny_patch16_224", args=NO_CLASS_TOKEN)],
    ids=["rotary positions", "no class token"],
)
def test_models_that_cannot_have_active_patches_are_refused(backbone: Backbone) -> None:
    with pytest.raises(InputError, match="active patches cannot be had"):
        tiny_model(active_patches=True, backbone=backbone)


@torch.no_grad()
def test_the_published_fusion_takes_them_too() -> None:
    model = tiny_model(active_patches=True, compat="reference")
    rgb, event = clips(1)
    event[:, 1:] = WHITE
    assert model(rgb, event).isfinite().all()
