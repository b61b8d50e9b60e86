"""What training changes: by one switch, and counted by what gets a gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from velora_edge.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from velora_edge.model.config import ModelConfig, Tuning


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
    head = sum(size for name, size in trained.items() if name.startswith("head.") and not is_lora(name))
    return ParameterCounts(sum(trained.values()), sum(sizes.values()) - sum(trained.values()), lora, head)
