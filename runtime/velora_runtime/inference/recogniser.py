"""Recognisers: from pairs to predictions, one at a time; and the one of a run without a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge import __version__
from velora_edge.bundle import EventInput, Manifest, Weights
from velora_edge.datatypes import Prediction
from velora_edge.errors import EngineError
from velora_edge.preprocessing.packer import Pair
from velora_runtime.engines.ring import ClipRing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from velora_edge.clock import Clock
    from velora_runtime.engines.base import Engine
    from velora_runtime.engines.ring import Entry


NO_MODEL = "none"


def no_model() -> Manifest:
    """Manifest of a run without a model: polarity images of 224x224, windows of 1/30 s."""
    return Manifest(
        name=NO_MODEL,
        version=__version__,
        labels=(NO_MODEL,),
        clip_length=2,
        image_size=(224, 224),
        tokens=1,
        token_size=1,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        event=EventInput(fit="letterbox"),
        weights=Weights(trained=True, architecture=NO_MODEL, sha256=""),
        opset=18,
    )


class NullRecogniser:
    """Recogniser of a run without a model: no predictions. Single-threaded: the inference thread."""

    missing = 0
    encode_us = head_us = 0
    scores = np.zeros(1, np.float32)

    def see(self, packed: Pair) -> None:
        """No logits."""

    def predict(self, *args: Any) -> Any:
        """Never called, as there are no logits."""
        raise RuntimeError("expected a model")


TOP = 5
"""Labels that a prediction names."""


class PairRecogniser:
    """Recognises a stream of pairs.

    Single-threaded: the inference thread only.

    Args:
        manifest: the model's.
        engine: warmed up.
        clock: for the stages' times.

    Attributes:
        ring: which pairs it holds.
        encode_us: what the towers took for the last pair, microseconds.
        head_us: what the head took, 0 where the clip was not yet full.
        scores: probabilities of the last prediction by label, float32[K]; valid until the next.
    """

    def __init__(self, manifest: Manifest, engine: Engine, clock: Clock) -> None:
        self.ring = ClipRing(manifest.clip_length, manifest.stride)
        self.encode_us = self.head_us = 0
        self._labels, self._engine, self._clock = manifest.labels, engine, clock
        self._before = [Pair.empty(manifest.image_size) for _ in range(manifest.stride)]
        self.scores = np.zeros(len(manifest.labels), np.float32)

    @property
    def missing(self) -> int:
        """Number of pairs still missing before the first prediction."""
        return max(0, (self.ring.clip_length - 1) * self.ring.stride + 1 - self.ring.pairs)

    def see(self, packed: Pair) -> NDArray[np.float32] | None:
        """Take a pair in; return the clip's logits, float32[K], valid until the next call.

        Args:
            packed: the pair. Its images are exchanged for others, to be kept until the next pair of its ring.

        Returns:
            None until a clip is full.

        Raises:
            EngineError: if the engine fails, or gives what is no number.
        """
        start_us = self._clock.now_us()
        has_rgb, has_event = packed.frames.rgb is not None, packed.frames.event is not None
        entry = self.ring.enter(rgb=has_rgb, event=has_event)
        if has_rgb:
            self._engine.encode("rgb", (packed.rgb_image,), entry.slot)
        if has_event:
            self._engine.encode("event", (packed.event_image,), entry.slot)
        self._encode_diff(packed, entry)
        before = self._before[entry.slot.phase]
        packed.rgb_image, before.rgb_image = before.rgb_image, packed.rgb_image
        packed.event_image, before.event_image = before.event_image, packed.event_image
        encoded_us = self._clock.now_us()
        logits = self._decide(entry) if entry.is_full else None
        self.encode_us, self.head_us = encoded_us - start_us, self._clock.now_us() - encoded_us
        return logits

    def predict(
        self,
        packed: Pair,
        logits: NDArray[np.float32],
        latency_ms: Mapping[str, float],
        dropped: Mapping[str, int],
        missing: tuple[str, ...] = (),
    ) -> Prediction:
        """Make the prediction for the pair from the logits."""
        softmax_into(logits, self.scores)
        best = (-self.scores).argsort(kind="stable")[:TOP]
        labels = [self._labels[i] for i in best.tolist()]
        top = tuple(zip(labels, self.scores[best].tolist(), strict=True))
        pair = packed.frames
        return Prediction(
            pair.seq, pair.t_us, *top[0], top, packed.events, pair.skew_us, latency_ms, dropped, missing
        )

    def _encode_diff(self, packed: Pair, entry: Entry) -> None:
        if not (entry.rgb_moved or entry.event_moved):
            return
        before = self._before[entry.slot.phase]
        self._engine.encode(
            "diff",
            (
                packed.rgb_image,
                before.rgb_image if entry.rgb_moved else packed.rgb_image,
                packed.event_image,
                before.event_image if entry.event_moved else packed.event_image,
            ),
            entry.slot,
        )

    def _decide(self, entry: Entry) -> NDArray[np.float32]:
        phase = entry.slot.phase
        logits = self._engine.decide(phase, self.ring.presence[phase])
        if not np.logical_and.reduce(np.isfinite(logits)):
            raise EngineError(f"{self._engine.name} gave logits that are no numbers: {logits[:4]} ...")
        return logits


def softmax_into(logits: NDArray[np.float32], scores: NDArray[np.float32]) -> None:
    """Probabilities of logits (or of log-probabilities, which gives the same), float32[K], summing to 1."""
    # Ufuncs alone: numpy's methods for arrays go by way of Python, which is most of what so few numbers cost.
    np.subtract(logits, np.maximum.reduce(logits), out=scores)
    np.exp(scores, out=scores)
    scores /= np.add.reduce(scores)
