"""What `velora info` tells of engines: those of a bundle, and an engine file alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from velora_edge.errors import EngineError, MissingExtraError
from velora_edge.gpu.kinds import RTX
from velora_edge.gpu.matching import describe_target
from velora_edge.gpu.plan import read_plan_header
from velora_edge.gpu.validity import read_validity

if TYPE_CHECKING:
    from pathlib import Path

    from velora_edge.bundle import EngineFile


def engine_line(entry: EngineFile, bundle: Path) -> str:
    """One engine of a bundle: size, target, what its layers compute in, who built it."""
    file = bundle / entry.file
    size = f"{file.stat().st_size / 1e6:.1f} MB" if file.is_file() else "the file is missing"
    layers = "" if entry.compiled is None else f"; {entry.compiled.describe()}"
    return f"{size}, {describe_target(entry)}{layers}; built by {entry.origin}"


def describe_plan(path: Path) -> dict[str, str]:
    """What an engine file says of itself, and, of TensorRT for RTX, what the library here says of it."""
    kind, version = read_plan_header(path)
    facts = {"format": f"{kind.title} engine", "version": version}
    if kind is RTX:
        try:
            facts["validity"] = read_validity(path.read_bytes())
        except (EngineError, MissingExtraError) as error:
            facts["validity"] = f"not asked: {error}"
    return facts
