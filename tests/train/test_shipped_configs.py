"""Every configuration in configs/ is trained for two steps, by the command, on a small set of its layout."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest
import yaml

from velora_cli.main import velora
from velora_edge.config import load_config
from velora_edge.console import run
from velora_edge.data.clips.clips import ClipSpec, Item, Pairs, split_items
from velora_edge.data.clips.store import ClipStoreWriter
from velora_edge.data.registry import open_clips
from velora_edge.train.run import read_metrics
from velora_edge.train.settings import PretrainConfig, TrainConfig

if TYPE_CHECKING:
    from collections.abc import Callable

sys.path.append(str(Path(__file__).parents[1] / "data"))
from written_sets import write_published_hardvs, write_published_poker

CONFIGS = Path(__file__).parents[2] / "configs"
TINY = ["embed_dim=32", "depth=2", "num_heads=2"]


def write_poker(folder: Path) -> Path:
    return write_published_poker(folder, classes=4, hw=(26, 34), copies=6)


def write_hardvs(folder: Path) -> Path:
    return write_published_hardvs(folder, classes=4, copies=6)


def write_nmnist(folder: Path) -> Path:
    """Sixty recordings of 300 ms on a sensor of 34x34."""
    rng, count, each = np.random.default_rng(0), 60, 400
    path = folder / "digits.h5"
    with h5py.File(path, "w") as file:
        file["events/t"] = np.sort(rng.integers(0, 300_000, (count, each)), axis=1).ravel().astype(np.uint32)
        for name, top in (("x", 34), ("y", 34), ("p", 2)):
            file[f"events/{name}"] = rng.integers(0, top, count * each).astype(np.uint8)
        file["offsets"] = np.arange(count + 1) * each
        file["label"] = np.arange(count, dtype=np.uint8) % 10
    return path


def write_store(folder: Path, spec: ClipSpec) -> Path:
    """Pairs of noise in the form that a configuration asks for, as `velora dataset build` packs them."""
    rng, path, (height, width) = np.random.default_rng(0), folder / "clips.h5", spec.image_size
    with ClipStoreWriter(path, ("a", "b"), ("rgb", "event"), spec, "noise") as writer:
        for k in range(40):
            rgb, event = rng.integers(0, 256, (2, 10, height, width, 3), np.uint8)
            writer.add(Item(f"clip{k}", k % 2), Pairs(rgb, event))
        writer.finish()
    return path


SETS: dict[str, Callable[[Path], Path]] = {
    "Poker_Event": write_poker,
    "HARDVS": write_hardvs,
    "train_1000.h5": write_nmnist,
    "digits": write_nmnist,
}
"""By the name in `data.path`: what writes a small set of that layout. All others are packed: stores."""
TRAINED = [path for path in sorted(CONFIGS.glob("*.yaml")) if "model" in yaml.safe_load(path.read_text())]


def form_of(settings: TrainConfig | PretrainConfig) -> ClipSpec:
    if isinstance(settings, TrainConfig):
        return settings.clip.spec(settings.model.clip_length, settings.model.image_size)
    return settings.clip.spec(settings.tower.images, settings.tower.image_size)


def call(command: str, config: Path, home: Path, *overrides: str) -> Path:
    """Train as the configuration says, but on a small set, on the CPU and for two steps; the run's folder."""
    given = [f"run.folder={home}", "train.device=cpu", "train.epochs=1", *overrides]
    schema: type[TrainConfig | PretrainConfig] = TrainConfig if command == "train" else PretrainConfig
    settings = load_config(config, schema, given, is_used=False)
    data, form = home / command, form_of(settings)
    data.mkdir()
    write = SETS.get(Path(settings.data.path).name)
    path = write_store(data, form) if write is None else write(data)
    source = open_clips(path, form)
    members = len(split_items(source.items, settings.data.split)["train"])
    source.close()
    given += [f"data.path={path}", f"train.batch_size={members // 2}"]
    assert run(velora, [command, str(config), *given], name="velora") == 0
    folder = home / settings.run.name
    assert {line["step"] for line in read_metrics(folder)} == {2}
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("path", TRAINED, ids=lambda path: path.name)
def test_a_shipped_configuration_trains(path: Path, tmp_path: Path) -> None:
    backbone = yaml.safe_load(path.read_text())["model"]["backbone"]
    first = CONFIGS / f"{Path(backbone.get('weights', '')).parent.name}.yaml"
    if first.is_file():
        made = call("pretrain", first, tmp_path) / "tower.safetensors"
        given = [f"model.backbone.weights={made}"]
    else:
        given = ["model.backbone.pretrained=false", "model.backbone.weights=null"]
        given += [
            "model.backbone.name=vit_tiny_patch16_224",
            *(f"model.backbone.args.{size}" for size in TINY),
        ]
    assert (call("train", path, tmp_path, *given) / "best").is_dir()
