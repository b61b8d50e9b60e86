"""How long a streaming step takes on this machine: three towers and the head, one pair, on the CPU."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge.datatypes import MODALITIES
from velora_edge.doctor.host import system

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from velora_edge.manifest import Manifest
    from velora_export.cpu_run.sessions import Sessions

LEAST, MOST = 10, 300
"""Steps that are measured."""
SECONDS = 8.0
"""After so long no more than `LEAST` are."""


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


def time_steps(
    steps: Sequence[Callable[[], None]], *, least: int = LEAST, most: int = MOST, seconds: float = SECONDS
) -> list[list[float]]:
    """Times of each kind of step in milliseconds; one of each in turn, so that all see the same machine."""
    for step in steps:
        step()
    times: list[list[float]] = [[] for _ in steps]
    begun = time.perf_counter()
    while len(times[0]) < least or (len(times[0]) < most and time.perf_counter() - begun < seconds):
        for step, taken in zip(steps, times, strict=True):
            start = time.perf_counter()
            step()
            taken.append((time.perf_counter() - start) * 1e3)
    return times


def processor() -> str:
    """This machine's processor and its cores, for the report."""
    facts = system()
    return f"{facts['cpu']}, {facts['cores']} cores"
