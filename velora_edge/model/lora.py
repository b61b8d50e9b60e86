"""LoRA by peft, and the choice of trained parameters, counted by what gets a gradient."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import Linear as LoraLinear
from torch import nn
from torch.nn import functional

from velora_edge.errors import ConfigError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from velora_edge.model.config import LoRA, ModelConfig, Tuning


ADAPTER = "default"
Module = TypeVar("Module", bound=nn.Module)


class MergedLinear(nn.Linear):
    """A linear layer with its LoRA merged in, which still knows the branch: the fusion uses it again.

    Attributes:
        down: A, [r, in].
        up: B, [out, r], unscaled.
        scaling: alpha / r.
    """

    down: torch.Tensor
    up: torch.Tensor

    def __init__(self, layer: Any) -> None:
        base = layer.get_base_layer()
        super().__init__(base.in_features, base.out_features, bias=base.bias is not None)
        self.load_state_dict(_merged_weights(layer))
        self.register_buffer("down", layer.lora_A[ADAPTER].weight.detach().clone())
        self.register_buffer("up", layer.lora_B[ADAPTER].weight.detach().clone())
        self.scaling = float(layer.scaling[ADAPTER])


def add_lora(module: nn.Module, lora: LoRA, targets: str, *, key: str) -> None:
    """Put a LoRA branch on every layer whose whole name matches `targets`; freezes all the rest.

    Raises:
        ConfigError: if no linear layer matches.
    """
    pattern = re.compile(targets)
    layers = {name for name, child in module.named_modules() if isinstance(child, nn.Linear)}
    if not any(pattern.fullmatch(name) for name in layers):
        example = next((name for name in sorted(layers, reverse=True) if "mlp" in name), "")
        raise ConfigError([f"{key}: {targets!r} matches no linear layer (there is {example})"])
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=cast("int", lora.alpha),
        lora_dropout=lora.dropout,
        bias="none",
        target_modules=targets,
    )
    inject_adapter_in_model(config, module, adapter_name=ADAPTER)


def lora_branch(layer: nn.Module, x: torch.Tensor, *, scaled: bool = True) -> torch.Tensor:
    """The low-rank branch alone, B A x, of a layer that carries LoRA or has it merged.

    Args:
        layer: a peft LoRA layer, or a MergedLinear.
        x: [..., in].
        scaled: times alpha / r, as in the layer itself; the published fusion leaves that out.
    """
    if isinstance(layer, MergedLinear):
        merged = functional.linear(functional.linear(x, layer.down), layer.up)
        return merged * layer.scaling if scaled else merged
    lora: Any = layer
    out: torch.Tensor = lora.lora_B[ADAPTER](lora.lora_A[ADAPTER](lora.lora_dropout[ADAPTER](x)))
    return out * float(lora.scaling[ADAPTER]) if scaled else out


def merge(model: Module) -> Module:
    """A copy of the model with every LoRA branch added to its layer's weight, in fp32, then cast back.

    Layers become plain `torch.nn.Linear`, but for those whose branch the fusion reads: the towers' last
    blocks keep it beside the merged weight, as a MergedLinear. The model given is not changed.
    """
    merged = copy.deepcopy(model)
    for name, layer in list(merged.named_modules()):
        if isinstance(layer, LoraLinear):
            parent, _, child = name.rpartition(".")
            setattr(
                merged.get_submodule(parent), child, _merge_layer(layer, keep_branch=_is_last(merged, name))
            )
    return merged.eval().requires_grad_(False)


def _is_last(model: nn.Module, name: str) -> bool:
    found = re.fullmatch(r"(towers\.\w+\.vit\.blocks)\.(\d+)\..*", name)
    return (
        found is not None and int(found[2]) == len(cast("nn.Sequential", model.get_submodule(found[1]))) - 1
    )


def _merge_layer(layer: Any, *, keep_branch: bool) -> nn.Linear:
    if keep_branch:
        return MergedLinear(layer).to(layer.get_base_layer().weight)
    base = layer.get_base_layer()
    plain = nn.Linear(base.in_features, base.out_features, bias=base.bias is not None)
    plain.load_state_dict(_merged_weights(layer))
    return plain.to(base.weight)


def _merged_weights(layer: Any) -> dict[str, torch.Tensor]:
    base = layer.get_base_layer()
    up, down = layer.lora_B[ADAPTER].weight.float(), layer.lora_A[ADAPTER].weight.float()
    weight = base.weight.float() + layer.scaling[ADAPTER] * (up @ down)
    weights = {"weight": weight.detach()}
    if base.bias is not None:
        weights["bias"] = base.bias.detach()
    return weights


@dataclass(frozen=True)
class ParameterCounts:
    """Numbers of parameters.

    Attributes:
        trained: those that get a gradient.
        frozen: the others.
        lora: of the trained ones, those in LoRA branches.
        head: of the trained ones, those of the fusion head outside LoRA branches.
    """

    trained: int
    frozen: int
    lora: int
    head: int


class Tunable(Protocol):
    """A network whose tuning can be set; see `velora_edge.model.velora.VELoRA`."""

    config: ModelConfig

    def state_dict(self) -> dict[str, Any]:
        """See `torch.nn.Module`."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """See `torch.nn.Module`."""


def is_lora(name: str) -> bool:
    """Whether a parameter of that name belongs to a LoRA branch."""
    return ".lora_" in name


def is_base(name: str) -> bool:
    """Whether a parameter of that name comes with the backbone: a tower's, or a copy of its last block.

    The head of `compat="reference"` has blocks of its own under the same names; see `base_names`.
    """
    return not is_lora(name) and name.startswith(("towers.", "head.shared.", "head.reconstruct."))


def is_of_head(name: str) -> bool:
    """Whether a parameter of that name belongs to the fusion head outside LoRA branches."""
    return name.startswith("head.") and not is_lora(name)


def base_names(model: Tunable) -> set[str]:
    """Names of the state that comes with the backbone and that LoRA tuning leaves as it is."""
    names = {name for name in model.state_dict() if is_base(name)}
    if model.config.compat == "reference":
        names = {name for name in names if name.startswith("towers.")}
    return names


def set_tuning(model: Tunable, tuning: Tuning) -> None:
    """Turn gradients on for what `tuning` trains and off for the rest.

    lora: LoRA branches and the head but for its frozen blocks; full: everything; linear: the probe's head.

    Raises:
        InputError: if the model was made for the linear probe and is asked for more, or the reverse.
    """
    if (tuning == "linear") != (model.config.tuning == "linear"):
        raise InputError(
            f"a model made for tuning={model.config.tuning} cannot be tuned as {tuning}",
            place="tuning",
            remedy="make the model with that tuning",
        )
    frozen = set() if tuning == "full" else base_names(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)


def trainable_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters that get a gradient, with their names, in the order of the model."""
    return ((name, p) for name, p in model.named_parameters() if p.requires_grad)


def count_parameters(model: nn.Module) -> ParameterCounts:
    """Count the model's parameters by what becomes of them in training."""
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    trained = {name: p.numel() for name, p in trainable_parameters(model)}
    lora = sum(size for name, size in trained.items() if is_lora(name))
    head = sum(size for name, size in trained.items() if is_of_head(name))
    return ParameterCounts(sum(trained.values()), sum(sizes.values()) - sum(trained.values()), lora, head)
