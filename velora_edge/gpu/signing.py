"""Whose engines a machine runs: its own, and those of machines whose public keys its user trusts.

A TensorRT engine is a program that is loaded into the process. The manifest's hash shows that the file is
the one that the manifest speaks of; who wrote the manifest it cannot show. So `velora build` signs an
engine's entry with a key that never leaves the machine (Ed25519, RFC 8032), and only entries that this key
signed are run, or one whose public half the user trusts: `VELORA_TRUST_ENGINES=ed25519:...[,ed25519:...]`.
Machines that share one key file trust each other's engines. A name would be no proof: anybody can claim one.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import secrets
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from velora_edge.errors import EngineError, MissingExtraError, printable

if TYPE_CHECKING:
    from velora_edge.bundle import EngineFile

TRUST_VARIABLE = "VELORA_TRUST_ENGINES"
KEY_BYTES = 32
_PREFIX = "ed25519:"


def key_path() -> Path:
    """Where this machine's key lies: `$XDG_CONFIG_HOME/velora/engine.key`."""
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "velora" / "engine.key"


def public_key() -> str:
    """What other machines trust this one's engines by; makes the key when there is none.

    Raises:
        EngineError: if the key cannot be read or made.
        MissingExtraError: if cryptography is not installed.
    """
    return _public_text(_private_key(_read_key() or _make_key()))


def sign(entry: EngineFile) -> EngineFile:
    """The entry with this machine's name and signature; makes the key when there is none.

    Raises:
        EngineError: if the key cannot be read or made.
        MissingExtraError: if cryptography is not installed.
    """
    private = _private_key(_read_key() or _make_key())
    public = _public_text(private)
    named = entry.model_copy(update={"origin": origin_name(public), "signature": ""})
    signature = base64.b64encode(private.sign(_signed_part(named))).decode("ascii")
    return named.model_copy(update={"signature": f"{public}:{signature}"})


def why_not_trusted(entry: EngineFile) -> str | None:
    """Why the engine may not be run here, for people; None if it may.

    Raises:
        EngineError: if this machine's key cannot be read, or the user's list holds something else than keys.
    """
    try:
        signer = find_signer(entry)
        key = _read_key()
        trusted = _trusted_keys() | (set() if key is None else {_public_text(_private_key(key))})
    except MissingExtraError as error:
        return str(error)
    if signer in trusted:
        return None
    if not entry.origin:
        return "it does not say which machine built it"
    origin = printable(entry.origin, 100)
    if signer is None:
        return (
            f"it was built elsewhere, by {origin}, and its signature is not that of its entry: build it again"
        )
    return (
        f"it was built elsewhere, by {origin}, and an engine is a program: "
        f"set {TRUST_VARIABLE}={signer} if you trust that machine and it says so (velora build --public-key)"
    )


def find_signer(entry: EngineFile) -> str | None:
    """The public key that signed the entry as it is, None if none did.

    Raises:
        MissingExtraError: if cryptography is not installed.
    """
    public, _, signature = entry.signature.rpartition(":")
    unsigned = entry.model_copy(update={"signature": ""})
    try:
        key = _public_key(public)
        key.verify(base64.b64decode(signature, validate=True), _signed_part(unsigned))
    except (ValueError, _load_cryptography().exceptions.InvalidSignature):
        return None
    return public


def origin_name(public: str) -> str:
    """A machine's name: this one's host name and the first digits of its public key's digest."""
    host = re.sub(r"[^A-Za-z0-9-]+", "-", socket.gethostname()).strip("-") or "host"
    return f"{host}-{hashlib.sha256(public.encode()).hexdigest()[:8]}"


def _signed_part(entry: EngineFile) -> bytes:
    """The entry but for what was measured; an engine for the GPU is signed as before there were others."""
    for_gpu = {"dla_core"} if entry.dla_core is None else set()
    return entry.model_dump_json(exclude={"signature", "parity", "compiled", *for_gpu}).encode()


def _trusted_keys() -> set[str]:
    keys = {word.strip() for word in os.environ.get(TRUST_VARIABLE, "").split(",") if word.strip()}
    wrong = next((key for key in keys if not _is_public_key(key)), None)
    if wrong is not None:
        raise EngineError(
            f"expected public keys in {TRUST_VARIABLE} ({_PREFIX}...), got {printable(wrong, 100)!r}; "
            "the machine that built the engines tells its own: velora build --public-key"
        )
    return keys


def _is_public_key(text: str) -> bool:
    try:
        _public_key(text)
    except ValueError:
        return False
    return True


def _public_key(text: str) -> Any:
    """The key that a text holds; ValueError if it holds none."""
    if not text.startswith(_PREFIX) or not text.isascii():
        raise ValueError("not a public key")
    raw = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    return _load_cryptography().Ed25519PublicKey.from_public_bytes(raw)


def _private_key(seed: bytes) -> Any:
    return _load_cryptography().Ed25519PrivateKey.from_private_bytes(seed)


def _public_text(private: Any) -> str:
    return _PREFIX + base64.b64encode(private.public_key().public_bytes_raw()).decode("ascii")


def _load_cryptography() -> Any:
    try:
        from cryptography import exceptions
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise MissingExtraError("cryptography", "tensorrt", "checking who built an engine") from error
    return SimpleNamespace(
        exceptions=exceptions,
        Ed25519PublicKey=ed25519.Ed25519PublicKey,
        Ed25519PrivateKey=ed25519.Ed25519PrivateKey,
    )


def _read_key() -> bytes | None:
    try:
        key = key_path().read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise EngineError(f"{key_path()}: the engine key cannot be read: {error.strerror}") from error
    if len(key) != KEY_BYTES:
        raise EngineError(
            f"{key_path()}: expected an engine key of {KEY_BYTES} bytes, got {len(key)}; "
            "remove it and build again"
        )
    return key


def _make_key() -> bytes:
    path, key = key_path(), secrets.token_bytes(KEY_BYTES)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:  # another build has just made one
        return _read_key() or _make_key()
    except OSError as error:
        raise EngineError(f"{path}: the engine key cannot be made: {error.strerror}") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
    return key
