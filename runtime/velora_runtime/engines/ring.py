"""Ring of a clip's slots: the slot of each new pair, and the presence of each camera in a clip.

The head averages tokens over the clip, and a mean does not depend on order: a ring is never rotated, the
newest pair takes the oldest one's slot. With a temporal stride of s, a clip is made of every s-th pair, so
there are s rings, one a phase, and pair number i belongs to phase i mod s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray


@dataclass(frozen=True, slots=True)
class Slot:
    """Slot of a pair's tokens.

    Attributes:
        phase: the ring, 0 to stride - 1.
        pair: place of its RGB and event tokens, 0 to T - 1.
        diff: place of the tokens of its difference to the pair before it in this ring, 0 to T - 2.
    """

    phase: int
    pair: int
    diff: int

    def place(self, modality: str) -> int:
        """Of a modality's tokens in its ring."""
        return self.diff if modality == "diff" else self.pair


@dataclass(frozen=True, slots=True)
class Presence:
    """Presence of each slot of one ring for the head: 1 present, 0 absent.

    Attributes:
        rgb: float32[T].
        event: float32[T].
        diff: float32[T - 1].
    """

    rgb: NDArray[np.float32]
    event: NDArray[np.float32]
    diff: NDArray[np.float32]

    @classmethod
    def none(cls, clip_length: int) -> Presence:
        """Nothing present in a clip of `clip_length` pairs."""
        sizes = (clip_length, clip_length, clip_length - 1)
        return cls(*(np.zeros(size, np.float32) for size in sizes))


@dataclass(frozen=True, slots=True)
class Entry:
    """Work for the pair that has just entered a ring.

    Attributes:
        slot: where it goes.
        rgb_moved: there is an RGB picture now and in the pair before: their difference counts.
        event_moved: the same for event frames.
        is_full: the ring now holds a whole clip.
    """

    slot: Slot
    rgb_moved: bool
    event_moved: bool
    is_full: bool


class ClipRing:
    """The bookkeeping of the rings; the tokens themselves lie with the engine.

    Single-threaded: the inference thread only.

    Args:
        clip_length: pairs in a clip, T, at least 2.
        stride: pairs from one of a clip's pairs to the next.
    """

    def __init__(self, clip_length: int, stride: int = 1) -> None:
        if clip_length < 2 or stride < 1:
            raise ValueError(f"expected clip_length >= 2 and stride >= 1, got {clip_length} and {stride}")
        self.clip_length, self.stride = clip_length, stride
        self.pairs = 0
        self.presence = [Presence.none(clip_length) for _ in range(stride)]

    @property
    def coming(self) -> Slot:
        """Slot of the next pair: that of the oldest one, where its ring is full."""
        phase, turn = self.pairs % self.stride, self.pairs // self.stride
        return Slot(phase, turn % self.clip_length, (turn - 1) % (self.clip_length - 1))

    @property
    def is_full(self) -> bool:
        """Whether the next pair's ring holds a whole clip."""
        return self.pairs // self.stride >= self.clip_length

    def enter(self, *, rgb: bool, event: bool) -> Entry:
        """Take the next pair in, in place of the oldest of its ring.

        Args:
            rgb: it has an RGB picture.
            event: it has an event frame.
        """
        phase, turn = self.pairs % self.stride, self.pairs // self.stride
        slot = self.coming
        present = self.presence[phase]
        before = (slot.pair - 1) % self.clip_length
        rgb_moved = turn > 0 and rgb and bool(present.rgb[before])
        event_moved = turn > 0 and event and bool(present.event[before])
        present.rgb[slot.pair], present.event[slot.pair] = rgb, event
        if turn > 0:
            present.diff[slot.diff] = rgb_moved or event_moved
        self.pairs += 1
        return Entry(slot, rgb_moved, event_moved, is_full=turn + 1 >= self.clip_length)


class TokenMemory:
    """The rings' tokens in host memory, for engines that compute there.

    Attributes:
        rgb: [S, T, N, P]: phases, slots, tokens, token size; float32 or float16, as the graphs give them.
        event: the same.
        diff: [S, T - 1, N, P].
    """

    def __init__(
        self,
        stride: int,
        clip_length: int,
        tokens: int,
        token_size: int,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.rgb: NDArray[Any] = np.zeros((stride, clip_length, tokens, token_size), dtype)
        self.event = np.zeros_like(self.rgb)
        self.diff: NDArray[Any] = np.zeros((stride, clip_length - 1, tokens, token_size), dtype)

    def clear(self) -> None:
        """Set every token to zero."""
        for tokens in (self.rgb, self.event, self.diff):
            tokens[:] = 0
