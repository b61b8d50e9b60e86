"""A trained model to a bundle: merge, five graphs, parity, manifest; all or nothing."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import torch

from velora_edge import __version__
from velora_edge.bundle import GRAPHS, Bundle, BundleWriter, EventInput, Manifest, RGBInput, Weights
from velora_edge.errors import InputError
from velora_edge.model.checkpoint import state_sha256
from velora_edge.model.lora import merge
from velora_export.graphs import make_graphs
from velora_export.onnx_graph import OPSET, trace
from velora_export.parity import TOLERANCE, Clips, check_parity, measure_parity, random_clips
from velora_export.plain import simplify
from velora_export.weights import SharedWeights, save_graph

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    from velora_edge.model.velora import VELoRA

METADATA_PREFIX = "velora."
_IN_METADATA = (
    "name", "version", "labels", "clip_length", "stride", "image_size", "tokens", "token_size", "mean", "std",
    "event", "rgb", "precision", "weights",
)  # fmt: skip


def export_bundle(
    model: VELoRA,
    path: str | os.PathLike[str],
    *,
    name: str,
    trained: bool,
    labels: Sequence[str] | None = None,
    event: EventInput | None = None,
    rgb: RGBInput | None = None,
    stride: int = 1,
    run: Mapping[str, Any] | None = None,
    accuracy: Mapping[str, Any] | None = None,
    clips: Clips | None = None,
    progress: Callable[[str], None] | None = None,
) -> Bundle:
    """Write the model as a bundle, fp32, once its graphs were found to give the model's own logits.

    Args:
        model: with or without LoRA; it is not changed.
        path: the bundle's folder, `NAME.velora`; one that is there is replaced once the new one is whole.
        name: the model's name.
        trained: False for random weights: then every run says so.
        labels: class names in the order of the logits; None: the model's own.
        event: how events become images; it must be what the model was trained with.
        rgb: how pictures become images.
        stride: pairs from one of a clip's pairs to the next.
        run: identity of the training run.
        accuracy: figures of its evaluation.
        clips: real clips for the parity report; None: random ones.
        progress: called with a line before each step.

    Raises:
        InputError: if the path is taken by something else, or the labels do not fit.
        EngineError: if a graph cannot be made, or gives other logits than the model.
    """
    say = progress or (lambda line: None)
    config = model.config
    with BundleWriter(path) as writer:
        say("merge LoRA")
        model = _on_cpu(model)
        merged = merge(model)
        manifest = Manifest(
            name=name,
            version=__version__,
            labels=tuple(labels if labels is not None else config.labels),
            clip_length=config.clip_length,
            stride=stride,
            image_size=config.image_size,
            tokens=model.tokens,
            token_size=model.token_size,
            mean=config.mean,
            std=config.std,
            event=event or EventInput(),
            rgb=rgb or RGBInput(),
            weights=Weights(
                trained=trained,
                architecture=describe_architecture(model),
                sha256=state_sha256(merged.state_dict()),
                run=dict(run or {}),
            ),
            opset=OPSET,
            accuracy=dict(accuracy or {}),
        )
        _check_labels(manifest, model)
        metadata = manifest_metadata(manifest)
        simplify(merged)
        graphs = make_graphs(merged)
        with SharedWeights(writer.folder) as weights:
            for graph in GRAPHS:
                say(f"graph {graph}.onnx")
                traced = trace(graphs[graph], graph)
                weights.take(traced)
                save_graph(traced, writer.folder / f"{graph}.onnx", metadata)
        say("parity with torch")
        parity = measure_parity(
            model, merged, writer.folder, clips or random_clips(config), tolerance=TOLERANCE["fp32"]
        )
        check_parity(parity)
        return writer.finish(manifest.model_copy(update={"parity": {"fp32": parity.as_dict()}}))


def _on_cpu(model: VELoRA) -> VELoRA:
    """The model in eval mode and in fp32 on the CPU: itself where it is so already, else a copy."""
    plain = all(p.device.type == "cpu" and p.dtype == torch.float32 for p in model.parameters())
    return model if plain and not model.training else copy.deepcopy(model).cpu().float().eval()


def _check_labels(manifest: Manifest, model: VELoRA) -> None:
    if len(manifest.labels) != len(model.config.labels):
        raise InputError(
            f"the model has {len(model.config.labels)} classes, got {len(manifest.labels)} labels",
            remedy="give one label for each class, in the order of the logits",
        )


def describe_architecture(model: VELoRA) -> str:
    """One line for the reader: backbone, size of an image, form of the head."""
    config = model.config
    args = ", ".join(f"{key}={value}" for key, value in config.backbone.args.items())
    form = "published fusion" if config.compat == "reference" else {"linear": "linear probe"}.get(
        config.tuning, f"{config.tuning} tuning"
    )  # fmt: skip
    height, width = config.image_size
    return f"{config.backbone.name}({args}), {width}x{height}, {form}"


def manifest_metadata(manifest: Manifest) -> dict[str, str]:
    """The manifest's facts as an ONNX graph carries them in `metadata_props`: JSON, keys `velora.<fact>`."""
    facts = manifest.model_dump(mode="json")
    return {f"{METADATA_PREFIX}{key}": json.dumps(facts[key]) for key in _IN_METADATA}
