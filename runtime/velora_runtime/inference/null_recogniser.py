"""A run without a model: pairs are made and shown, nothing is recognised."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge import __version__
from velora_edge.bundle import EventInput, Manifest, Weights

if TYPE_CHECKING:
    from velora_edge.preprocessing.packer import Packed

NO_MODEL = "none"


def no_model() -> Manifest:
    """What pairs are made by where no model says it: polarity images of 224x224, windows of 1/30 s."""
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
    """Stands where the recogniser does and says nothing. Single-threaded: the inference thread."""

    missing = 0
    encode_us = head_us = 0
    scores = np.zeros(1, np.float32)

    def see(self, packed: Packed) -> None:
        """No logits."""

    def predict(self, *args: Any) -> Any:
        """Never called, as there are no logits."""
        raise RuntimeError("expected a model")
