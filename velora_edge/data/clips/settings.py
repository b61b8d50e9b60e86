"""The part of a configuration that speaks of data."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from velora_edge.bundle import EventInput, RGBInput
from velora_edge.config import Section
from velora_edge.data.clips.augment import AugmentConfig
from velora_edge.data.clips.clips import ClipSpec, Sampling
from velora_edge.data.clips.splits import SplitConfig

SYNTHETIC, DIGITS = "synthetic", "digits"
"""The sets that are made here: the first is both cameras', the second N-MNIST's likeness, to pre-train on."""


class ClipConfig(Section):
    """How recordings become clips; travels with the model, so that evaluation and runtime do the same.

    Attributes:
        sampling: `spread`, T pairs evenly from the whole recording; or `stride`, T pairs `stride` apart.
        stride: pairs from one of a clip's pairs to the next; the runtime's temporal stride.
        event: how events become images.
        rgb: how pictures become images.
    """

    sampling: Sampling = "spread"
    stride: int = Field(1, ge=1)
    event: EventInput = EventInput()
    rgb: RGBInput = RGBInput()

    def spec(self, length: int, image_size: tuple[int, int]) -> ClipSpec:
        """The form of a clip of `length` pairs of images of `image_size` (height, width)."""
        return ClipSpec(length, image_size, self.sampling, self.stride, self.event, self.rgb)


class DataConfig(Section):
    """What is trained on.

    Attributes:
        path: folder or file of the data set, or `synthetic`, or `digits`.
        kind: its layout, or `auto` to tell it by what is there; `velora dataset check` shows the result.
        split: how it is divided where its publishers did not.
        augment: how training clips are varied.
        seed: of the sets that are made here.
        check: look at every file's name, head and tail before training; millions of files on a slow disk take
            minutes.
        workers: processes that read clips, for each training process; 0 reads in the training process.
    """

    path: str
    kind: str = "auto"
    split: SplitConfig = SplitConfig()
    augment: AugmentConfig = AugmentConfig()
    seed: int = 0
    check: bool = True
    workers: int = Field(0, ge=0)

    def problems(self) -> list[str]:
        """See `Section.problems`."""
        if self.path not in (SYNTHETIC, DIGITS) and not Path(self.path).exists():
            return [f"path: no such file or folder: {self.path}; set data.path=..., or data.path=synthetic"]
        return []
