"""The synthetic set as clips: rendered when they are first asked for, then kept in memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from velora_edge.data.clips.clips import SPLITS, ClipSource, Item, Modality, Pairs
from velora_edge.data.clips.settings import SYNTHETIC
from velora_edge.data.clips.windows import pack_windows
from velora_edge.data.synthetic.synthetic import SyntheticSet
from velora_edge.errors import DatasetError
from velora_edge.events.accumulate.registration import RegistrationMap
from velora_edge.vision.resize import Resizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from velora_edge.data.clips.clips import ClipSpec
    from velora_edge.data.synthetic.synthetic import Clip

SIZES = {"train": 1800, "val": 240, "test": 600}
"""Clips of each part."""


class RenderedSet(ClipSource):
    """The synthetic set; its three parts are drawn from seeds of their own.

    A process keeps the clips that it has rendered, about 0.2 MB each at 64 x 64 pixels and 8 pairs.

    Args:
        spec: the form of the clips.
        seed: of the set.
    """

    kind = SYNTHETIC
    cameras: tuple[Modality, ...] = ("rgb", "event")

    def __init__(self, spec: ClipSpec, seed: int = 0) -> None:
        self.path, self.spec, self.seed = Path(SYNTHETIC), spec, seed
        step = spec.stride if spec.sampling == "stride" else 1
        self._length = (spec.length - 1) * step + 1
        self._parts = {split: SyntheticSet(SIZES[split], seed, split, pairs=self._length) for split in SPLITS}
        self.labels = tuple(SyntheticSet.labels)
        self._places = [(split, i) for split in SPLITS for i in range(SIZES[split])]
        self.items = [
            Item(f"{split}-{i:05}", self._parts[split].label(i), split) for split, i in self._places
        ]
        self._kept: dict[int, Pairs] = {}

    def pairs(self, index: int) -> int:
        """See `ClipSource.pairs`."""
        return self._length

    def read(self, index: int, which: NDArray[np.int64]) -> Pairs:
        """See `ClipSource.read`."""
        if index not in self._kept:
            split, number = self._places[index]
            self._kept[index] = pack_clip(self._parts[split][number], self.spec)
        kept = self._kept[index]
        assert kept.rgb is not None
        assert kept.event is not None
        return Pairs(kept.rgb[which], kept.event[which])

    def problems(self, index: int, *, deep: bool) -> list[str]:
        """None: it is made here."""
        return []

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_kept": {}}


def pack_clip(clip: Clip, spec: ClipSpec) -> Pairs:
    """A rendered clip at the model's size.

    Raises:
        DatasetError: if the model wants longer windows than lie between two pictures.
    """
    window_us = spec.event.window_us
    if window_us > clip.period_us * 3 // 2 or window_us < clip.period_us * 2 // 3:
        raise DatasetError(
            [f"pictures are {clip.period_us} us apart, the model's event window is {window_us} us"],
            path=SYNTHETIC,
            remedy=f"set clip.event.window_us={clip.period_us}",
        )
    source_hw = (clip.rgb.shape[1], clip.rgb.shape[2])
    resizer = Resizer(source_hw, spec.image_size, spec.rgb.fit)
    rgb = np.empty((len(clip.rgb), *spec.image_size, 3), np.uint8)
    for picture, image in zip(clip.rgb, rgb, strict=True):
        resizer.resize_into(picture, image)
    registration = RegistrationMap.from_fit(source_hw, spec.image_size, spec.event.fit)
    windows = [(int(t_us) - clip.period_us, int(t_us)) for t_us in clip.t_us]
    return Pairs(rgb, pack_windows(clip.events, windows, registration, spec.event))
