"""Model of a run, opened once, and its recogniser: from pairs to predictions, one at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge import __version__
from velora_edge.bundle import EventInput, Manifest, Weights, open_bundle
from velora_edge.datatypes import Prediction
from velora_edge.errors import EngineError
from velora_edge.manifest import was_trained_on_files
from velora_edge.preprocessing.packer import Pair
from velora_runtime.engines.base import EngineOptions, RetryingEngine
from velora_runtime.engines.registry import open_engine
from velora_runtime.engines.ring import ClipRing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from numpy.typing import NDArray
    from typing_extensions import Self

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


class RunModel:
    """A run's model: the bundle, where there is one, and its engine once it is opened.

    Use as a context manager, or call `close`. Single-threaded, and of one run at a time.

    Args:
        model: a bundle's folder, or demo; None for a run without a model.
        backend: the engine's, or auto.
        options: what it runs on.

    Attributes:
        bundle: None in a run without a model.
        manifest: the bundle's, or that of a run without a model.
        engine: None until it is opened.

    Raises:
        BundleError: if there is no such model, or it is damaged.
    """

    def __init__(
        self, model: str | None, backend: str = "auto", options: EngineOptions | None = None
    ) -> None:
        self._backend, self._options = backend, options or EngineOptions()
        self.bundle = None if model is None else open_bundle(model)
        self.manifest = no_model() if self.bundle is None else self.bundle.manifest
        self.engine: RetryingEngine | None = None

    def open_engine(self, note: Callable[[str], None]) -> RetryingEngine | None:
        """The engine, opened when it is first asked for; None without a model.

        Args:
            note: gets lines about it, now and at failures that are got over.

        Raises:
            EngineError: if there is none for this machine.
        """
        if self.engine is not None or self.bundle is None:
            return self.engine
        manifest = self.manifest
        if not manifest.weights.trained:
            note(f"the weights of {manifest.name} are random: its labels mean nothing")
        if was_trained_on_files(manifest):
            note(
                f"{manifest.name} was trained on event frames of image files, whose windows and colours are "
                "not known: packed here, events look different, and labels may be wrong; train on a set "
                "built from event files, or correct --palette at export"
            )
        choice = open_engine(self.bundle, self._backend, self._options)
        self.engine = RetryingEngine(choice.engine, note)
        note(f"{manifest.name} on {choice.engine.name}")
        for reason in choice.passed_over:
            note(f"passed over {reason}")
        self.engine.warm_up()
        return self.engine

    def close(self) -> None:
        """Let go of the engine; the next run opens another one."""
        engine, self.engine = self.engine, None
        if engine is not None:
            engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


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
