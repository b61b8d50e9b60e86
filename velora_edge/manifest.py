"""Manifest of a bundle, `manifest.json`: its form, validated, published as a JSON Schema, and migrated.

The schema's version rises when a manifest could not be read by an older velora-edge, that is with every field
that is new: unknown fields are refused. `migrate` brings older manifests up to date, one step a schema
version, as many as it takes. A step takes the object that `manifest.json` holds and gives the one of the next
version. It is one function, and one line in `STEPS`; it never looks at other files, and never changes once
its version was released.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self


Raw = dict[str, Any]


def migrate(raw: Raw) -> Raw:
    """A manifest of the present version made from one of any version from 1 on; `raw` is not changed."""
    version = int(raw["schema_version"])
    while version < SCHEMA_VERSION:
        raw = STEPS[version]({**raw})
        version += 1
        raw["schema_version"] = version
    return raw


def _reports_are_typed(raw: Raw) -> Raw:
    """1 to 2: figures of one precision's parity, in a table without a form, became a report."""
    parity = raw.pop("parity", None)
    figures = parity.get(raw.get("precision", "fp32")) if isinstance(parity, dict) else None
    if figures:
        raw["report"] = {"runtime": "ONNX Runtime on the CPU", **figures}
    return raw


def _engines_have_kinds(raw: Raw) -> Raw:
    """2 to 3: engines may be of TensorRT for RTX and tell of their layers; none did before."""
    return raw


def _pictures_are_resampled(raw: Raw) -> Raw:
    """3 to 4: pictures may be resampled otherwise than by area; none were before."""
    return raw


def _patches_are_active(raw: Raw) -> Raw:
    """4 to 5: towers may compute patches with events alone; all computed everything before."""
    return raw


STEPS: dict[int, Callable[[Raw], Raw]] = {
    1: _reports_are_typed,
    2: _engines_have_kinds,
    3: _pictures_are_resampled,
    4: _patches_are_active,
}
"""By the version that a step starts from."""


SCHEMA_VERSION = 5
GRAPHS = ("rgb", "event", "diff", "head", "clip")
Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
RGB = tuple[int, int, int]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Palette(_Strict):
    """Colours of the polarity image, RGB, 0 to 255.

    Attributes:
        background: where no event fell.
        off: of a pixel that became darker.
        on: of a pixel that became brighter.
    """

    background: RGB = (255, 255, 255)
    off: RGB = (0, 0, 255)
    on: RGB = (255, 0, 0)


class EventInput(_Strict):
    """Making of the event tower's image from events.

    Attributes:
        representation: its name in the registry of `velora_edge.events.accumulate.representations`.
        palette: colours of the polarity image; the other representations ignore it.
        window_us: the window's longest length, which is also the one that the model was trained with.
        fit: how the sensor's picture is brought to the model's size.
    """

    representation: str = "polarity"
    palette: Palette = Palette()
    window_us: int = Field(33_333, gt=0)
    fit: Literal["crop", "letterbox", "stretch"] = "crop"


class RGBInput(_Strict):
    """Making of the RGB tower's image from the camera's picture.

    Attributes:
        fit: of the picture to the model's size.
        resample: filter for its pixels, and for those of event frames that are image files: `area`
            averages; `bilinear` is Pillow's filter, which torchvision's Resize takes for such pictures.
    """

    fit: Literal["crop", "letterbox", "stretch"] = "crop"
    resample: Literal["area", "bilinear"] = "area"


class ActivePatches(_Strict):
    """Towers of events and of differences that compute patches with events alone.

    Attributes:
        grid: patches of an image, down and across.
        blank: colour of an event image without events: a patch of that colour is still.
    """

    grid: tuple[int, int]
    blank: RGB

    @property
    def count(self) -> int:
        """How many patches an image has."""
        return self.grid[0] * self.grid[1]


class Weights(_Strict):
    """Origin of the weights.

    Attributes:
        trained: False for random weights: then every run says so.
        architecture: the backbone's timm name and the fusion's form, for the reader.
        sha256: digest of the merged state dict.
        run: the training run's identity: its name, date, data and configuration's digest.
    """

    trained: bool
    architecture: str
    sha256: str
    run: dict[str, Any] = Field(default_factory=dict)


class Accuracy(_Strict):
    """Shares of labelled clips that are told right.

    Attributes:
        clips: how many there were.
        torch: told right by the model in torch, fp32.
        exported: told right by the exported graphs.
    """

    clips: int = Field(ge=1)
    torch: float
    exported: float


class StepLatency(_Strict):
    """Duration of a streaming step where the model was exported: three towers and the head, batch 1.

    Attributes:
        runtime: what computed it.
        machine: the processor.
        threads: for the arithmetic.
        steps: how many were measured.
        p50_ms: median.
        p99_ms: 99th percentile.
        fp32_p50_ms: median of the same model in fp32, its steps between these; None where that was not asked.
    """

    runtime: str
    machine: str
    threads: int
    steps: int = Field(ge=1)
    p50_ms: float
    p99_ms: float
    fp32_p50_ms: float | None = None


class Calibration(_Strict):
    """Origin of the ranges of an int8 or fp8 model's activations.

    Attributes:
        method: how a range was chosen from what was seen.
        source: of the clips.
        clips: how many there were.
        layers: linear layers that compute in eight bits, in a streaming step.
        floats: what the other layers compute in.
    """

    method: Literal["percentile", "entropy", "max"]
    source: str
    clips: int = Field(ge=1)
    layers: int
    floats: Literal["fp32", "fp16", "bf16"] = "fp32"


class Report(_Strict):
    """Distance of the exported graphs from the model in torch, fp32, and their cost.

    Attributes:
        source: of the clips.
        clips: how many were compared.
        runtime: what computed the graphs' logits.
        merged: largest difference of a logit: LoRA merged against apart, both in torch.
        onnx: the same: the clip graph against torch, with both cameras and with each alone.
        relative: the same as a share of torch's largest logit; None where it was not kept.
        streaming: the same: image by image through the streaming graphs, against the clip graph.
        top1_agreement: share of clips with the same best label in torch and in the clip graph.
        tolerance: what the export had to keep below; absolute in fp32, relative otherwise; 0: not asked.
        accuracy: where the clips have labels.
        graph_bytes: of the graphs and their weights together; None where it was not kept.
        latency: of a streaming step.
        calibration: of an int8 or fp8 model.
        overridden: reasons to refuse the export that the user overrode.
    """

    source: str
    clips: int = Field(ge=1)
    runtime: str
    merged: float
    onnx: float
    relative: float | None = None
    streaming: float
    top1_agreement: float
    tolerance: float
    accuracy: Accuracy | None = None
    graph_bytes: int | None = None
    latency: StepLatency | None = None
    calibration: Calibration | None = None
    overridden: tuple[str, ...] = ()


class CompiledLayers(_Strict):
    """Summary of a graph's compiled layers, read from the engine.

    Types are called fp32, fp16, bf16, fp8 and int8; a product's is that of the values that it multiplies.

    Attributes:
        products: matrix products and convolutions by type, those of attention apart.
        arithmetic: shares of all multiplications by type, attention's included.
        attention: layers of attention in the graph.
        fused: those of them that are one kernel.
        unfused: names of the others.
        fallbacks: products that compute in a wider type than the graph states, by name.
        dla: layers of the engine that run on a Deep Learning Accelerator, each a part of the network; what is
            counted above is the GPU's.
    """

    products: dict[str, int]
    arithmetic: dict[str, float]
    attention: int = 0
    fused: int = 0
    unfused: tuple[str, ...] = ()
    fallbacks: tuple[str, ...] = ()
    dla: int = 0

    def describe(self) -> str:
        """One line for people: types of products, shares of the arithmetic, attention, what fell back."""
        if self.dla and not self.products:
            return f"all products on the DLA, in {self.dla} part{'s' if self.dla > 1 else ''}"
        products = ", ".join(f"{count} {dtype}" for dtype, count in self.products.items())
        shares = ", ".join(f"{share:.1%} {dtype}" for dtype, share in self.arithmetic.items())
        fused = f", attention fused in {self.fused} of {self.attention}" if self.attention else ""
        fallen = f", in a wider type than asked: {', '.join(self.fallbacks)}" if self.fallbacks else ""
        return f"products {products}; arithmetic {shares}{fused}{fallen}"


class EngineFile(_Strict):
    """An engine of TensorRT or TensorRT for RTX in the bundle, and all that it depends on.

    Attributes:
        graph: which of the bundle's graphs it computes.
        kind: the library that built it and runs it.
        file: its name in the bundle.
        sha256: of the file.
        model: digest of the graph and the weights that it was built from.
        precision: of the graph.
        tensorrt: the version of that library.
        gpu: the GPU that it was built on and for; empty for TensorRT for RTX.
        compute_capability: that GPU's.
        targets: the compute capabilities that it was built for, by TensorRT for RTX.
        version_compatible: newer TensorRT versions of the same major version run it too.
        hardware_compatible: other GPUs of compute capability 8.0 or more run it too.
        dla_core: the Deep Learning Accelerator of a Jetson that it was built for and runs on; None: the GPU.
        origin: name of the machine that built it.
        signature: the entry, signed with that machine's own key.
        parity: differences to ONNX Runtime on the same clips, by output, and what they were computed on;
            empty where there was no GPU to run it.
        compiled: what the compiled layers compute in; None where they were not read.
    """

    graph: Literal["rgb", "event", "diff", "head", "clip"]
    kind: Literal["tensorrt", "tensorrt-rtx"] = "tensorrt"
    file: str
    sha256: str
    model: str
    precision: Precision
    tensorrt: str
    gpu: str = ""
    compute_capability: str = ""
    targets: tuple[str, ...] = ()
    version_compatible: bool = False
    hardware_compatible: bool = False
    dla_core: int | None = Field(None, ge=0)
    origin: str = ""
    signature: str = ""
    parity: dict[str, Any] = Field(default_factory=dict)
    compiled: CompiledLayers | None = None


class Manifest(_Strict):
    """Manifest of a bundle: all that the runtime must know of a model.

    Attributes:
        schema_version: of this file's form.
        name: the model's name.
        version: velora-edge's version that wrote it.
        labels: class names, in the order of the logits.
        clip_length: pairs in a clip, T.
        stride: pairs from one of a clip's pairs to the next, s.
        span_s: seconds from the first pair of a clip to its last in training; None: not known.
        rate_hz: pairs a second of the recordings that it was trained on; None: not known.
        image_size: height and width of the model's images, pixels.
        tokens: tokens a tower gives for an image, N.
        token_size: size of a token, P.
        mean: subtracted from an image scaled to 0..1, by channel; inside the graphs, here for the reader.
        std: divides it afterwards.
        active_patches: which patches the event and the difference tower compute; None: all.
        precision: of the graphs.
        files: SHA-256 by file name, for every file but the manifest.
        report: what was measured at export; None where a bundle was made without.
        accuracy: figures of the training run's evaluation.
        engines: what `velora build` added; checked by the backend that loads one.
    """

    schema_version: int = SCHEMA_VERSION
    name: str
    version: str
    labels: tuple[str, ...] = Field(min_length=1)
    clip_length: int = Field(ge=2)
    stride: int = Field(1, ge=1)
    span_s: float | None = Field(None, gt=0)
    rate_hz: float | None = Field(None, gt=0)
    image_size: tuple[int, int]
    tokens: int = Field(gt=0)
    token_size: int = Field(gt=0)
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    event: EventInput = EventInput()
    rgb: RGBInput = RGBInput()
    active_patches: ActivePatches | None = None
    weights: Weights
    precision: Precision = "fp32"
    opset: int
    files: dict[str, str] = Field(default_factory=dict)
    report: Report | None = None
    accuracy: dict[str, Any] = Field(default_factory=dict)
    engines: tuple[EngineFile, ...] = ()

    @property
    def floats(self) -> str:
        """What the layers that are not of eight bits compute in: fp32, fp16 or bf16."""
        if self.precision not in ("int8", "fp8"):
            return self.precision
        calibration = None if self.report is None else self.report.calibration
        return "fp32" if calibration is None else calibration.floats

    @model_validator(mode="after")
    def _names_are_plain(self) -> Self:
        for name in (*self.files, *(engine.file for engine in self.engines)):
            parts = Path(name).parts
            if Path(name).is_absolute() or ".." in parts or "\\" in name or not parts:
                raise ValueError(f"file name {name!r} leaves the bundle")
        missing = [f"{graph}.onnx" for graph in GRAPHS if f"{graph}.onnx" not in self.files]
        if self.files and missing:
            raise ValueError(f"files lack {', '.join(missing)}")
        return self


def was_trained_on_files(manifest: Manifest) -> bool:
    """Whether the event images of training came from image files: then no packer here makes the same."""
    data = manifest.weights.run.get("data")
    return isinstance(data, dict) and data.get("event_frames") == "files"


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of `manifest.json`, as docs/manifest.schema.json publishes it."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Manifest.model_json_schema()}
