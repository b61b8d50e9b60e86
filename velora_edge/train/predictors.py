"""Predictors of clip labels behind one interface: a checkpoint in torch, a bundle in ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from velora_edge.bundle import MANIFEST, find_model, open_bundle
from velora_edge.data.clips.augment import ClipConfig
from velora_edge.errors import BundleError, EngineError, MissingExtraError
from velora_edge.ort import checked_copy

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from numpy.typing import NDArray

    from velora_edge.bundle import Bundle
    from velora_edge.data.clips.clips import ClipSpec
    from velora_edge.model.velora import VELoRA
    from velora_edge.train.batches import Batch


@dataclass(frozen=True)
class Facts:
    """What a model says of itself.

    Attributes:
        name: for the reader.
        kind: checkpoint or bundle.
        runtime: what it runs on.
        trained: False for random weights.
        run: identity of its training run.
        accuracy: figures that travel with it.
        parameters: how many, by trained and frozen, where it is known.
        span_s: seconds that a clip covered in training; None: not known.
    """

    name: str
    kind: str
    runtime: str
    trained: bool
    run: dict[str, Any] = field(default_factory=dict)
    accuracy: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, int] = field(default_factory=dict)
    span_s: float | None = None


class Predictor(Protocol):
    """A model that is ready to be asked.

    Attributes:
        facts: what it says of itself.
        labels: class names in the order of its logits.
        spec: the form that it wants its clips in.
    """

    facts: Facts
    labels: tuple[str, ...]
    spec: ClipSpec

    def logits(self, batch: Batch) -> NDArray[np.float32]:
        """Logits float32[B, K] of clips."""


class TorchPredictor:
    """A checkpoint, or a network that is at hand.

    Args:
        model: in any mode; put in eval mode here.
        clip: how its clips are made.
        facts: what is known of it.
        device: torch's name of a device.
    """

    def __init__(self, model: VELoRA, clip: ClipConfig, facts: Facts, device: str = "cpu") -> None:
        import torch

        from velora_edge.train.objective import Objective

        self.facts = facts
        self.labels = model.config.labels
        self.spec = clip.spec(model.config.clip_length, model.config.image_size)
        self._device = torch.device(device)
        self._objective = Objective(model.eval()).to(self._device)

    def logits(self, batch: Batch) -> NDArray[np.float32]:
        """See `Predictor.logits`."""
        import torch

        with torch.inference_mode():
            logits = self._objective.logits(batch.to(self._device))
        return np.asarray(logits.cpu().numpy(), np.float32)


class BundlePredictor:
    """A bundle's clip graph in ONNX Runtime.

    Args:
        bundle: checked.
        provider: ONNX Runtime's name of an execution provider.
    """

    def __init__(self, bundle: Bundle, provider: str = "CPUExecutionProvider") -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError("onnxruntime", "cpu", "evaluating a bundle") from error
        manifest = bundle.manifest
        try:
            with checked_copy(bundle, "clip") as path:
                self._session = onnxruntime.InferenceSession(str(path), providers=[provider])
        except (BundleError, EngineError):
            raise
        except Exception as error:  # onnxruntime's own types, none of them public
            raise EngineError(f"ONNX Runtime cannot load {bundle.graph('clip')}: {error}") from error
        if self._session.get_providers()[0] != provider:
            raise EngineError(f"ONNX Runtime has no {provider} here; evaluate with --device cpu")
        self.labels = manifest.labels
        run = manifest.weights.run
        clip = ClipConfig(
            sampling=run.get("data", {}).get("sampling", "spread"),
            stride=manifest.stride,
            event=manifest.event,
            rgb=manifest.rgb,
            rate_hz=manifest.rate_hz,
        )
        self.spec = clip.spec(manifest.clip_length, manifest.image_size)
        self.facts = Facts(
            manifest.name,
            "bundle",
            f"ONNX Runtime {onnxruntime.__version__}, {provider}, {manifest.precision}",
            manifest.weights.trained,
            run,
            manifest.accuracy,
            run.get("parameters", {}),
            manifest.span_s,
        )

    def logits(self, batch: Batch) -> NDArray[np.float32]:
        """See `Predictor.logits`."""
        shape = (len(batch), self.spec.length, *self.spec.image_size, 3)
        empty = np.zeros(shape, np.uint8)
        present = batch.present.numpy().astype(np.float32)
        slots = np.repeat(present[:, :, None], self.spec.length, axis=2)
        inputs = {
            "rgb": empty if batch.rgb is None else batch.rgb.numpy(),
            "event": empty if batch.event is None else batch.event.numpy(),
            "rgb_present": np.ascontiguousarray(slots[:, 0]),
            "event_present": np.ascontiguousarray(slots[:, 1]),
        }
        (logits,) = self._session.run(None, inputs)
        return np.asarray(logits, np.float32)


def open_predictor(model: str | os.PathLike[str], device: str = "cpu") -> Predictor:
    """The model that MODEL names: a checkpoint's folder, a run's folder (its best), a bundle, or `demo`.

    Args:
        model: as the user wrote it.
        device: cpu or cuda.

    Raises:
        BundleError: if there is no such model, or it is damaged.
        EngineError: if the device cannot be had.
    """
    path = find_model(model)
    if (path / MANIFEST).is_file():
        provider = "CUDAExecutionProvider" if device == "cuda" else "CPUExecutionProvider"
        return BundlePredictor(open_bundle(path), provider)
    if path.is_dir() and (path / "best").is_dir():
        path /= "best"
    return _open_checkpoint(path, device)


def _open_checkpoint(path: Path, device: str) -> TorchPredictor:
    import torch

    from velora_edge.model.checkpoint import CHECKPOINT, load_model, read_checkpoint
    from velora_edge.model.lora import count_parameters, merge, set_tuning

    if path.exists() and not (path / CHECKPOINT).is_file():
        raise BundleError(
            "neither a checkpoint nor a bundle",
            path=path,
            remedy="give a run's folder, a checkpoint in it (best, last), a bundle, or demo",
        )
    if device == "cuda" and not torch.cuda.is_available():
        raise EngineError("torch has no CUDA device here; evaluate with --device cpu")
    description, model = read_checkpoint(path), load_model(path)
    set_tuning(model, model.config.tuning)
    counts = count_parameters(model)
    inputs = description.inputs
    clip = ClipConfig(
        sampling=description.run.get("data", {}).get("sampling", "spread"),
        stride=inputs.stride,
        event=inputs.event,
        rgb=inputs.rgb,
        rate_hz=inputs.rate_hz,
    )
    facts = Facts(
        str(description.run.get("name", path.name)),
        "checkpoint",
        f"torch {torch.__version__}, {device}",
        description.trained,
        description.run,
        description.accuracy,
        {"trained": counts.trained, "frozen": counts.frozen},
        inputs.span_s,
    )
    return TorchPredictor(merge(model), clip, facts, device)
