"""The network as a whole: clips, slots, absent cameras."""

from __future__ import annotations

import pytest
import torch
from networks import SIZE, D, N, T, clips, tiny_model

from velora_edge.model.head import Streams
from velora_edge.model.velora import VELoRA, frame_differences

torch.set_num_threads(2)
EXACT = {"atol": 1e-5, "rtol": 0}


@pytest.fixture(scope="module", params=["ours", "reference", "linear"])
def model(request: pytest.FixtureRequest) -> VELoRA:
    changes = {"ours": {}, "reference": {"compat": "reference"}, "linear": {"tuning": "linear"}}
    return tiny_model(**changes[request.param])


@torch.no_grad()
def _tokens(model: VELoRA, count: int = 2) -> Streams:
    rgb, event = clips(count)
    everywhere = torch.ones(count, T, dtype=torch.bool)
    diff = frame_differences(rgb, event, everywhere, everywhere)
    return Streams(model.encode("rgb", rgb), model.encode("event", event), model.encode("diff", diff))


def _present(rgb: list[int], event: list[int], diff: list[int]) -> Streams:
    return Streams(*(torch.tensor([slots, slots], dtype=torch.bool) for slots in (rgb, event, diff)))


ALL = _present([1] * T, [1] * T, [1] * (T - 1))


@torch.no_grad()
def test_a_clip_is_decided_from_its_tokens(model: VELoRA) -> None:
    tokens = _tokens(model)
    assert [tuple(stream.shape) for stream in tokens] == [(2, T, N, D), (2, T, N, D), (2, T - 1, N, D)]
    logits = model(*clips())
    assert logits.shape == (2, 3)
    torch.testing.assert_close(model.decide(tokens, ALL), logits, **EXACT)


@torch.no_grad()
def test_the_order_of_slots_does_not_matter(model: VELoRA) -> None:
    tokens = _tokens(model)
    turned = Streams(tokens.rgb[:, [2, 0, 3, 1]], tokens.event[:, [3, 2, 1, 0]], tokens.diff[:, [1, 2, 0]])
    torch.testing.assert_close(model.decide(turned, ALL), model.decide(tokens, ALL), **EXACT)


@torch.no_grad()
def test_a_prediction_does_not_depend_on_its_batch_mates(model: VELoRA) -> None:
    rgb, event = clips(3)
    alone = torch.cat([model(rgb[i : i + 1], event[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(model(rgb, event), alone, **EXACT)


@torch.no_grad()
def test_absent_slots_do_not_count_even_when_they_hold_nan(model: VELoRA) -> None:
    tokens = _tokens(model)
    present = _present([1, 0, 1, 1], [1, 1, 1, 0], [1, 0, 0])
    kept = Streams(tokens.rgb[:, [0, 2, 3]], tokens.event[:, :3], tokens.diff[:, :1])
    wanted = model.decide(kept, Streams(*(torch.ones(s.shape[:2], dtype=torch.bool) for s in kept)))
    spoilt = Streams(
        *(torch.where(p[:, :, None, None], t, torch.nan) for t, p in zip(tokens, present, strict=True))
    )
    torch.testing.assert_close(model.decide(spoilt, present), wanted, **EXACT)


@torch.no_grad()
@pytest.mark.parametrize("absent", ["rgb", "event", "both"])
def test_an_absent_camera_s_images_are_never_looked_at(model: VELoRA, absent: str) -> None:
    rgb, event = clips()
    flags = [torch.full((2, T), absent not in (name, "both")) for name in ("rgb", "event")]
    logits = model(rgb, event, *flags)
    assert logits.isfinite().all()
    other_rgb = torch.full_like(rgb, torch.nan) if absent in ("rgb", "both") else rgb
    other_event = torch.full_like(event, torch.nan) if absent in ("event", "both") else event
    torch.testing.assert_close(model(other_rgb, other_event, *flags), logits, atol=0, rtol=0)
    assert (logits - model(rgb, event)).abs().max() > 1e-3


@torch.no_grad()
def test_a_camera_absent_in_one_clip_of_a_batch_leaves_the_other_clip_alone(model: VELoRA) -> None:
    rgb, event = clips()
    rgb_present = torch.tensor([[True] * T, [False] * T])
    logits = model(rgb, event, rgb_present)
    torch.testing.assert_close(logits[0], model(rgb, event)[0], **EXACT)
    nowhere = torch.zeros(1, T, dtype=torch.bool)
    torch.testing.assert_close(logits[1:], model(rgb[1:], event[1:], nowhere), **EXACT)


@torch.no_grad()
def test_the_absent_embedding_is_what_is_used() -> None:
    model = tiny_model()
    rgb, event = clips()
    nowhere = torch.zeros(2, T, dtype=torch.bool)
    before = model(rgb, event, nowhere)
    model.head.embedding.absent[0].normal_()
    assert (model(rgb, event, nowhere) - before).abs().max() > 1e-3


def test_differences_count_where_a_camera_is_in_both_frames() -> None:
    rgb = torch.tensor([1.0, 4.0, 2.0, 2.5]).view(1, T, 1, 1, 1).expand(1, T, 3, 2, 2)
    event = torch.tensor([10.0, 30.0, 30.0, 70.0]).view(1, T, 1, 1, 1).expand(1, T, 3, 2, 2)
    rgb_present = torch.tensor([[True, True, True, False]])
    event_present = torch.tensor([[True, True, False, True]])
    diff = frame_differences(rgb, event, rgb_present, event_present)
    assert diff.shape == (1, T - 1, 3, 2, 2)
    assert diff[0, :, 0, 0, 0].tolist() == [3 + 20, 2, 0]


@torch.no_grad()
def test_reconstruction_counts_only_clips_with_both_cameras() -> None:
    model = tiny_model()
    rgb, event = clips()
    _, alone = model(rgb[:1], event[:1], with_reconstruction=True)
    there = torch.tensor([[True] * T, [False] * T])
    _, both = model(rgb, event, there, with_reconstruction=True)
    torch.testing.assert_close(both, alone, **EXACT)
    assert alone > 0
    nowhere = torch.zeros(2, T, dtype=torch.bool)
    assert model(rgb, event, nowhere, with_reconstruction=True)[1] == 0


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    rgb, event = clips()
    found = []
    for enable in (False, True):
        model = tiny_model().train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        model.set_grad_checkpointing(enable)
        model(rgb, event).square().sum().backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], msg=name)


def test_a_seed_reproduces_a_new_model() -> None:
    first, second = tiny_model(seed=3).state_dict(), tiny_model(seed=3).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert SIZE * SIZE // 64 + 1 == N
