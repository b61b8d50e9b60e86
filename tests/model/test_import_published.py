"""Import of the authors' checkpoints, held against tensors that their own code computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file

from velora_edge.config import published_class_names
from velora_edge.errors import BundleError
from velora_edge.model.published import INPUTS, Imported, import_published

if TYPE_CHECKING:
    from pathlib import Path

torch.set_num_threads(2)
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def imported(shared_golden: Path) -> Imported:
    return import_published(shared_golden / "checkpoint.pth")


@pytest.fixture(params=[0, 1])
def item(request: pytest.FixtureRequest, shared_golden: Path) -> dict[str, torch.Tensor]:
    return load_file(shared_golden / f"batch1_item{request.param}.safetensors")


@torch.no_grad()
def test_tokens_of_each_tower_are_the_published_ones(
    imported: Imported, item: dict[str, torch.Tensor]
) -> None:
    model = imported.model
    rgb, event = item["rgb_videos"], item["event_videos"]
    diff = (rgb[:, :-1] - rgb[:, 1:]).abs() + (event[:, :-1] - event[:, 1:]).abs()
    torch.testing.assert_close(diff[0], item["sum_frame"], atol=1e-6, rtol=0)
    for modality, images, key in (("rgb", rgb, "rgb"), ("event", event, "event"), ("diff", diff, "diff")):
        tokens = model.encode(modality, images)[0]
        torch.testing.assert_close(tokens, item[f"{key}_frame_tokens"], atol=TOLERANCE, rtol=0)


@torch.no_grad()
def test_fused_tensor_logits_and_loss_are_the_published_ones(
    imported: Imported, item: dict[str, torch.Tensor]
) -> None:
    model = imported.model
    seen: list[torch.Tensor] = []
    hook = model.head.shared.register_forward_hook(lambda module, args, out: seen.append(out))
    logits, loss = model(item["rgb_videos"], item["event_videos"], with_reconstruction=True)
    hook.remove()
    torch.testing.assert_close(seen[0], item["fused_x"], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(logits, item["head_logits"], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(logits.log_softmax(1), item["log_probs"], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(loss, item["loss_fn"][0], atol=TOLERANCE, rtol=0)


@torch.no_grad()
def test_a_batch_gives_each_clip_what_it_gets_alone(imported: Imported, shared_golden: Path) -> None:
    items = [load_file(shared_golden / f"batch1_item{i}.safetensors") for i in (0, 1)]
    rgb, event = (torch.cat([item[key] for item in items]) for key in ("rgb_videos", "event_videos"))
    wanted = torch.cat([item["head_logits"] for item in items])
    torch.testing.assert_close(imported.model(rgb, event), wanted, atol=TOLERANCE, rtol=0)


def test_names_without_effect_are_listed_and_sizes_are_read_from_shapes(imported: Imported) -> None:
    config = imported.model.config
    assert (config.image_size, config.lora.rank, config.compat) == ((32, 32), 4, "reference")
    assert config.labels == ("class-0", "class-1", "class-2", "class-3", "class-4")
    assert (imported.used, imported.epoch) == (159, 1)
    assert {part: len(names) for part, names in imported.unused.items()} == {
        "model_state_dict": 56,
        "ViT_model_state_dict": 22,
        "Event_ViT_model_state_dict": 22,
        "frame_ViT_model_state_dict": 22,
    }
    assert "module.cross_model.query.weight" in imported.unused["model_state_dict"]


def _changed(shared_golden: Path, tmp_path: Path, change: Any) -> Path:
    raw = torch.load(shared_golden / "checkpoint.pth", weights_only=True)
    change(raw)
    torch.save(raw, tmp_path / "changed.pth")
    return tmp_path / "changed.pth"


def test_a_missing_name_is_told(shared_golden: Path, tmp_path: Path) -> None:
    path = _changed(
        shared_golden,
        tmp_path,
        lambda raw: raw["Event_ViT_model_state_dict"].pop("base_model.model.visual.ln_post.weight"),
    )
    with pytest.raises(BundleError, match=r"changed\.pth.*missing towers\.event\.vit\.norm\.weight"):
        import_published(path)


def test_an_unknown_name_is_told(shared_golden: Path, tmp_path: Path) -> None:
    path = _changed(
        shared_golden,
        tmp_path,
        lambda raw: raw["model_state_dict"].update({"module.fuse_blocks.1.norm1.weight": torch.zeros(64)}),
    )
    with pytest.raises(BundleError, match=r"unknown model_state_dict: module\.fuse_blocks\.1\.norm1\.weight"):
        import_published(path)


def test_a_name_of_another_shape_is_told(shared_golden: Path, tmp_path: Path) -> None:
    path = _changed(
        shared_golden,
        tmp_path,
        lambda raw: raw["model_state_dict"].update({"module.fc1.bias": torch.zeros(7)}),
    )
    with pytest.raises(BundleError, match=r"head\.classifier\.bias is \(7,\), not \(5,\)"):
        import_published(path)


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("ViT_model_state_dict", "visual.conv1.weight"),
        ("ViT_model_state_dict", "visual.transformer.resblocks.0.mlp.c_fc.lora_A.default.weight"),
        ("model_state_dict", "fc1.weight"),
        ("model_state_dict", "frame_embed"),
    ],
)
def test_a_missing_name_that_tells_a_size_is_told(
    shared_golden: Path, tmp_path: Path, part: str, name: str
) -> None:
    prefix = {"ViT_model_state_dict": "base_model.model.", "model_state_dict": "module."}
    path = _changed(shared_golden, tmp_path, lambda raw: raw[part].pop(prefix[part] + name))
    with pytest.raises(BundleError, match="missing "):
        import_published(path)


def test_unknown_names_are_passed_over_and_listed_where_that_is_asked_for(
    shared_golden: Path, tmp_path: Path
) -> None:
    extra = {
        "module.fuse_blocks.1.norm1.weight": torch.zeros(64),
        "module.fuse_blocks.0.extra": torch.zeros(64),
    }
    path = _changed(shared_golden, tmp_path, lambda raw: raw["model_state_dict"].update(extra))
    imported = import_published(path, allow_unknown=True)
    assert imported.passed_over == (
        "model_state_dict: module.fuse_blocks.1.norm1.weight",
        "head.shared.extra",
    )
    assert imported.used == 159


def test_what_the_network_needs_must_be_there_even_where_unknown_names_may_be(
    shared_golden: Path, tmp_path: Path
) -> None:
    path = _changed(shared_golden, tmp_path, lambda raw: raw["model_state_dict"].pop("module.norm.weight"))
    with pytest.raises(BundleError, match=r"missing head\.reconstruct_norm\.weight"):
        import_published(path, allow_unknown=True)


@pytest.mark.parametrize(("classes", "kind"), [(114, "pokerevent"), (300, "hardvs")])
def test_a_classifier_as_large_as_a_published_set_gets_its_names(
    shared_golden: Path, tmp_path: Path, classes: int, kind: Any
) -> None:
    def grow(raw: dict[str, Any]) -> None:
        head = raw["model_state_dict"]
        head["module.fc1.weight"] = torch.zeros(classes, head["module.fc1.weight"].shape[1])
        head["module.fc1.bias"] = torch.zeros(classes)

    imported = import_published(_changed(shared_golden, tmp_path, grow))
    assert imported.model.config.labels == published_class_names(kind)


SIZES = {
    "visual": {64: 768, 192: 2304, 256: 3072, 32: 512, 17: 197, 8: 16},
    "text": {32: 512, 96: 1536, 128: 2048, 64: 49408},
    "head": {64: 768, 192: 2304, 256: 3072, 32: 512, 640: 7680, 5: 114},
}
"""Numbers in shapes of the tiny checkpoint, and what the published one has: CLIP's ViT-B/16, 114 classes."""


def full_size(raw: dict[str, Any]) -> None:
    """Give each name the published model's shape, in the memory of one number, and the towers 12 blocks."""
    for part in [name for name in raw if name.endswith("model_state_dict")]:
        for name, tensor in list(raw[part].items()):
            tower = "visual" if ".visual." in name else "text"
            sizes = SIZES["head" if name.startswith("module.") else tower]
            fixed = tensor.shape[:1] if "lora_A" in name or "weight_layer" in name else ()
            shape = [*fixed, *(sizes.get(n, n) for n in tensor.shape[len(fixed) :])]
            if "lora_B" in name or name == "module.CLS_token":
                shape[1] = tensor.shape[1]
            grown = torch.zeros((), dtype=tensor.dtype).expand(shape)
            is_of_block = "resblocks.0." in name
            for block in range(12 if is_of_block else 1):
                raw[part][name.replace("resblocks.0.", f"resblocks.{block}.")] = grown
        for block in range(17, 197):
            for kind in ("weight", "bias"):
                if (of_one := raw[part].get(f"module.remain_weight_layer.0.{kind}")) is not None:
                    raw[part][f"module.remain_weight_layer.{block}.{kind}"] = of_one


@pytest.mark.slow
def test_the_names_of_the_published_checkpoint_in_its_full_size_are_imported(
    shared_golden: Path, tmp_path: Path
) -> None:
    model = import_published(_changed(shared_golden, tmp_path, full_size)).model
    config = model.config
    assert config.labels == published_class_names("pokerevent")
    assert (config.image_size, config.compat) == ((224, 224), "reference")
    tower = model.towers["rgb"].vit
    assert (len(tower.blocks), tower.embed_dim, tower.patch_embed.patch_size) == (12, 768, (16, 16))
    own = sum(p.numel() for p in model.head.parameters())
    assert 16e6 < own < 18e6  # "17 M" in the paper's table


def test_images_are_normalised_as_the_authors_do(imported: Imported) -> None:
    config = imported.model.config
    assert (config.mean, config.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert (INPUTS.rgb.fit, INPUTS.rgb.resample, INPUTS.event.fit) == ("stretch", "bilinear", "stretch")


def test_labels_must_fit(shared_golden: Path) -> None:
    with pytest.raises(BundleError, match="expected 5 labels, got 2"):
        import_published(shared_golden / "checkpoint.pth", labels=["a", "b"])


def test_a_checkpoint_of_another_model_lists_the_parts_that_it_lacks(tmp_path: Path) -> None:
    torch.save({"state_dict": {"fc.weight": torch.zeros(2)}}, tmp_path / "resnet.pth")
    with pytest.raises(BundleError, match=r"resnet\.pth.*lacks model_state_dict, ViT_model_state_dict"):
        import_published(tmp_path / "resnet.pth")


def test_parts_must_be_tensors_by_name(tmp_path: Path) -> None:
    parts = (
        "model_state_dict",
        "ViT_model_state_dict",
        "Event_ViT_model_state_dict",
        "frame_ViT_model_state_dict",
    )
    torch.save(dict.fromkeys(parts, 3), tmp_path / "odd.pth")
    with pytest.raises(BundleError, match=r"odd\.pth, model_state_dict: expected tensors by name"):
        import_published(tmp_path / "odd.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"hello", "not a torch checkpoint"), (b"", "not a torch checkpoint"), (None, "no such checkpoint")],
)
def test_a_file_that_is_no_checkpoint_gives_one_line(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "weights.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BundleError, match=message) as caught:
        import_published(path)
    assert "\n" not in str(caught.value)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return (print, ("executed",))

    torch.save({"model_state_dict": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(BundleError, match="not a torch checkpoint of tensors"):
        import_published(tmp_path / "evil.pth")
