"""Bundles of plain ViTs with random weights, to measure what a model's size and precision cost.

    python benchmarks/vit_bundles.py bundles        # ViT-Ti, S and B in fp32 and int8; 5 GB of memory
    velora bench bundles/*.velora --only parts,roofline --plot vit

The published fusion over each ViT, clips of 8 pairs, 224x224. Speed does not ask what weights are; accuracy
does, and there is none here. Bundles that are there already are kept. `--clip-length` and `--stride` make
others. `--active-patches` makes models whose event and difference towers compute patches with events alone.
A precision such as int8-bf16 says what the other layers compute in.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streaming_models import make_model, vit_config
from velora_export.bundle_export import Target, export_bundle
from velora_export.evaluation.sessions import random_clips

if TYPE_CHECKING:
    from velora_edge.model.velora import VELoRA

BACKBONES = {
    "vit-ti": "vit_tiny_patch16_224",
    "vit-s": "vit_small_patch16_224",
    "vit-b": "vit_base_patch16_clip_quickgelu_224.openai",
}
PRECISIONS = ("fp32", "int8")
CLIPS = 2
"""Of noise, that int8 takes its ranges from: as good as any where nothing is recognised."""


def bundle_name(size: str, precision: str, clip_length: int, stride: int, *, active: bool = False) -> str:
    """Of a bundle's folder, without its ending."""
    clip = "" if (clip_length, stride) == (8, 1) else f"-t{clip_length}-s{stride}"
    return f"{size}{'-active' if active else ''}{clip}-{precision}"


def make(model: VELoRA, path: Path, form: str, stride: int) -> None:
    """Export a model with random weights."""
    precision: Any
    floats: Any
    precision, _, floats = form.partition("-")
    calibration = random_clips(model.config, count=CLIPS) if precision in ("int8", "fp8") else None
    judged = random_clips(model.config, count=1)
    target = Target(precision, judged, calibration, "percentile", floats or None, force=True)
    told = f"{path.name}: "
    export_bundle(
        model,
        path,
        name=path.stem,
        trained=False,
        stride=stride,
        target=target,
        progress=lambda line: print(told + line, flush=True),
    )


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sizes", nargs="+", choices=BACKBONES, default=list(BACKBONES))
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS)
    parser.add_argument("--clip-length", type=int, default=8, help="pairs that a decision looks at")
    parser.add_argument("--stride", type=int, default=1, help="pairs from one of them to the next")
    parser.add_argument("--active-patches", action="store_true", help="compute patches with events alone")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    changes = {"clip_length": given.clip_length, "active_patches": given.active_patches}
    for size in given.sizes:
        names = {
            p: bundle_name(size, p, given.clip_length, given.stride, active=given.active_patches)
            for p in given.precisions
        }
        paths = {precision: given.folder / f"{name}.velora" for precision, name in names.items()}
        missing = {precision: path for precision, path in paths.items() if not path.exists()}
        if missing:
            model = make_model(vit_config(BACKBONES[size]).model_copy(update=changes))
            for precision, path in missing.items():
                make(model, path, precision, given.stride)
    print(f"next: velora bench {given.folder}/*.velora --only parts,roofline --plot vit")


if __name__ == "__main__":
    main()
