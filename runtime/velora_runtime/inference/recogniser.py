"""Recognisers: from pairs to predictions, one at a time, and the time that their clips cover."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge.datatypes import Prediction
from velora_edge.errors import EngineError
from velora_edge.events.accumulate.active_patches import PatchFinder, list_patches
from velora_edge.preprocessing.packer import Pair
from velora_edge.preprocessing.windows import clip_span_s, is_span_off, pair_rate_hz, stride_for
from velora_runtime.engines.ring import ClipRing, Presence

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from velora_edge.bundle import Manifest
    from velora_edge.clock import Clock
    from velora_runtime.engines.base import Engine
    from velora_runtime.engines.ring import Entry


class NullRecogniser:
    """Recogniser of a run without a model: no predictions. Single-threaded: the inference thread."""

    missing = 0
    encode_us = head_us = 0
    is_idle = False
    span = None
    scores = np.zeros(1, np.float32)

    def see(self, packed: Pair) -> None:
        """No logits."""

    def see_between(self, packed: Pair) -> None:
        """No logits."""

    def predict(self, *args: Any) -> Any:
        """Never called, as there are no logits."""
        raise RuntimeError("expected a model")


class SpanWatch:
    """Watch over the time that a clip covers, beside the time that it covered in training.

    It looks at one clip's length of pairs after the other, by the median of the times between them: a stall
    or a lost frame is no other rate. The user is told once, after two such looks in a row.

    Single-threaded: the inference thread only.

    Args:
        manifest: the model's.
        note: gets the line.

    Attributes:
        span_s: seconds from a clip's first pair to its last at the last look; None before the first one.
        trained_s: the same in training; None: the bundle does not say.
    """

    def __init__(self, manifest: Manifest, note: Callable[[str], None]) -> None:
        self.span_s: float | None = None
        self.trained_s = manifest.span_s
        self._length, self._stride, self._note = manifest.clip_length, manifest.stride, note
        self._times_us = np.zeros((self._length - 1) * self._stride + 1, np.int64)
        self._taken = self._looks = self._off = 0
        self._is_told = False

    def see(self, t_us: int) -> None:
        """Take the time of the next pair."""
        self._times_us[self._taken] = t_us
        self._taken += 1
        if self._taken == len(self._times_us):
            self._taken = 0
            self._look()

    def end(self) -> None:
        """The run is over: tell what a short run showed once."""
        if self._looks == self._off == 1:
            self._tell()

    def _look(self) -> None:
        rate_hz = pair_rate_hz(self._times_us)
        if rate_hz is None:
            return
        self.span_s = clip_span_s(self._length, self._stride, rate_hz)
        self._looks += 1
        is_off = self.trained_s is not None and is_span_off(self.span_s, self.trained_s)
        self._off = self._off + 1 if is_off else 0
        if self._off > 1 and not self._is_told:
            self._is_told = True
            self._tell()

    def _tell(self) -> None:
        assert self.span_s is not None
        assert self.trained_s is not None
        rate_hz = clip_span_s(self._length, self._stride, 1.0) / self.span_s
        stride = stride_for(self.trained_s, self._length, rate_hz)
        span_s = clip_span_s(self._length, stride, rate_hz)
        remedy = f"--stride {stride} makes it {span_s:.2f} s, --stride auto finds the stride by itself"
        if is_span_off(span_s, self.trained_s):
            needed_hz = clip_span_s(self._length, 1, self.trained_s)
            remedy = f"no stride mends that, {needed_hz:.3g} pairs a second would"
        self._note(
            f"a clip covers {self.span_s:.2f} s, at {rate_hz:.3g} pairs a second and a stride of "
            f"{self._stride}; in training it covered {self.trained_s:.2f} s, so labels may be wrong: {remedy}"
        )


class IdleGate:
    """Gate that is closed while nothing moves: nothing is computed then, and the last logits stand.

    It closes once a whole clip of pairs, which were all computed, had next to no events: what stands is what
    the model says of a still scene, not of the last movement. It opens with the first pair that has more, and
    with any that lacks its events. The clip's rings stand still meanwhile, as if that time had not been.

    Single-threaded: the inference thread.

    Args:
        below: a pair whose window has fewer events is still; 0: the gate never closes.
        pairs: that a clip covers.
    """

    def __init__(self, below: int, pairs: int) -> None:
        self._below, self._pairs = below, pairs
        self._still = 0

    def would_close(self, packed: Pair) -> bool:
        """Whether nothing was to be computed for what comes between two pairs, which is not taken."""
        is_still = packed.events < self._below
        return is_still and self._still > self._pairs

    def is_closed(self, packed: Pair) -> bool:
        """Take the next pair; whether nothing is to be computed for it."""
        is_still = packed.frames.event is not None and packed.events < self._below
        self._still = self._still + 1 if is_still else 0
        return self._still > self._pairs


TOP = 5
"""Labels that a prediction names."""


class ActivePatchLists:
    """Lists of the patches that the towers compute for one pair after the other.

    Single-threaded: the inference thread only.

    Args:
        manifest: the model's.
    """

    def __init__(self, manifest: Manifest) -> None:
        form = manifest.active_patches
        self._finder = None if form is None else PatchFinder(form, manifest.image_size)
        self._before: list[NDArray[np.bool_] | None] = [None] * manifest.stride

    def see(self, packed: Pair, entry: Entry) -> tuple[NDArray[np.int64] | None, NDArray[np.int64] | None]:
        """Lists for the event and the difference tower, int64[K]; None: all patches.

        Args:
            packed: the pair that has entered the ring.
            entry: where.
        """
        if self._finder is None or packed.frames.event is None:
            return None, None
        active, before = self._finder.find(packed.event_image), self._before[entry.slot.phase]
        self._before[entry.slot.phase] = active
        either = active | before if entry.event_moved and before is not None else None
        return list_patches(active), None if either is None else list_patches(either)

    def peek(self, image: NDArray[np.uint8]) -> NDArray[np.int64] | None:
        """List for the event tower alone, of a frame that enters no ring."""
        return None if self._finder is None else list_patches(self._finder.find(image))


class PairRecogniser:
    """Recognises a stream of pairs.

    Single-threaded: the inference thread only.

    Args:
        manifest: the model's.
        engine: warmed up.
        clock: for the stages' times.
        note: gets a line where clips cover another time than in training.
        idle_below: events of a pair's window, below which it is still: see `IdleGate`.

    Attributes:
        ring: which pairs it holds.
        span: the watch over the time that they cover.
        encode_us: what the towers took for the last pair, microseconds.
        head_us: what the head took, 0 where the clip was not yet full.
        is_idle: nothing was computed for what was seen last, since nothing moves.
        scores: probabilities of the last prediction by label, float32[K]; valid until the next.
    """

    def __init__(
        self,
        manifest: Manifest,
        engine: Engine,
        clock: Clock,
        note: Callable[[str], None] = lambda line: None,
        idle_below: int = 0,
    ) -> None:
        self.ring = ClipRing(manifest.clip_length, manifest.stride)
        self.is_idle = False
        self._gate = IdleGate(idle_below, (manifest.clip_length - 1) * manifest.stride + 1)
        self._logits = np.zeros(len(manifest.labels), np.float32)
        self._standing = np.zeros_like(self._logits)
        self._between = Presence.none(manifest.clip_length)
        self.span = SpanWatch(manifest, note)
        self.encode_us = self.head_us = 0
        self._labels, self._engine, self._clock = manifest.labels, engine, clock
        self._before = [Pair.empty(manifest.image_size) for _ in range(manifest.stride)]
        self._patches = ActivePatchLists(manifest)
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
        self.span.see(packed.frames.t_us)
        self.is_idle = self._gate.is_closed(packed)
        if self.is_idle:
            self.encode_us = self.head_us = 0
            return self._logits
        has_rgb, has_event = packed.frames.rgb is not None, packed.frames.event is not None
        entry = self.ring.enter(rgb=has_rgb, event=has_event)
        if has_rgb:
            self._engine.encode("rgb", (packed.rgb_image,), entry.slot)
        in_event, in_diff = self._patches.see(packed, entry)
        if has_event:
            self._engine.encode("event", (packed.event_image,), entry.slot, in_event)
        self._encode_diff(packed, entry, in_diff)
        before = self._before[entry.slot.phase]
        packed.rgb_image, before.rgb_image = before.rgb_image, packed.rgb_image
        packed.event_image, before.event_image = before.event_image, packed.event_image
        encoded_us = self._clock.now_us()
        logits = self._decide(entry) if entry.is_full else None
        self.encode_us, self.head_us = encoded_us - start_us, self._clock.now_us() - encoded_us
        return logits

    def see_between(self, packed: Pair) -> NDArray[np.float32] | None:
        """Look at the next pair's events so far; return logits, float32[K], valid until the next call.

        Their tokens take that pair's slot. The picture there is the clip's oldest, which the next one
        replaces: it is left out. The difference there stands. The pair is decided as it would be without.

        Args:
            packed: with an event frame and nothing else.

        Returns:
            None until a clip is full.

        Raises:
            EngineError: if the engine fails, or gives what is no number.
        """
        start_us = self._clock.now_us()
        self.encode_us = self.head_us = 0
        if not self.ring.is_full:
            return None
        if self._gate.would_close(packed):
            self.is_idle = True
            return self._logits
        self.is_idle = False
        if self._logits is not self._standing:  # the engine's own, which it is about to write
            np.copyto(self._standing, self._logits)
            self._logits = self._standing
        slot, present = self.ring.coming, self._between
        stands = self.ring.presence[slot.phase]
        patches = self._patches.peek(packed.event_image)
        self._engine.encode("event", (packed.event_image,), slot, patches)
        present.rgb[:], present.event[:], present.diff[:] = stands.rgb, stands.event, stands.diff
        present.rgb[slot.pair], present.event[slot.pair] = 0, 1
        encoded_us = self._clock.now_us()
        logits = self._ask(slot.phase, present)
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
        """Make the prediction for the pair, or for what came between two, from the logits."""
        softmax_into(logits, self.scores)
        best = (-self.scores).argsort(kind="stable")[:TOP]
        labels = [self._labels[i] for i in best.tolist()]
        top = tuple(zip(labels, self.scores[best].tolist(), strict=True))
        pair = packed.frames
        return Prediction(
            pair.seq, pair.t_us, *top[0], top, packed.events, pair.skew_us, latency_ms, dropped, missing,
            self.is_idle, packed.coming_us is not None,
        )  # fmt: skip

    def _encode_diff(self, packed: Pair, entry: Entry, patches: NDArray[np.int64] | None) -> None:
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
            patches,
        )

    def _decide(self, entry: Entry) -> NDArray[np.float32]:
        phase = entry.slot.phase
        self._logits = self._ask(phase, self.ring.presence[phase])
        return self._logits  # the engine's own: it stands for as long as the engine is not called

    def _ask(self, phase: int, presence: Presence) -> NDArray[np.float32]:
        logits = self._engine.decide(phase, presence)
        if not np.logical_and.reduce(np.isfinite(logits)):
            raise EngineError(f"{self._engine.name} gave logits that are no numbers: {logits[:4]} ...")
        return logits


def softmax_into(logits: NDArray[np.float32], scores: NDArray[np.float32]) -> None:
    """Probabilities of logits (or of log-probabilities, which gives the same), float32[K], summing to 1."""
    # Ufuncs alone: numpy's methods for arrays go by way of Python, which is most of what so few numbers cost.
    np.subtract(logits, np.maximum.reduce(logits), out=scores)
    np.exp(scores, out=scores)
    scores /= np.add.reduce(scores)
