"""What backends that feed a graph, then run it on a ring slot, have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge.datatypes import MODALITIES
from velora_runtime.buffers.ring import Presence
from velora_runtime.engines.ort_graphs import INPUTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from velora_edge.bundle import Manifest
    from velora_runtime.buffers.ring import Slot

FED = {**INPUTS, "head": INPUTS["head"][3:]}
"""The inputs of each graph that come from the host; the head's others are the rings."""


class FedEngine:
    """The calls of `velora_runtime.engines.base.Engine` that fill slots; a backend adds the others.

    A backend sets `_runners`, which feed and run a graph each, by the graph's name, and `_slots`, their
    targets by modality, phase and place.
    """

    _runners: dict[str, Any]
    _slots: dict[str, list[list[Any]]]

    def encode_rgb(self, image: NDArray[np.uint8], slot: Slot) -> None:
        """Put the tokens of an RGB picture into the slot."""
        self._encode("rgb", {"image": image}, slot.phase, slot.pair)

    def encode_event(self, image: NDArray[np.uint8], slot: Slot) -> None:
        """Put the tokens of an event frame into the slot."""
        self._encode("event", {"image": image}, slot.phase, slot.pair)

    def encode_diff(
        self,
        rgb: NDArray[np.uint8],
        rgb_before: NDArray[np.uint8],
        event: NDArray[np.uint8],
        event_before: NDArray[np.uint8],
        slot: Slot,
    ) -> None:
        """Put the tokens of the difference to the pair before into the slot."""
        images = {"rgb": rgb, "rgb_before": rgb_before, "event": event, "event_before": event_before}
        self._encode("diff", images, slot.phase, slot.diff)

    def _encode(self, modality: str, images: Mapping[str, NDArray[np.uint8]], phase: int, place: int) -> None:
        runner = self._runners[modality]
        for name, image in images.items():
            runner.feed(name, image)
        runner.run(self._slots[modality][phase][place])

    def _feed_presence(self, presence: Presence) -> None:
        flags = (presence.rgb, presence.event, presence.diff)
        for name, array in zip(FED["head"], flags, strict=True):
            self._runners["head"].feed(name, array)

    def _feed_pattern(self, manifest: Manifest) -> None:
        """Feed every graph something that is not blank, for a warm-up."""
        size, clip = manifest.image_size, manifest.clip_length
        pattern = np.arange(np.prod(size) * 3, dtype=np.uint32).astype(np.uint8).reshape(*size, 3)
        for modality in MODALITIES:
            for name in FED[modality]:
                self._runners[modality].feed(name, pattern)
        self._feed_presence(Presence(*(np.ones(count, np.float32) for count in (clip, clip, clip - 1))))
