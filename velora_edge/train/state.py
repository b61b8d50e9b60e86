"""What a run needs to go on exactly where it was: saved whole or not at all."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from velora_edge.errors import BundleError

if TYPE_CHECKING:
    from pathlib import Path

STATE = "state.pt"
VERSION = 1


@dataclass
class RunState:
    """A run between two steps.

    Attributes:
        config: the run's configuration, plain values.
        fingerprint: of the data set's recordings.
        epoch: number of the epoch that the next step belongs to.
        done: steps of that epoch that are done.
        step: steps of the whole run that are done.
        weights: the trained parameters by name.
        optimizer: its state dict.
        ema: the average's state, or None.
        scaler: the fp16 loss scaler's state, or None.
        rng: each process's generators, by process.
        best: what the best checkpoint so far scored, or None.
    """

    config: dict[str, Any]
    fingerprint: str
    epoch: int
    done: int
    step: int
    weights: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    ema: dict[str, Any] | None
    scaler: dict[str, Any] | None
    rng: list[dict[str, Any]]
    best: dict[str, Any] | None


def save_state(state: RunState, folder: Path) -> None:
    """Write a state; a crash at any moment leaves the one before or this one."""
    partial = folder / f".{STATE}.partial"
    with partial.open("wb") as file:
        torch.save({"version": VERSION, **_shallow(state)}, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / STATE)


def load_state(folder: Path) -> RunState:
    """The state that a run left in its folder, on the CPU.

    Raises:
        BundleError: if there is none, or it is damaged or of another version.
    """
    path = folder / STATE
    if not path.is_file():
        raise BundleError("holds no state to resume from", path=folder, remedy="start it without --resume")
    try:
        tree = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise BundleError(
            f"cannot be read: {str(error).splitlines()[0]}", path=path, remedy="start the run anew"
        ) from error
    if not isinstance(tree, dict) or tree.pop("version", None) != VERSION:
        raise BundleError(
            "is no state of this version of velora-edge", path=path, remedy="start the run anew"
        )
    return RunState(**tree)


def generators() -> dict[str, Any]:
    """The state of this process's random generators; torch's are the only global ones that training uses."""
    state: dict[str, Any] = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_generators(state: dict[str, Any]) -> None:
    """Put the generators back to where they were."""
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _shallow(state: RunState) -> dict[str, Any]:
    return {name: getattr(state, name) for name in state.__dataclass_fields__}
