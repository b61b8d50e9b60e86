"""Streams through the rings beside whole clips through the clip graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from velora_runtime.engines.base import EngineOptions
from velora_runtime.engines.registry import open_engine
from velora_runtime.inference.recogniser import PairRecogniser

from tests.fakes import FakeClock
from velora_edge.datatypes import EventFrame, FramePair, RGBFrame
from velora_edge.preprocessing.packer import Pair

if TYPE_CHECKING:
    from velora_runtime.engines.base import Device

    from velora_edge.bundle import Bundle


def make_pair(seq: int, rgb: np.ndarray | None, event: np.ndarray | None) -> Pair:
    shape = next(image.shape for image in (rgb, event) if image is not None)
    packed = Pair.empty(shape[:2])
    rgb_frame = event_frame = None
    if rgb is not None:
        packed.rgb_image[:] = rgb
        rgb_frame = RGBFrame(rgb, seq, seq)
    if event is not None:
        packed.event_image[:] = event
        event_frame = EventFrame(packed.event_image, seq, seq + 1, 0)
    packed.frames = FramePair(seq, seq, rgb_frame, event_frame)
    return packed


def stream_and_clips(
    bundle: Bundle,
    rgb: np.ndarray,
    event: np.ndarray,
    kinds: str,
    every: int = 1,
    backend: str = "onnxruntime",
) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a stream of pairs, and of the same clips as the clip graph sees them.

    Where a camera is absent, the clip graph still gets its image: it must not matter.

    Args:
        bundle: the model.
        rgb: uint8[pairs, H, W, 3].
        event: the same, of the events.
        kinds: for each pair b both cameras, r RGB alone, e events alone.
        every: of the clips, how many pairs apart they are compared.
        backend: of the stream; the clip graph is always ONNX Runtime's.

    Returns:
        Two arrays [clips, K].
    """
    manifest = bundle.manifest
    T, s = manifest.clip_length, manifest.stride
    device: Device = "cpu" if backend in ("onnxruntime", "openvino") else "auto"
    engine = open_engine(bundle, backend, EngineOptions(device=device, threads=2)).engine
    engine.warm_up()
    clip_graph = _open_clip_graph(bundle)
    recogniser = PairRecogniser(manifest, engine, FakeClock())
    streamed, whole = [], []
    for i, kind in enumerate(kinds):
        pair = make_pair(i, rgb[i] if kind in "br" else None, event[i] if kind in "be" else None)
        logits = recogniser.see(pair)
        assert (logits is not None) == (i >= (T - 1) * s)
        if logits is not None and i % every == 0:
            streamed.append(logits.copy())
            which = list(range(i - (T - 1) * s, i + 1, s))
            whole.append(_run_clip(clip_graph, rgb[which], event[which], "".join(kinds[j] for j in which)))
    engine.close()
    return np.array(streamed), np.array(whole)


def _open_clip_graph(bundle: Bundle) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    return onnxruntime.InferenceSession(
        str(bundle.graph("clip")), options, providers=["CPUExecutionProvider"]
    )


def _run_clip(session: Any, rgb: np.ndarray, event: np.ndarray, kinds: str) -> np.ndarray:
    present = [np.array([[kind in cameras for kind in kinds]], np.float32) for cameras in ("br", "be")]
    feeds = {"rgb": rgb[None], "event": event[None], "rgb_present": present[0], "event_present": present[1]}
    return np.asarray(session.run(None, feeds)[0][0])
