"""How far an exported model's logits are from the trained one's: measured at every export."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from velora_edge.errors import EngineError
from velora_export.sessions import Sessions

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from velora_edge.model.config import ModelConfig
    from velora_edge.model.velora import VELoRA

TOLERANCE = {"fp32": 1e-4}
"""Largest absolute difference of logits that an export is allowed, by precision."""


@dataclass(frozen=True)
class Clips:
    """Clips to compare on.

    Attributes:
        rgb: uint8[B, T, H, W, 3].
        event: uint8[B, T, H, W, 3].
        source: where they come from, for the report.
    """

    rgb: NDArray[np.uint8]
    event: NDArray[np.uint8]
    source: str

    def __len__(self) -> int:
        return len(self.rgb)


@dataclass(frozen=True)
class Parity:
    """Largest absolute differences of logits.

    Attributes:
        source: of the clips.
        clips: how many there were.
        merged: the merged model, as it was traced, against the one with its LoRA apart, both in torch.
        onnx: the clip graph in ONNX Runtime against the model in torch, both cameras there and each alone.
        streaming: tokens by image, slots in another order, then the head graph, against the clip graph.
        top1_agreement: share of clips whose best label is the same in torch and in the clip graph.
        tolerance: what the export had to keep below.
    """

    source: str
    clips: int
    merged: float
    onnx: float
    streaming: float
    top1_agreement: float
    tolerance: float

    def as_dict(self) -> dict[str, Any]:
        """For the manifest: figures rounded to what they can say."""
        return {
            key: float(f"{value:.3g}") if isinstance(value, float) else value
            for key, value in asdict(self).items()
        }


def random_clips(config: ModelConfig, count: int = 4, seed: int = 0) -> Clips:
    """Clips of smooth noise, different in every frame."""
    draw = np.random.default_rng(seed)
    height, width = config.image_size
    coarse = draw.integers(
        0, 256, (2, count, config.clip_length, -(-height // 4), -(-width // 4), 3), np.uint8
    )
    images = coarse.repeat(4, axis=3).repeat(4, axis=4)[:, :, :, :height, :width]
    return Clips(np.ascontiguousarray(images[0]), np.ascontiguousarray(images[1]), f"random, seed {seed}")


def normalise(images: NDArray[np.uint8], config: ModelConfig) -> torch.Tensor:
    """uint8 images [..., H, W, 3] as the model in torch takes them: float [..., 3, H, W]."""
    scaled = torch.from_numpy(images).float() / 255
    normal = (scaled - torch.tensor(config.mean)) / torch.tensor(config.std)
    return normal.movedim(-1, -3)


def measure_parity(model: VELoRA, merged: VELoRA, folder: Path, clips: Clips, *, tolerance: float) -> Parity:
    """Compare the graphs in `folder` with the model that they were made of.

    Args:
        model: with its LoRA apart, in eval mode.
        merged: the same, merged, in the form that was traced.
        folder: where the graphs lie.
        clips: to run.
        tolerance: for the record; `check_parity` holds the result against it.
    """
    sessions = Sessions(folder)
    onnx, streaming, merging, agreements = 0.0, 0.0, 0.0, []
    for which, count in (("both", len(clips)), ("rgb", 1), ("event", 1)):
        for rgb, event in zip(clips.rgb[:count], clips.event[:count], strict=True):
            flags = _flags(which, len(rgb))
            wanted = _torch_logits(model, rgb, event, flags)
            given = sessions.run("clip", {"rgb": rgb[None], "event": event[None], **flags})
            merging = max(merging, _apart(_torch_logits(merged, rgb, event, flags), wanted))
            onnx = max(onnx, _apart(given, wanted))
            streaming = max(streaming, _apart(stream_clip(sessions, rgb, event, flags), given))
            agreements.append(bool(given.argmax() == wanted.argmax()))
    agreement = float(np.mean(agreements))
    return Parity(clips.source, len(clips), merging, onnx, streaming, agreement, tolerance)


def check_parity(parity: Parity) -> None:
    """Refuse an export that is not the model.

    Raises:
        EngineError: if a difference is above the tolerance.
    """
    for name in ("merged", "onnx", "streaming"):
        difference = getattr(parity, name)
        if not difference <= parity.tolerance:  # a NaN is refused too
            raise EngineError(
                f"the export is not the model: {name} logits are {difference:.2g} away on {parity.clips} "
                f"clips ({parity.source}), allowed {parity.tolerance:.0e}; report it with the model"
            )


def stream_clip(
    sessions: Sessions,
    rgb: NDArray[np.uint8],
    event: NDArray[np.uint8],
    flags: dict[str, NDArray[np.float32]],
) -> NDArray[np.float32]:
    """Logits [1, K] of one clip as the runtime gets them: image by image, slots rotated, then the head.

    Args:
        sessions: of the graphs.
        rgb: uint8[T, H, W, 3].
        event: uint8[T, H, W, 3].
        flags: `rgb_present` and `event_present`, float32[1, T]: the same for all pairs of the clip.
    """
    T = len(rgb)
    rings = {
        "rgb": np.concatenate([sessions.run("rgb", {"image": image[None]}) for image in rgb]),
        "event": np.concatenate([sessions.run("event", {"image": image[None]}) for image in event]),
        "diff": np.concatenate(
            [_difference_tokens(sessions, rgb, event, flags, j) for j in range(1, T)]
        ),
    }  # fmt: skip
    turned = {name: np.roll(ring, 2, axis=0)[None] for name, ring in rings.items()}
    present = {**flags, "diff_present": np.ones((1, T - 1), np.float32)}
    return sessions.run("head", {**turned, **present})


def _difference_tokens(
    sessions: Sessions,
    rgb: NDArray[np.uint8],
    event: NDArray[np.uint8],
    flags: dict[str, NDArray[np.float32]],
    j: int,
) -> NDArray[np.float32]:
    has_rgb, has_event = flags["rgb_present"][0, j] > 0, flags["event_present"][0, j] > 0
    inputs = {
        "rgb": rgb[j],
        "rgb_before": rgb[j - 1] if has_rgb else rgb[j],
        "event": event[j],
        "event_before": event[j - 1] if has_event else event[j],
    }
    return sessions.run("diff", {name: image[None] for name, image in inputs.items()})


def _flags(which: str, T: int) -> dict[str, NDArray[np.float32]]:
    return {
        "rgb_present": np.full((1, T), which != "event", np.float32),
        "event_present": np.full((1, T), which != "rgb", np.float32),
    }


def _torch_logits(
    model: VELoRA,
    rgb: NDArray[np.uint8],
    event: NDArray[np.uint8],
    flags: dict[str, NDArray[np.float32]],
) -> NDArray[np.float32]:
    images = (normalise(stream, model.config)[None] for stream in (rgb, event))
    present = (torch.from_numpy(flags[name]) > 0 for name in ("rgb_present", "event_present"))
    with torch.no_grad():
        logits = model(*images, *present)
    return np.asarray(logits.numpy(), np.float32)


def _apart(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.abs(a - b).max())
