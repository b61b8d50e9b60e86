"""Whose engines a machine runs."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from velora_edge.bundle import EngineFile
from velora_edge.errors import EngineError
from velora_edge.gpu.signing import key_path, sign, why_not_trusted

if TYPE_CHECKING:
    from pathlib import Path

ENTRY = EngineFile(
    graph="rgb",
    file="engines/rgb.engine",
    sha256="a" * 64,
    model="b" * 64,
    precision="fp16",
    tensorrt="10.3.0.26",
    gpu="Orin",
    compute_capability="8.7",
    parity={"relative": 0.001},
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("VELORA_TRUST_ENGINES", raising=False)
    return tmp_path


def test_what_this_machine_signed_it_trusts() -> None:
    signed = sign(ENTRY)
    assert why_not_trusted(signed) is None
    assert signed.model_copy(update={"origin": "", "signature": ""}) == ENTRY
    assert sign(ENTRY) == signed


@pytest.mark.parametrize(
    "change", [{"sha256": "c" * 64}, {"graph": "head"}, {"hardware_compatible": True}, {"origin": "me"}]
)
def test_a_signed_entry_that_was_changed_is_not_trusted(change: dict[str, object]) -> None:
    reason = why_not_trusted(sign(ENTRY).model_copy(update=change))
    assert reason is not None
    assert reason.startswith("it was built elsewhere, by ")


def test_figures_are_not_signed() -> None:
    assert why_not_trusted(sign(ENTRY).model_copy(update={"parity": {}})) is None


def test_an_unsigned_entry_is_not_trusted_on_any_machine() -> None:
    assert why_not_trusted(ENTRY) == "it does not say which machine built it"
    sign(ENTRY)
    assert why_not_trusted(ENTRY) == "it does not say which machine built it"


def test_an_empty_name_in_the_trusted_list_trusts_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VELORA_TRUST_ENGINES", ",,")
    assert why_not_trusted(ENTRY) is not None


def test_a_machine_with_a_copy_of_the_key_is_the_same_origin(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed = sign(ENTRY)
    key = key_path().read_bytes()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "other"))
    assert why_not_trusted(signed) is not None
    key_path().parent.mkdir(parents=True)
    key_path().write_bytes(key)
    assert why_not_trusted(signed) is None


def test_only_its_owner_can_read_the_key() -> None:
    sign(ENTRY)
    assert stat.S_IMODE(key_path().stat().st_mode) == 0o600
    assert len(key_path().read_bytes()) == 32


def test_a_key_of_another_length_is_an_error() -> None:
    key_path().parent.mkdir(parents=True)
    key_path().write_bytes(b"short")
    with pytest.raises(
        EngineError, match="expected an engine key of 32 bytes, got 5; remove it and build again"
    ):
        why_not_trusted(ENTRY)
