"""Timing of ONNX Runtime and OpenVINO on one bundle and this processor, in turn, kept on disk."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge.clock import time_in_turn
from velora_edge.doctor.host import system
from velora_edge.errors import EngineError
from velora_edge.files import cache_home, replace_file
from velora_edge.limits import load_json, read_text
from velora_runtime.engines import openvino, ort
from velora_runtime.engines.openvino_graphs import bundle_digest
from velora_runtime.engines.ring import Presence, Slot

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from velora_edge.bundle import Bundle
    from velora_runtime.engines.base import Engine, EngineOptions

SECONDS = 4.0
"""Steps of both backends are measured for so long together."""
MARGIN = 0.95
"""OpenVINO is faster where its median is below this share of ONNX Runtime's: noise must not decide."""


@dataclass(frozen=True, slots=True)
class CpuTiming:
    """Streaming steps of both backends, turn by turn: three towers and the head, one pair.

    Attributes:
        key: what the times hold for; see `timing_key`.
        p50_ms: median by backend.
        p99_ms: 99th percentile by backend.
    """

    key: Mapping[str, Any]
    p50_ms: Mapping[str, float]
    p99_ms: Mapping[str, float]

    @property
    def is_openvino_faster(self) -> bool:
        """Whether OpenVINO is to be taken."""
        return self.p50_ms["openvino"] < MARGIN * self.p50_ms["onnxruntime"]

    @property
    def best(self) -> str:
        """The backend that auto takes on this processor."""
        return "openvino" if self.is_openvino_faster else "onnxruntime"

    def describe(self) -> str:
        """Both medians in one line, for people."""
        ours, theirs = self.p50_ms["openvino"], self.p50_ms["onnxruntime"]
        return f"a step takes openvino {ours:.1f} ms, onnxruntime {theirs:.1f} ms"


def timing_key(bundle: Bundle, threads: int) -> dict[str, Any]:
    """What a timing holds for: bundle, processor, cores, threads and both libraries' versions."""
    host = system()
    return {
        "bundle": bundle_digest(bundle),
        "cpu": host["cpu"],
        "cores": host["cores"],
        "threads": threads,
        "openvino": metadata.version("openvino"),
        "onnxruntime": metadata.version("onnxruntime"),
    }


def measure(bundle: Bundle, options: EngineOptions, seconds: float = SECONDS) -> CpuTiming:
    """Time both backends on the CPU; takes `seconds` and the loading of both.

    Raises:
        EngineError: if one of them cannot run the bundle here.
    """
    steps: dict[str, Callable[[], None]] = {}
    with contextlib.ExitStack() as opened:
        for name, backend in (("onnxruntime", ort), ("openvino", openvino)):
            reason = backend.why_not(bundle, options)
            if reason is not None:
                raise EngineError(f"{name} cannot run {bundle.manifest.name}: {reason}")
            engine = backend.open_engine(bundle, options)
            opened.callback(engine.close)
            engine.warm_up()
            steps[name] = _make_step(engine, bundle)
        times = dict(zip(steps, time_in_turn(list(steps.values()), seconds), strict=True))
    p50, p99 = (
        {name: round(float(np.percentile(taken, share)), 3) for name, taken in times.items()}
        for share in (50, 99)
    )
    return CpuTiming(timing_key(bundle, options.threads), p50, p99)


def write_timing(timing: CpuTiming) -> Path:
    """Keep a timing; gives the file.

    Raises:
        EngineError: if it cannot be written.
    """
    path = _path(timing.key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, (json.dumps(asdict(timing), indent=2) + "\n").encode(), mode=0o644)
    except OSError as error:
        raise EngineError(f"the timing cannot be kept in {path}: {error.strerror}") from error
    return path


def read_timing(bundle: Bundle, options: EngineOptions) -> CpuTiming | None:
    """The timing that holds for this bundle, processor and these versions; None where there is none."""
    try:
        key = timing_key(bundle, options.threads)
        read = load_json(read_text(_path(key)))
        found = CpuTiming(read["key"], read["p50_ms"], read["p99_ms"])
        return found if found.key == key and found.describe() else None
    except (OSError, ValueError, KeyError, TypeError, metadata.PackageNotFoundError):
        return None


def _path(key: Mapping[str, Any]) -> Path:
    return cache_home() / "velora" / "cpu_timing" / f"{key['bundle'][:16]}-{key['threads']}.json"


def _make_step(engine: Engine, bundle: Bundle) -> Callable[[], None]:
    manifest = bundle.manifest
    draw = np.random.default_rng(0)
    rgb, event = draw.integers(0, 256, (2, *manifest.image_size, 3), np.uint8)
    sizes = (manifest.clip_length, manifest.clip_length, manifest.clip_length - 1)
    presence, slot = Presence(*(np.ones(size, np.float32) for size in sizes)), Slot(0, 0, 0)

    def step() -> None:
        engine.encode("rgb", (rgb,), slot)
        engine.encode("event", (event,), slot)
        engine.encode("diff", (rgb, event, event, rgb), slot)
        engine.decide(0, presence)

    return step
