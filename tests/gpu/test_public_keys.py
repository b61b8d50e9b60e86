"""Engines of other machines are trusted by their public keys, and by nothing that anybody can claim."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from velora_edge.bundle import EngineFile
from velora_edge.errors import EngineError
from velora_edge.gpu.signing import key_path, public_key, sign, why_not_trusted

pytest.importorskip("cryptography", reason="needs cryptography (the extras tensorrt and rtx)")

if TYPE_CHECKING:
    from pathlib import Path

ENTRY = EngineFile(
    graph="rgb", file="engines/rgb.engine", sha256="a" * 64, model="b" * 64, precision="fp16",
    tensorrt="10.3.0.26", gpu="Orin", compute_capability="8.7", parity={"relative": 0.001},
)  # fmt: skip


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "here"))
    monkeypatch.delenv("VELORA_TRUST_ENGINES", raising=False)
    return tmp_path


@pytest.fixture
def elsewhere(home: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[EngineFile, str]:
    """An entry that another machine signed, and that machine's public key."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "elsewhere"))
    signed, key = sign(ENTRY), public_key()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "here"))
    return signed, key


def test_a_machine_s_public_key_is_made_with_its_own_and_stays() -> None:
    key = public_key()
    assert key == public_key()
    assert key.startswith("ed25519:")
    assert stat.S_IMODE(key_path().stat().st_mode) == 0o600


def test_an_engine_of_another_machine_is_run_by_its_public_key(
    elsewhere: tuple[EngineFile, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    signed, key = elsewhere
    reason = why_not_trusted(signed)
    assert reason is not None
    assert "VELORA_TRUST_ENGINES" in reason
    monkeypatch.setenv("VELORA_TRUST_ENGINES", f" {public_key()} , {key} ")
    assert why_not_trusted(signed) is None


def test_a_name_is_no_proof(elsewhere: tuple[EngineFile, str], monkeypatch: pytest.MonkeyPatch) -> None:
    signed, key = elsewhere
    unsigned = ENTRY.model_copy(update={"origin": signed.origin})
    monkeypatch.setenv("VELORA_TRUST_ENGINES", key)
    assert why_not_trusted(unsigned) is not None
    monkeypatch.setenv("VELORA_TRUST_ENGINES", signed.origin)
    with pytest.raises(EngineError, match="expected public keys in VELORA_TRUST_ENGINES"):
        why_not_trusted(unsigned)


@pytest.mark.parametrize("change", [{"sha256": "c" * 64}, {"graph": "head"}, {"file": "x"}, {"origin": "me"}])
def test_what_was_changed_is_not_trusted_by_any_key(
    elsewhere: tuple[EngineFile, str], monkeypatch: pytest.MonkeyPatch, change: dict[str, str]
) -> None:
    signed, key = elsewhere
    monkeypatch.setenv("VELORA_TRUST_ENGINES", key)
    assert why_not_trusted(signed.model_copy(update=change)) is not None


def test_a_public_key_signs_nothing(
    elsewhere: tuple[EngineFile, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has the public key alone cannot make an entry that is trusted by it, as with a shared secret."""
    import base64

    _, key = elsewhere
    key_path().parent.mkdir(parents=True)
    key_path().write_bytes(base64.b64decode(key.removeprefix("ed25519:")))
    forged = sign(ENTRY)
    key_path().unlink()
    monkeypatch.setenv("VELORA_TRUST_ENGINES", key)
    assert why_not_trusted(forged) is not None


@pytest.mark.parametrize(
    "word", ["workshop-3f9ac210", "ed25519:", "ed25519:abc", "ed25519:\u00e9", "rsa:AAAA"]
)
def test_what_is_no_key_is_an_error_that_says_how_to_get_one(
    monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    monkeypatch.setenv("VELORA_TRUST_ENGINES", word)
    with pytest.raises(EngineError, match="expected public keys in VELORA_TRUST_ENGINES") as caught:
        why_not_trusted(sign(ENTRY).model_copy(update={"signature": "0" * 128}))
    assert "velora build --public-key" in str(caught.value)


def test_a_machine_runs_its_own_engines_whatever_the_variable_says(monkeypatch: pytest.MonkeyPatch) -> None:
    signed = sign(ENTRY)
    monkeypatch.setenv("VELORA_TRUST_ENGINES", "")
    assert why_not_trusted(signed) is None
