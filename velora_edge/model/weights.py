"""Files of a tower's weights, from whichever tool: read without running code, named as timm names them.

Read are safetensors, torch files of tensors, TorchScript (OpenAI's CLIP) and ONNX; names of timm, Facebook
(DINOv2, DINOv3, Perception Encoder), open_clip and Hugging Face's DINOv2, DINOv3 and CLIP.
"""

from __future__ import annotations

import math
import pickle
import re
import urllib.error
import urllib.request
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import timm
import torch

from velora_edge.errors import BundleError, InputError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

State = dict[str, torch.Tensor]


def read_state(path: str | Path) -> State:
    """The tensors in a file of weights, under names that timm's own conversion knows.

    Raises:
        BundleError: if the file is missing or is not one of weights.
    """
    file = Path(path)
    if not file.is_file():
        raise BundleError("no such file of weights", path=file, remedy="check backbone.weights")
    try:
        state: object = _read_tensors(file)
    except (BundleError, MissingExtraError):
        raise
    except Exception as error:  # torch, pickle, onnx and safetensors each raise types of their own
        raise BundleError(
            "not a file of weights (.safetensors, .onnx, TorchScript, or .pth with tensors only)",
            path=file,
            remedy="save it with safetensors.torch.save_file",
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise BundleError("holds more than tensors by name", path=file, remedy="save the state dict alone")
    return _as_timm_reads(state)


def _read_tensors(file: Path) -> object:
    if file.suffix == ".onnx":
        return _read_onnx(file)
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                return _read_torchscript(archive)
    return timm.models.load_state_dict(str(file), weights_only=True)


_STORAGES = {
    "FloatStorage": torch.float32, "HalfStorage": torch.float16, "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}  # fmt: skip


class _Scripted:
    """A module of a TorchScript archive; unpickling fills in its attributes."""


class _TorchScript(pickle.Unpickler):
    """Reads tensors and modules of a TorchScript archive, and refuses all else; none of its code is run.

    `torch.jit.load` would run the archive's `__setstate__`. Layout: torch/csrc/jit/serialization/pickler.cpp.
    """

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(archive.open(f"{root}/data.pkl"))
        self._archive, self._root = archive, root

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return _Scripted
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if module == "torch.jit._pickle" and name.startswith(("build_", "restore_type_tag")):
            return _first
        raise pickle.UnpicklingError(f"{module}.{name} is neither a tensor nor a module")

    def persistent_load(self, pid: Any) -> torch.Tensor:
        _, dtype, key, _, _ = pid
        info = self._archive.getinfo(f"{self._root}/data/{key}")
        if info.compress_type != zipfile.ZIP_STORED:
            raise pickle.UnpicklingError("its tensors are compressed, which torch does not do")
        return torch.frombuffer(bytearray(self._archive.read(info)), dtype=dtype)


def _rebuild(
    storage: torch.Tensor, offset: int, size: Sequence[int], stride: Sequence[int], *_: object
) -> torch.Tensor:
    return storage.as_strided(tuple(size), tuple(stride), offset).clone()


def _first(value: Any, *_: object) -> Any:
    return value


def _read_torchscript(archive: zipfile.ZipFile) -> State:
    root = next(name for name in archive.namelist() if name.endswith("/constants.pkl")).rpartition("/")[0]
    found: State = {}

    def walk(module: _Scripted, prefix: str) -> None:
        for name, value in vars(module).items():
            if isinstance(value, torch.Tensor):
                found[prefix + name] = value.float() if value.is_floating_point() else value
            elif isinstance(value, _Scripted):
                walk(value, f"{prefix}{name}.")

    walk(_TorchScript(archive, root).load(), "")
    return found


def _read_onnx(file: Path) -> State:
    """Initialisers; a matrix that an exporter turned and renamed is called as the bias added to it."""
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise MissingExtraError("onnx", "train", "weights in an ONNX file") from error
    graph = onnx.load(str(file)).graph
    state = {one.name: torch.from_numpy(numpy_helper.to_array(one).copy()) for one in graph.initializer}
    added = {name: node for node in graph.node if node.op_type == "Add" for name in node.input}
    for node in graph.node:
        matrix = node.input[1] if node.op_type == "MatMul" else ""
        if matrix not in state or matrix.endswith(".weight"):
            continue
        names = added[node.output[0]].input if node.output[0] in added else ()
        bias = next((name for name in names if name.endswith(".bias")), None)
        if bias is not None:
            state[f"{bias.removesuffix('bias')}weight"] = state.pop(matrix).T.contiguous()
    _name_positions(state)
    return state


def _name_positions(state: State) -> None:
    """Positions that an exporter divided and renamed, the class token's and the patches'."""
    start = next((n.removesuffix("cls_token") for n in state if n.endswith("embeddings.cls_token")), None)
    if start is None or f"{start}position_embeddings" in state:
        return
    width = state[f"{start}cls_token"].shape[-1]
    parts = [v for n, v in state.items() if n.startswith("onnx::") and v.ndim == 3 and v.shape[-1] == width]
    if len(parts) == 2:
        state[f"{start}position_embeddings"] = torch.cat(sorted(parts, key=lambda part: part.shape[1]), dim=1)


_N = r"(?:encoder\.|model\.)?layers?\.(\d+)\."
_ATTENTION = r"(?:attention|self_attn)\."
_HUGGING_FACE = {
    r"embeddings\.(?:cls_token|class_embedding)": "cls_token",
    r"embeddings\.register_tokens": "reg_token",
    r"embeddings\.(?:position_embeddings|position_embedding\.weight)": "pos_embed",
    r"embeddings\.patch_embeddings?\.(?:projection\.)?(weight|bias)": r"patch_embed.proj.\1",
    r"pre_layrnorm\.(.+)": r"norm_pre.\1",
    r"(?:layernorm|post_layernorm|norm)\.(.+)": r"norm.\1",
    r"visual_projection\.weight": "head.weight",
    _N + r"(?:norm|layer_norm)([12])\.(.+)": r"blocks.\1.norm\2.\3",
    _N + _ATTENTION + r"(?:attention\.)?([qkv])(?:uery|ey|alue|_proj)\.(.+)": r"blocks.\1.attn.\2.\3",
    _N + _ATTENTION + r"(?:output\.dense|o_proj|out_proj)\.(.+)": r"blocks.\1.attn.proj.\2",
    _N + r"layer_scale([12])\.lambda1": r"blocks.\1.ls\2.gamma",
    _N + r"mlp\.(?:fc1|weights_in|up_proj)\.(.+)": r"blocks.\1.mlp.fc1.\2",
    _N + r"mlp\.(?:fc2|weights_out|down_proj)\.(.+)": r"blocks.\1.mlp.fc2.\2",
    _N + r"mlp\.gate_proj\.(.+)": r"blocks.\1.mlp.gate.\2",
}


def _as_timm_reads(state: State) -> State:
    """The tensors under the names that timm, or a file that timm's conversion knows, gives them."""
    start = next(
        (
            name.removesuffix(ending)
            for name in state
            for ending in ("embeddings.cls_token", "embeddings.class_embedding")
            if name.endswith(ending)
        ),
        None,
    )
    if start is None:
        return state
    renamed: State = {}
    for name, value in state.items():
        plain = name.removeprefix(start)
        ours = next(
            (m.expand(to) for like, to in _HUGGING_FACE.items() if (m := re.fullmatch(like, plain))), None
        )
        if ours is not None:
            renamed[ours] = value
    return _join(renamed)


def _join(state: State) -> State:
    """One matrix of query, key and value; tokens and positions in timm's shapes; Eva's names for Eva."""
    is_eva = "pos_embed" not in state
    joined: State = {}
    for name, value in state.items():
        if (found := re.fullmatch(r"(blocks\.\d+\.attn\.)q\.(weight|bias)", name)) is not None:
            before, kind = found.groups()
            key = state.get(f"{before}k.{kind}", torch.zeros_like(value))
            if is_eva and kind == "bias":
                joined[f"{before}q_bias"], joined[f"{before}v_bias"] = value, state[f"{before}v.bias"]
            else:
                joined[f"{before}qkv.{kind}"] = torch.cat([value, key, state[f"{before}v.{kind}"]])
        elif (found := re.fullmatch(r"(blocks\.\d+\.)ls([12])\.gamma", name)) is not None and is_eva:
            joined[f"{found[1]}gamma_{found[2]}"] = value
        elif (found := re.fullmatch(r"(blocks\.\d+\.mlp\.)gate\.(.+)", name)) is not None:
            if is_eva:
                joined[f"{found[1]}fc1_g.{found[2]}"] = value
        elif (found := re.fullmatch(r"(blocks\.\d+\.mlp\.)fc1\.(.+)", name)) is not None:
            gate = state.get(f"{found[1]}gate.{found[2]}")
            if gate is not None and is_eva:
                joined[f"{found[1]}fc1_x.{found[2]}"] = value
            else:
                joined[name] = value if gate is None else torch.cat([gate, value])
        elif not re.fullmatch(r"blocks\.\d+\.attn\.[kv]\.(weight|bias)", name):
            joined[name] = value
    joined["cls_token"] = joined["cls_token"].reshape(1, 1, -1)
    if not is_eva:
        joined["pos_embed"] = joined["pos_embed"].reshape(1, -1, joined["cls_token"].shape[-1])
    if "reg_token" in joined and not is_eva:  # timm's positions are the patches' alone
        joined["cls_token"] = joined["cls_token"] + joined["pos_embed"][:, :1]
        joined["pos_embed"] = joined["pos_embed"][:, 1:]
    if "head.weight" in joined:
        joined["head.bias"] = torch.zeros(joined["head.weight"].shape[0])
    return joined


_SMALL, _BASE, _LARGE, _GIANT = (384, 12), (768, 12), (1024, 24), (1536, 40)
_PATCH = ("patch_embed.proj.weight", "conv1.weight")
_ARCHITECTURES: dict[tuple[str, tuple[int, int], int], str] = {
    **{
        (family, size, 14): f"vit_{name}_patch14_{registers}dinov2.lvd142m"
        for family, registers in (("dinov2", ""), ("dinov2 with registers", "reg4_"))
        for name, size in (("small", _SMALL), ("base", _BASE), ("large", _LARGE), ("giant", _GIANT))
    },
    **{
        (family, size, 16): f"vit_{name}_patch16_dinov3{biases}.lvd1689m"
        for family, biases in (("dinov3", ""), ("dinov3 with biases", "_qkvb"))
        for name, size in (("small", _SMALL), ("base", _BASE), ("large", _LARGE))
    },
    ("dinov3 SwiGLU", _SMALL, 16): "vit_small_plus_patch16_dinov3.lvd1689m",
    ("dinov3 SwiGLU with biases", _SMALL, 16): "vit_small_plus_patch16_dinov3_qkvb.lvd1689m",
    **{
        ("clip", size, patch): f"vit_{name}_patch{patch}_clip_quickgelu_224.openai"
        for name, size, patch in (("base", _BASE, 32), ("base", _BASE, 16), ("large", _LARGE, 14))
    },
    ("pe", (192, 12), 16): "vit_pe_core_tiny_patch16_384.fb",
    ("pe", _SMALL, 16): "vit_pe_core_small_patch16_384.fb",
    ("pe", _BASE, 16): "vit_pe_core_base_patch16_224.fb",
    ("pe", _LARGE, 14): "vit_pe_core_large_patch14_336.fb",
    ("vit", (192, 12), 16): "vit_tiny_patch16_224.augreg_in21k",
    ("vit", _SMALL, 16): "vit_small_patch16_224.augreg_in21k",
    ("vit", _BASE, 16): "vit_base_patch16_224.augreg2_in21k_ft_in1k",
}  # fmt: skip


def recognise(state: State, path: str | Path) -> str:
    """Timm's name of the model that the tensors are of, by their names and shapes.

    Raises:
        BundleError: if they are of none that is known here.
    """
    width, depth, patch = _sizes(state, path)
    family = _family(state)
    name = _ARCHITECTURES.get((family, (width, depth), patch))
    if name is None:
        raise BundleError(
            f"{family} weights of width {width}, {depth} blocks and patches of {patch} pixels are of no "
            "model that is recognised by its tensors",
            path=path,
            remedy="say which by --name, such as --name vit_base_patch16_224",
        )
    return name


def _sizes(state: State, path: str | Path) -> tuple[int, int, int]:
    patches = next((value for name, value in state.items() if name.endswith(_PATCH)), None)
    numbers = [int(m[1]) for name in state if (m := re.search(r"blocks\.(\d+)\.", name))]
    if patches is None or patches.ndim != 4 or not numbers:
        raise BundleError(
            "holds no vision transformer: there are no patches or no blocks",
            path=path,
            remedy="give a file of timm, open_clip, Facebook's DINO, Hugging Face or OpenAI's CLIP",
        )
    return patches.shape[0], max(numbers) + 1, patches.shape[-1]


def _family(state: State) -> str:
    if _has(state, "attn_pool.probe", "attn_pool.latent"):
        return "pe"
    if "visual.class_embedding" in state or ("norm_pre.weight" in state and "head.weight" in state):
        return "clip"
    if _has(state, "storage_tokens") or ("reg_token" in state and not _has(state, "pos_embed")):
        gated = " SwiGLU" if _has(state, "mlp.w1.weight", "mlp.fc1_g.weight") else ""
        biases = [v for name, v in state.items() if name.endswith(("qkv.bias", "q_bias", "v_bias"))]
        return f"dinov3{gated}" + (" with biases" if any(bool(v.any()) for v in biases) else "")
    if _has(state, "ls1.gamma"):
        return "dinov2 with registers" if _has(state, "reg_token", "register_tokens") else "dinov2"
    return "vit"


def _has(state: State, *endings: str) -> bool:
    return any(name.endswith(endings) for name in state)


def positions_grid(state: State, prefixes: Iterable[int] = (0, 1, 5)) -> int | None:
    """Side of the square of patches that the positions are for; None where there are none, or no square."""
    positions = next(
        (v for name, v in state.items() if name.endswith(("pos_embed", "positional_embedding"))), None
    )
    if positions is None:
        return None
    count = positions.shape[-2]
    return next((math.isqrt(count - p) for p in prefixes if math.isqrt(count - p) ** 2 == count - p), None)


HUB_TIMEOUT_S = 4.0


def check_hub(name: str) -> None:
    """Refuse at once what the hub's client would try for a minute.

    Raises:
        InputError: if the weights are not in its cache, and nobody answers at the hub.
    """
    from huggingface_hub import constants

    published = timm.get_pretrained_cfg(name)
    hub_id = getattr(published, "hf_hub_id", None)
    if not hub_id or getattr(published, "file", None):
        return
    cached = Path(constants.HF_HUB_CACHE) / f"models--{str(hub_id).replace('/', '--')}" / "snapshots"
    if cached.is_dir() and any(cached.iterdir()):
        return
    reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else _why_no_answer(constants.ENDPOINT)
    if reason is not None:
        raise InputError(
            f"the weights of {name} are not in the cache, and {constants.ENDPOINT} is out of reach: {reason}",
            place="backbone.pretrained",
            remedy=f"fetch {hub_id} where there is a network, and give the file in backbone.weights, "
            "in place of pretrained",
        )


def _why_no_answer(address: str) -> str | None:
    request = urllib.request.Request(address, method="HEAD")  # by way of the proxies of the environment
    try:
        urllib.request.urlopen(request, timeout=HUB_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        return None  # an answer, too
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))
    return None
