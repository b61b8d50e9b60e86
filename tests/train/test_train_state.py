from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from velora_edge.errors import BundleError
from velora_edge.train import run as module
from velora_edge.train.run import RunState, generators, load_state, save_state, set_generators

if TYPE_CHECKING:
    from pathlib import Path


def a_state(**changes: Any) -> RunState:
    values: dict[str, Any] = {
        "config": {"run": {"name": "x"}},
        "fingerprint": "abc",
        "epoch": 1,
        "done": 2,
        "step": 9,
        "weights": {"w": torch.arange(3.0)},
        "optimizer": {"state": {0: {"step": torch.tensor(9.0)}}, "param_groups": [{"lr": 0.1}]},
        "ema": None,
        "scaler": None,
        "rng": [generators()],
        "best": {"top1": 0.5},
    }
    return RunState(**{**values, **changes})


def test_a_saved_state_is_loaded_as_it_was(tmp_path: Path) -> None:
    saved = a_state()
    save_state(saved, tmp_path)
    loaded = load_state(tmp_path)
    assert torch.equal(loaded.weights["w"], saved.weights["w"])
    for name in ("config", "fingerprint", "epoch", "done", "step", "ema", "scaler", "best"):
        assert getattr(loaded, name) == getattr(saved, name)


def test_generators_go_on_where_they_were() -> None:
    torch.manual_seed(3)
    kept = generators()
    expected = torch.rand(4)
    torch.rand(100)
    set_generators(kept)
    assert torch.equal(torch.rand(4), expected)


def test_a_crash_while_saving_leaves_the_state_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_state(a_state(step=1), tmp_path)

    def crash(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(module.torch, "save", crash)
    with pytest.raises(OSError, match="no space"):
        save_state(a_state(step=2), tmp_path)
    assert load_state(tmp_path).step == 1


def test_a_folder_without_a_state_says_so(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="holds no state to resume from; start it without --resume"):
        load_state(tmp_path)


def test_a_state_of_another_version_is_refused(tmp_path: Path) -> None:
    torch.save({"version": 99}, tmp_path / "state.pt")
    with pytest.raises(BundleError, match="is no state of this version"):
        load_state(tmp_path)
