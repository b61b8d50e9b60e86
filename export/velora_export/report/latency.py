"""How long a streaming step takes on this machine: three towers and the head, one pair, on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge.datatypes import MODALITIES
from velora_edge.doctor.host import system

if TYPE_CHECKING:
    from collections.abc import Callable

    from velora_edge.manifest import Manifest
    from velora_export.cpu_run.sessions import Sessions


def step_inputs(manifest: Manifest, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Inputs of one step by graph: images of noise, full rings."""
    draw = np.random.default_rng(seed)
    image = draw.integers(0, 256, (1, *manifest.image_size, 3), np.uint8)
    slots = {name: manifest.clip_length - (name == "diff") for name in MODALITIES}
    sizes = {name: (1, count, manifest.tokens, manifest.token_size) for name, count in slots.items()}
    rings = {name: draw.normal(size=size).astype(np.float32) for name, size in sizes.items()}
    flags = {f"{name}_present": np.ones((1, count), np.float32) for name, count in slots.items()}
    pair = dict.fromkeys(("rgb", "rgb_before", "event", "event_before"), image)
    return {"rgb": {"image": image}, "event": {"image": image}, "diff": pair, "head": {**rings, **flags}}


def make_step(sessions: Sessions, manifest: Manifest) -> Callable[[], None]:
    """One streaming step of a bundle's graphs, ready to be timed."""
    inputs = step_inputs(manifest)
    for name in MODALITIES:  # tokens are of the type that the graphs give
        halves = sessions.session("head").get_inputs()[0].type == "tensor(float16)"
        inputs["head"][name] = inputs["head"][name].astype(np.float16 if halves else np.float32)
    runs = [(sessions.session(graph), given) for graph, given in inputs.items()]

    def step() -> None:
        for session, given in runs:
            session.run(None, given)

    return step


def processor() -> str:
    """This machine's processor and its cores, for the report."""
    facts = system()
    return f"{facts['cpu']}, {facts['cores']} cores"
