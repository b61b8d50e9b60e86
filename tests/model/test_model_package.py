"""The model where its libraries are not installed."""

from __future__ import annotations

import importlib

import pytest

import velora_edge.model
from velora_edge.errors import MissingExtraError


def test_without_torch_the_extra_to_install_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        MissingExtraError, match=r"the model in torch needs torch: pip install -e '\.\[train\]'"
    ):
        importlib.reload(velora_edge.model)
