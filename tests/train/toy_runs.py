"""A data set and a configuration so small that a run takes a second."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge.data.clips.clips import ClipSpec, Item, Pairs
from velora_edge.data.clips.store import ClipStoreWriter
from velora_edge.train.settings import TrainConfig

if TYPE_CHECKING:
    from pathlib import Path

    from velora_edge.data.clips.clips import Modality

LABELS = ("red-on", "red-off", "blue-on", "blue-off")
T, SIDE = 3, 16


def write_clips(
    path: Path, count: int = 40, cameras: tuple[Modality, ...] = ("rgb", "event"), pairs: int = T + 1
) -> Path:
    """Clips whose first word is the pictures' colour and whose second one is the events' polarity."""
    spec = ClipSpec(length=T, image_size=(SIDE, SIDE))
    rng = np.random.default_rng(0)
    with ClipStoreWriter(path, LABELS, cameras, spec, "toy") as writer:
        for i in range(count):
            label = i % len(LABELS)
            rgb = rng.integers(0, 60, (pairs, SIDE, SIDE, 3), np.uint8)
            rgb[..., 2 * (label // 2)] += np.uint8(180)
            event = np.full((pairs, SIDE, SIDE, 3), 255, np.uint8)
            y, x = rng.integers(0, 10, 2)
            event[:, y : y + 6, x : x + 6] = (0, 0, 255) if label % 2 else (255, 0, 0)
            clip = Pairs(rgb if "rgb" in cameras else None, event)
            writer.add(Item(f"clip{i:03}", label), clip)
        writer.finish()
    return path


def toy_tree(folder: Path, data: Path, **train: Any) -> dict[str, Any]:
    """A configuration as a YAML file would have it; random base weights."""
    return {
        "run": {"name": "toy", "folder": str(folder)},
        "data": {"path": str(data), "augment": {"shift": 0.1}},
        "model": {
            "clip_length": T,
            "image_size": [SIDE, SIDE],
            "backbone": {
                "name": "vit_tiny_patch16_224",
                "args": {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2},
            },
            "lora": {"rank": 2, "alpha": 4, "dropout": 0.1},
        },
        "train": {"epochs": 2, "batch_size": 4, "lr": 3e-3, "device": "cpu", **train},
    }


def toy_config(folder: Path, data: Path, **train: Any) -> TrainConfig:
    """The same, validated."""
    return TrainConfig.model_validate(toy_tree(folder, data, **train))
