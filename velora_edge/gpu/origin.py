"""Whose engines a machine runs: its own, and those of machines that its user trusts by name.

A TensorRT engine is a program that is loaded into the process. The manifest's hash shows that the file is
the one that the manifest speaks of; who wrote the manifest it cannot show. So `velora build` signs an
engine's entry with a key that never leaves the machine (HMAC-SHA256, RFC 2104), and only entries that this
key signed are run, unless the origin is trusted by name: `VELORA_TRUST_ENGINES=name[,name]`. Machines that
share one key file trust each other's engines.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from velora_edge.errors import EngineError

if TYPE_CHECKING:
    from velora_edge.bundle import EngineFile

TRUST_VARIABLE = "VELORA_TRUST_ENGINES"
KEY_BYTES = 32


def key_path() -> Path:
    """Where this machine's key lies: `$XDG_CONFIG_HOME/velora/engine.key`."""
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "velora" / "engine.key"


def sign(entry: EngineFile) -> EngineFile:
    """The entry with this machine's name and signature; makes the key when there is none.

    Raises:
        EngineError: if the key cannot be read or made.
    """
    key = _read_key() or _make_key()
    named = entry.model_copy(update={"origin": origin_name(key), "signature": ""})
    return named.model_copy(update={"signature": _signature(named, key)})


def why_not_trusted(entry: EngineFile) -> str | None:
    """Why the engine may not be run here, for people; None if it may."""
    key = _read_key()
    if key is not None and hmac.compare_digest(entry.signature, _signature(entry, key)):
        return None
    trusted = [name for name in os.environ.get(TRUST_VARIABLE, "").split(",") if name]
    if entry.origin in trusted:
        return None
    if not entry.origin:
        return "it does not say which machine built it"
    return (
        f"it was built elsewhere, by {entry.origin}, and an engine is a program: "
        f"set {TRUST_VARIABLE}={entry.origin} if you trust that machine"
    )


def origin_name(key: bytes) -> str:
    """This machine's name: its host name and the first digits of its key's digest."""
    host = re.sub(r"[^A-Za-z0-9-]+", "-", socket.gethostname()).strip("-") or "host"
    return f"{host}-{hashlib.sha256(key).hexdigest()[:8]}"


def _signature(entry: EngineFile, key: bytes) -> str:
    # Entries of TensorRT are signed as they were before there was another kind.
    unsigned = {"signature", "parity", "compiled"} | (
        {"kind", "targets"} if entry.kind == "tensorrt" else set()
    )
    signed = entry.model_dump_json(exclude=unsigned)
    return hmac.new(key, signed.encode(), hashlib.sha256).hexdigest()


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
