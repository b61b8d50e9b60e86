"""Streams of noise through engines, for comparing one backend with another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from velora_export.tensorrt.tensorrt_builder import BuildOptions, BuildProgress
from velora_export.tensorrt.tensorrt_engines import BundleBuilder, this_gpu
from velora_export.tensorrt.tensorrt_parity import noise_clips
from velora_runtime.engines.base import EngineOptions
from velora_runtime.engines.registry import open_engine
from velora_runtime.engines.ring import ClipRing

from velora_edge.bundle import Bundle, open_bundle, write_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from velora_runtime.engines.base import Engine

Frames = frozenset[tuple[str, int]]
GRAPHS = ("rgb", "event", "diff", "head")
SOME_ABSENT = frozenset({("rgb", 2), ("event", 3), ("event", 4), ("rgb", 7)})


def build(bundle: Bundle, options: BuildOptions | None = None) -> Bundle:
    clips = noise_clips(bundle.manifest, count=1)
    with BundleBuilder(bundle, options or BuildOptions(), clips, this_gpu()) as builder:
        list(builder.build(GRAPHS, BuildProgress(), force=False))
    return open_bundle(bundle.path)


def copy_bundle(bundle: Bundle, path: Path) -> Bundle:
    """The bundle at another place, without engines."""
    path.mkdir()
    for file in bundle.manifest.files:
        (path / file).write_bytes((bundle.path / file).read_bytes())
    write_manifest(path, bundle.manifest.model_copy(update={"engines": ()}))
    return open_bundle(path)


def stream(
    engine: Engine, bundle: Bundle, pairs: int, absent: frozenset[tuple[str, int]]
) -> list[list[float]]:
    """Logits at every full clip of noise pairs; `absent` names the frames that are not there."""
    manifest = bundle.manifest
    draw = np.random.default_rng(3)
    images = draw.integers(0, 256, (2, pairs, *manifest.image_size, 3), np.uint8)
    ring = ClipRing(manifest.clip_length, manifest.stride)
    logits = []
    for i in range(pairs):
        here = {name: (name, i) not in absent for name in ("rgb", "event")}
        entry = ring.enter(rgb=here["rgb"], event=here["event"])
        if here["rgb"]:
            engine.encode("rgb", (images[0, i],), entry.slot)
        if here["event"]:
            engine.encode("event", (images[1, i],), entry.slot)
        if entry.rgb_moved or entry.event_moved:
            before = i - manifest.stride
            engine.encode(
                "diff",
                (
                    images[0, i],
                    images[0, before if entry.rgb_moved else i],
                    images[1, i],
                    images[1, before if entry.event_moved else i],
                ),
                entry.slot,
            )
        if entry.is_full:
            phase = entry.slot.phase
            logits.append(engine.decide(phase, ring.presence[phase]).tolist())
    return logits


def same_stream(bundle: Bundle, engine: Engine, pairs: int, absent: Frames, atol: float = 1e-4) -> None:
    reference = open_engine(bundle, "onnxruntime", EngineOptions(threads=2)).engine
    for one in (reference, engine):
        one.warm_up()
    expected = stream(reference, bundle, pairs, absent)
    assert len(expected) > 3
    np.testing.assert_allclose(stream(engine, bundle, pairs, absent), expected, atol=atol, rtol=0)
