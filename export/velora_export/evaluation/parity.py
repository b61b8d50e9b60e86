"""Parity and latency of an export: distance of its logits from the trained model's, time of a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from velora_edge.datatypes import MODALITIES
from velora_edge.doctor.host import system
from velora_edge.events.accumulate.active_patches import PATCHES
from velora_edge.manifest import Accuracy
from velora_export.evaluation.sessions import stream_clip

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from velora_edge.manifest import Manifest
    from velora_edge.model.config import ModelConfig
    from velora_edge.model.velora import VELoRA
    from velora_export.evaluation.sessions import Clips, Flags, Sessions


CLOSELY = 4
"""So many clips are also run merged in torch, and image by image; the others through the clip graph alone."""


@dataclass(frozen=True)
class Parity:
    """Largest absolute differences of logits.

    Attributes:
        source: of the clips.
        clips: how many there were.
        merged: the merged model, as it was traced, against the one with its LoRA apart, both in torch.
        onnx: the clip graph against the model in torch, both cameras there and each alone.
        streaming: tokens by image, slots in another order, then the head graph, against the clip graph.
        largest: the largest absolute logit in torch.
        top1_agreement: share of clips whose best label is the same in torch and in the clip graph.
        accuracy: where the clips have labels.
        is_real: the clips are no noise.
    """

    source: str
    clips: int
    merged: float
    onnx: float
    streaming: float
    largest: float
    top1_agreement: float
    accuracy: Accuracy | None = None
    is_real: bool = True


def measure_parity(
    model: VELoRA, merged: VELoRA, sessions: Sessions, clips: Clips, tick: Callable[[], None] = lambda: None
) -> Parity:
    """Compare graphs with the model that they were made of.

    Args:
        model: with its LoRA apart, in eval mode.
        merged: the same, merged, in the form that was traced.
        sessions: of the graphs.
        clips: to run.
        tick: called after each clip.
    """
    merging = streaming = onnx = 0.0
    flags = clips.flags()
    wanted, given = [], []
    for number, (rgb, event) in enumerate(zip(clips.rgb, clips.event, strict=True)):
        wanted.append(_torch_logits(model, rgb, event, flags))
        given.append(_clip_logits(sessions, rgb, event, flags))
        if number < CLOSELY:
            merging = _worse(merging, _torch_logits(merged, rgb, event, flags), wanted[-1])
            streaming = _worse(streaming, stream_clip(sessions, rgb, event, flags), given[-1])
        onnx = _worse(onnx, given[-1], wanted[-1])
        tick()
    for camera in clips.cameras if len(clips.cameras) > 1 else ():
        alone = (clips.rgb[0], clips.event[0], clips.flags(without=camera))
        logits = _clip_logits(sessions, *alone)
        onnx = _worse(onnx, logits, _torch_logits(model, *alone))
        streaming = _worse(streaming, stream_clip(sessions, *alone), logits)
    torch_logits, logits = np.concatenate(wanted), np.concatenate(given)
    agreement = float((torch_logits.argmax(1) == logits.argmax(1)).mean())
    largest = float(np.abs(torch_logits).max())
    accuracy = _accuracy(clips, torch_logits, logits)
    return Parity(
        clips.source, len(clips), merging, onnx, streaming, largest, agreement, accuracy, clips.are_real
    )


def normalise(images: NDArray[np.uint8], config: ModelConfig) -> torch.Tensor:
    """uint8 images [..., H, W, 3] as the model in torch takes them: float [..., 3, H, W]."""
    scaled = torch.from_numpy(images).float() / 255
    normal = (scaled - torch.tensor(config.mean)) / torch.tensor(config.std)
    return normal.movedim(-1, -3)


def _accuracy(clips: Clips, wanted: NDArray[np.float32], given: NDArray[np.float32]) -> Accuracy | None:
    if clips.labels is None:
        return None
    told = [float((logits.argmax(1) == clips.labels).mean()) for logits in (wanted, given)]
    return Accuracy(clips=len(clips), torch=told[0], exported=told[1])


def _clip_logits(
    sessions: Sessions, rgb: NDArray[np.uint8], event: NDArray[np.uint8], flags: Flags
) -> NDArray[np.float32]:
    return sessions.run("clip", {"rgb": rgb[None], "event": event[None], **flags})


def _torch_logits(
    model: VELoRA, rgb: NDArray[np.uint8], event: NDArray[np.uint8], flags: Flags
) -> NDArray[np.float32]:
    images = (normalise(stream, model.config)[None] for stream in (rgb, event))
    present = (torch.from_numpy(flags[name]) > 0 for name in ("rgb_present", "event_present"))
    with torch.no_grad():
        logits = model(*images, *present)
    return np.asarray(logits.numpy(), np.float32)


def _worse(so_far: float, a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """The larger difference; once one was no number, so is the result."""
    return float(np.maximum(so_far, np.abs(a - b).max()))


def step_inputs(manifest: Manifest, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Inputs of one step by graph: images of noise, full rings."""
    draw = np.random.default_rng(seed)
    image = draw.integers(0, 256, (1, *manifest.image_size, 3), np.uint8)
    slots = {name: manifest.clip_length - (name == "diff") for name in MODALITIES}
    sizes = {name: (1, count, manifest.tokens, manifest.token_size) for name, count in slots.items()}
    rings = {name: draw.normal(size=size).astype(np.float32) for name, size in sizes.items()}
    flags = {f"{name}_present": np.ones((1, count), np.float32) for name, count in slots.items()}
    pair = dict.fromkeys(("rgb", "rgb_before", "event", "event_before"), image)
    patches = {}
    if manifest.active_patches is not None:  # all of them: of noise, none is still
        patches[PATCHES] = np.arange(manifest.active_patches.count, dtype=np.int64)[None]
    return {
        "rgb": {"image": image},
        "event": {"image": image, **patches},
        "diff": {**pair, **patches},
        "head": {**rings, **flags},
    }


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
