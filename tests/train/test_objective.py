from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from networks import SIZE, T, tiny_model
from torch.nn import functional

from velora_edge.train.batches import Batch
from velora_edge.train.objective import Objective, fair_share


def windows(given: Batch, stride: int) -> Batch:
    """Windows that overlap, of the batch's pairs one after the other."""
    starts = torch.arange(0, len(given) * T - (T - 1) * stride)
    numbers = starts[:, None] + torch.arange(T) * stride
    rgb, event = (None if part is None else part.flatten(0, 1)[numbers] for part in (given.rgb, given.event))
    there = given.present[:1].expand(len(starts), 2)
    return Batch(rgb, event, there, torch.zeros(len(starts), dtype=torch.long), starts, numbers)


def batch(present: list[list[bool]]) -> Batch:
    generator = torch.Generator().manual_seed(0)
    shape = (len(present), T, SIZE, SIZE, 3)
    rgb, event = (torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8) for _ in range(2))
    there = torch.tensor(present)
    rgb[~there[:, 0]] = 0
    event[~there[:, 1]] = 0
    return Batch(rgb, event, there, torch.arange(len(present)) % 3, torch.arange(len(present)))


def by_the_model(model: torch.nn.Module, given: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    images = [(part.float() / 255 - 0.5) / 0.5 for part in (given.rgb, given.event) if part is not None]
    flags = [given.present[:, k : k + 1].expand(-1, T) for k in (0, 1)]
    logits, loss = model(*(i.movedim(-1, 2) for i in images), *flags, with_reconstruction=True)
    return logits, loss


ALL, NO_RGB, NO_EVENT = [True, True], [False, True], [True, False]


@pytest.mark.parametrize("present", [[ALL, ALL], [ALL, NO_RGB, NO_EVENT, ALL], [NO_RGB, NO_RGB]])
def test_it_tells_what_the_network_tells_of_normalised_clips(present: list[list[bool]]) -> None:
    model = tiny_model()
    given = batch(present)
    losses = Objective(model, label_smoothing=0.1, reconstruction=0.5)(given)
    logits, reconstruction = by_the_model(model, given)
    torch.testing.assert_close(losses.logits, logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(losses.reconstruction, reconstruction, atol=1e-5, rtol=1e-5)
    expected = functional.cross_entropy(logits, given.label, label_smoothing=0.1)
    torch.testing.assert_close(losses.classification, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(losses.total, expected + 0.5 * reconstruction, atol=1e-5, rtol=1e-5)


def test_a_camera_that_no_clip_has_need_not_be_given() -> None:
    objective, given = Objective(tiny_model()), batch([NO_RGB, NO_RGB])
    torch.testing.assert_close(objective.logits(replace(given, rgb=None)), objective.logits(given))


def test_what_an_absent_slot_holds_does_not_matter() -> None:
    objective, given = Objective(tiny_model()), batch([ALL, NO_RGB])
    assert given.rgb is not None
    changed = given.rgb.clone()
    changed[1] = 77
    torch.testing.assert_close(objective.logits(replace(given, rgb=changed)), objective.logits(given))


def test_the_tower_of_a_camera_that_no_clip_has_does_not_run() -> None:
    model = tiny_model()
    calls: list[int] = []
    model.tower("rgb").register_forward_hook(lambda *_: calls.append(1))
    objective = Objective(model)
    objective.logits(batch([NO_RGB, NO_RGB]))
    assert calls == []
    objective.logits(batch([NO_RGB, ALL]))
    assert calls == [1]


def test_gradients_reach_lora_and_head_but_not_the_base() -> None:
    model = tiny_model()
    model.train()
    Objective(model, reconstruction=1.0)(batch([ALL, NO_RGB, NO_EVENT, ALL])).total.backward()
    lacking = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert lacking == []
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)


def test_fair_shares_make_the_mean_over_processes_the_mean_over_clips() -> None:
    # Three of this process's clips have both cameras, one of the other's: their means count 3 to 1.
    mine, other = torch.tensor([ALL, ALL, ALL, NO_RGB]), torch.tensor([NO_RGB, NO_EVENT, ALL, NO_RGB])
    shares = [fair_share(present, 4.0, 2) for present in (mine, other)]
    assert shares == [1.5, 0.5]
    assert fair_share(torch.tensor([NO_RGB]), 0.0, 2) == 0.0


@pytest.mark.parametrize("active_patches", [False, True])
@pytest.mark.parametrize("present", [ALL, NO_RGB, NO_EVENT])
@pytest.mark.parametrize("stride", [1, 2])
def test_an_image_of_windows_that_overlap_is_encoded_once(
    present: list[bool], stride: int, active_patches: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(active_patches=active_patches)
    objective, given = Objective(model), windows(batch([present] * 3), stride)
    with torch.inference_mode():
        expected = objective.logits(replace(given, numbers=None))
        encode, encoded = model.encode, dict[str, int]()

        def count(modality: str, images: torch.Tensor, *more: torch.Tensor | None) -> torch.Tensor:
            encoded[modality] = len(images.flatten(0, -4))
            return encode(modality, images, *more)

        monkeypatch.setattr(model, "encode", count)
        torch.testing.assert_close(objective.logits(given), expected, atol=1e-5, rtol=1e-5)
    cameras = {name for name, is_there in zip(("rgb", "event"), present, strict=True) if is_there}
    assert encoded == {**dict.fromkeys(cameras, 3 * T), "diff": 3 * T - stride}


def test_clips_of_which_some_lack_a_camera_may_overlap() -> None:
    objective, given = Objective(tiny_model()), batch([ALL, NO_RGB, NO_EVENT, ALL])
    numbers = torch.arange(4 * T).reshape(4, T)
    numbers[3] = numbers[0]
    for part in (given.rgb, given.event):
        assert part is not None
        part[3] = part[0]
    torch.testing.assert_close(objective.logits(replace(given, numbers=numbers)), objective.logits(given))
