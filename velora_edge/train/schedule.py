"""Schedules over training steps: the learning rate, and the moving average of the weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from velora_edge.train.settings import OptimSection


def rate_factor(step: int, steps: int, warmup: float, final: float) -> float:
    """Share of the peak learning rate in a step: a linear rise, then half a cosine down to `final`.

    Args:
        step: number of the step, from 0.
        steps: of the whole run.
        warmup: share of all steps in which the rate rises; the first step already has some.
        final: the share at the end.
    """
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / rising
    done = (step - rising) / max(1, steps - rising - 1)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def make_optimizer(
    parameters: Mapping[str, torch.nn.Parameter], config: OptimSection, head_lr: float | None = None
) -> torch.optim.AdamW:
    """AdamW over the trained parameters, in groups by rate and weight decay.

    Each group keeps its peak rate as `peak_lr`; `set_rate` follows the schedule from there. One kernel
    updates all weights where `is_fused` says so.

    Args:
        parameters: by name.
        config: rate and weight decay.
        head_lr: rate of what is called `head.` outside LoRA branches; None: as the rest.
    """
    head_lr = config.lr if head_lr is None else head_lr
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, parameter in parameters.items():
        lr = head_lr if name.startswith("head.") and ".lora_" not in name else config.lr
        is_vector = parameter.squeeze().ndim < 2
        groups.setdefault((lr, 0.0 if is_vector else config.weight_decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": members, "lr": lr, "peak_lr": lr, "weight_decay": decay}
            for (lr, decay), members in groups.items()
        ],
        fused=is_fused(config, {parameter.device.type for parameter in parameters.values()}) or None,
    )


def is_fused(config: OptimSection, devices: set[str]) -> bool:
    """Whether one kernel updates all weights: on a GPU, but not with fp16, whose skipped steps it hides."""
    return config.fused and devices == {"cuda"} and config.precision != "fp16"


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's rate to a share of its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor


class Ema:
    """A moving average of the trained weights, in fp32.

    The first updates count more than the decay says (at most (1 + n) / (10 + n) of the average is kept after
    n of them), so that the random start is soon forgotten.

    Args:
        parameters: the trained parameters by name.
        decay: share of the average that each update keeps.
    """

    def __init__(self, parameters: Mapping[str, torch.nn.Parameter], decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.weights = {name: p.detach().float().clone() for name, p in parameters.items()}

    @torch.no_grad()
    def update(self, parameters: Mapping[str, torch.nn.Parameter]) -> None:
        """Take in the weights as they are now."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, parameter in parameters.items():
            self.weights[name].lerp_(parameter.detach().float(), 1 - decay)

    def state_dict(self) -> dict[str, object]:
        """All that `load_state_dict` needs to go on from here."""
        return {"updates": self.updates, "weights": self.weights}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Go on from a saved state of the same parameters."""
        weights, updates = state["weights"], state["updates"]
        assert isinstance(weights, dict)
        assert isinstance(updates, int)
        for name, value in self.weights.items():
            value.copy_(weights[name])
        self.updates = updates


class swapped:  # noqa: N801  (used as a with-statement, reads as one)
    """While inside, the parameters hold other weights: `with swapped(parameters, ema.weights): ...`."""

    def __init__(
        self, parameters: Mapping[str, torch.nn.Parameter], weights: Mapping[str, torch.Tensor]
    ) -> None:
        self._parameters, self._weights = parameters, weights

    @torch.no_grad()
    def __enter__(self) -> None:
        self._kept = {name: self._parameters[name].detach().clone() for name in self._weights}
        self._copy(self._weights)

    @torch.no_grad()
    def __exit__(self, *exc: object) -> None:
        self._copy(self._kept)

    def _copy(self, weights: Mapping[str, torch.Tensor]) -> None:
        for name, weight in weights.items():
            self._parameters[name].copy_(weight)
