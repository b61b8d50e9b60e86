"""A bundle's graphs in ONNX Runtime on the CPU, and the clips that they are run on.

ONNX Runtime has no bf16 kernels for a CPU. A bf16 graph is therefore run as a twin in fp32 that rounds where
the graph does (`emulate_bf16`): its values are those of the graph itself but for the order in which a
product's sum is formed. At export this twin is compared with torch.
"""

from __future__ import annotations

import functools
import json
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from velora_edge.datatypes import MODALITIES
from velora_edge.errors import DatasetError, EngineError, InputError
from velora_edge.events.accumulate.active_patches import PATCHES, PatchFinder, list_patches
from velora_edge.manifest import ActivePatches
from velora_edge.ort import first_line, load_runtime, open_session, session_options

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from velora_edge.data.clips.clips import ClipSource
    from velora_edge.model.config import ModelConfig


Flags = dict[str, "NDArray[np.float32]"]


@dataclass(frozen=True)
class Clips:
    """Clips in memory.

    Attributes:
        rgb: uint8[B, T, H, W, 3]; zeros where that camera is absent.
        event: the same.
        source: where they come from, for the report.
        cameras: those that recorded them.
        labels: int64[B], places among the model's labels; None where they are not known.
        are_real: False for noise, for which any label is as good as another.
    """

    rgb: NDArray[np.uint8]
    event: NDArray[np.uint8]
    source: str
    cameras: tuple[str, ...] = ("rgb", "event")
    labels: NDArray[np.int64] | None = None
    are_real: bool = True

    def __len__(self) -> int:
        return len(self.rgb)

    def first(self, count: int) -> Clips:
        """At most `count` of them, drawn; the same each time."""
        which = _draw(len(self), count)
        labels = None if self.labels is None else self.labels[which]
        return replace(self, rgb=self.rgb[which], event=self.event[which], labels=labels)

    def flags(self, *, without: str = "") -> Flags:
        """`rgb_present` and `event_present` float32[1, T], as the cameras are, one of them hidden."""
        T = self.rgb.shape[1]
        return {
            f"{camera}_present": np.full((1, T), camera in self.cameras and camera != without, np.float32)
            for camera in ("rgb", "event")
        }


@dataclass(frozen=True)
class RealClips:
    """Clips of one data set: recordings that were trained on, and others to judge by.

    Attributes:
        calibration: ranges are taken from these. judged: the export is judged by these; none of them is in
        `calibration`, where the set is large enough.
    """

    calibration: Clips
    judged: Clips


def random_clips(config: ModelConfig, count: int = 4, seed: int = 0) -> Clips:
    """Clips of smooth noise, different in every frame."""
    draw = np.random.default_rng(seed)
    height, width = config.image_size
    coarse = draw.integers(
        0, 256, (2, count, config.clip_length, -(-height // 4), -(-width // 4), 3), np.uint8
    )
    images = coarse.repeat(4, axis=3).repeat(4, axis=4)[:, :, :, :height, :width]
    rgb, event = np.ascontiguousarray(images)
    return Clips(rgb, event, f"random, seed {seed}", are_real=False)


def read_real_clips(
    source: ClipSource, labels: Sequence[str], run: dict[str, Any], *, calibration: int, judged: int
) -> RealClips:
    """Clips of a data set, drawn from its recordings.

    Args:
        source: the set, in the model's form.
        labels: the model's; where the set has others, its clips carry none.
        run: identity of the training run: what was held out there is what is judged by.
        calibration: at most so many clips to calibrate on.
        judged: at most so many to judge by.
    """
    from velora_edge.train.evaluate import choose_part  # with torch, which sessions need not have

    held_out = choose_part(source, run).members
    try:
        trained = choose_part(source, run, "train").members
    except DatasetError:  # a published test part alone
        trained = held_out
    trained = trained[~np.isin(trained, held_out)] if not set(trained) <= set(held_out) else trained
    places = {label: k for k, label in enumerate(labels)}
    known = [places.get(label) for label in source.labels]
    return RealClips(
        _read(source, trained[_draw(len(trained), calibration)], known),
        _read(source, held_out[_draw(len(held_out), judged)], known),
    )


def _read(source: ClipSource, members: NDArray[np.int64], known: list[int | None]) -> Clips:
    pairs = [source.clip(int(index)) for index in members]
    T, (height, width) = source.spec.length, source.spec.image_size
    empty = np.zeros((len(pairs), T, height, width, 3), np.uint8)
    images = {
        camera: np.stack([p.rgb if camera == "rgb" else p.event for p in pairs])  # type: ignore[misc]
        for camera in source.cameras
    }
    labels = [known[source.items[int(index)].label] for index in members]
    return Clips(
        images.get("rgb", empty),
        images.get("event", empty),
        source.path.name,
        tuple(source.cameras),
        None if None in labels else np.array(labels, np.int64),
    )


def read_npz(path: Path, config: ModelConfig) -> RealClips:
    """Clips out of an .npz file: `rgb` and `event`, uint8[B, T, H, W, 3], and `label`, int64[B], where known.

    Every other clip is calibrated on, the others are judged by.

    Raises:
        InputError: if the file is not one, or if its clips are not of the model's size.
    """
    remedy = "give an .npz file with the arrays rgb and event, uint8[B, T, H, W, 3], B at least 2, and label"
    try:
        with np.load(path, allow_pickle=False) as file:
            rgb, event = np.asarray(file["rgb"]), np.asarray(file["event"])
            label = np.asarray(file["label"], np.int64) if "label" in file else None
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"no clips: {error}", path=path, remedy=remedy) from error
    expected = (config.clip_length, *config.image_size, 3)
    for name, array in (("rgb", rgb), ("event", event)):
        if array.dtype != np.uint8 or array.shape[1:] != expected or len(array) < 2:
            problem = f"expected 2 or more uint8 clips of {expected}, got {array.dtype} {array.shape}"
            raise InputError(problem, path=path, place=name, remedy=remedy)
    if len(rgb) != len(event) or (label is not None and label.shape != rgb.shape[:1]):
        raise InputError("rgb, event and label differ in length", path=path, remedy=remedy)
    if label is not None and not ((label >= 0) & (label < len(config.labels))).all():
        raise InputError(
            f"labels are not all from 0 to {len(config.labels) - 1}", path=path, place="label", remedy=remedy
        )
    parts = [
        Clips(rgb[k::2], event[k::2], path.name, labels=None if label is None else label[k::2])
        for k in (0, 1)
    ]
    return RealClips(*parts)


def _draw(there: int, wanted: int) -> NDArray[np.int64]:
    """At most `wanted` numbers below `there`, rising, always the same; drawn, for sets repeat classes."""
    drawn = np.random.default_rng(0).permutation(there)[:wanted]
    return np.sort(drawn).astype(np.int64)


FLOAT, HALF = ir.DataType.FLOAT, ir.DataType.BFLOAT16


def is_bf16(model: ir.Model) -> bool:
    """Whether a graph computes in bf16."""
    return any(value.dtype == HALF for node in model.graph for value in node.outputs)


def is_fp8(model: ir.Model) -> bool:
    """Whether a graph's linear layers compute in fp8."""
    fp8 = ir.DataType.FLOAT8E4M3FN
    return any(value.dtype == fp8 for node in model.graph for value in node.outputs)


def emulate_bf16(model: ir.Model) -> None:
    """Change a bf16 graph in place: fp32 everywhere, but rounded to bf16 wherever it was bf16."""
    graph = model.graph
    for node in list(graph):
        rounds = node.op_type == "Cast"
        for value in [value for value in node.outputs if value.dtype == HALF]:
            users = list(value.uses())
            down = node if rounds else _cast(value, HALF)
            up = _cast(down.outputs[0], FLOAT)
            if not rounds:
                value.dtype = FLOAT
                graph.insert_after(node, down)
            graph.insert_after(down, up)
            _feed(users, up)
    for weight in [value for value in graph.initializers.values() if value.dtype == HALF]:
        users = list(weight.uses())
        up = _cast(weight, FLOAT)
        graph.insert_before(graph[0], up)
        _feed(users, up)


def _cast(value: ir.Value, kind: ir.DataType) -> ir.Node:
    name = f"{value.name}.{kind.name.lower()}"
    cast = ir.node("Cast", [value], {"to": int(kind)}, name=name)
    made = cast.outputs[0]
    made.name, made.shape, made.type = name, value.shape, ir.TensorType(kind)
    return cast


def _feed(users: Sequence[tuple[ir.Node, int]], cast: ir.Node) -> None:
    for user, index in users:
        user.replace_input_with(index, cast.outputs[0])


_KEEPS_PAIRS = ("session.disable_quant_qdq", "1")
"""ONNX Runtime makes an int8 product of a pair of any type, and then refuses its own graph for being fp8."""


class Sessions:
    """Runs the graphs of one folder; a session is made when a graph is first asked for.

    A bf16 graph is computed in fp32, rounded after each operator (`emulate_bf16`). An fp8 graph's factors are
    rounded to fp8 and back, and multiplied as floats: what a GPU's products of fp8, summed in fp32, give.

    Args:
        folder: where `rgb.onnx` and the others lie, with their weights beside them.
        threads: for each graph; 0: as many as the machine has cores.

    Attributes:
        threads: as given.
    """

    def __init__(self, folder: Path, *, threads: int = 0) -> None:
        self._runtime = load_runtime("checking an exported model")
        self._folder, self.threads = folder, threads
        self._sessions: dict[str, Any] = {}

    @property
    def runtime(self) -> str:
        """What computes, for the report."""
        return f"ONNX Runtime {self._runtime.__version__} on the CPU"

    def run(self, graph: str, inputs: Mapping[str, NDArray[np.generic]]) -> NDArray[np.float32]:
        """The one output of a graph, as float32; inputs that are fp16 in the graph are rounded here.

        Raises:
            EngineError: if ONNX Runtime refuses the graph.
        """
        session = self.session(graph)
        halves = {entry.name for entry in session.get_inputs() if entry.type == "tensor(float16)"}
        given = {name: a.astype(np.float16) if name in halves else a for name, a in inputs.items()}
        try:
            (output,) = session.run(None, given)
        except Exception as error:  # onnxruntime's own types, none of them public
            raise EngineError(f"onnxruntime failed in {graph}.onnx: {first_line(error)}") from error
        return np.asarray(output, np.float32)

    def session(self, graph: str) -> Any:
        """The graph's session.

        Raises:
            EngineError: if ONNX Runtime refuses the graph.
        """
        if graph not in self._sessions:
            self._sessions[graph] = self._open(graph)
        return self._sessions[graph]

    def _open(self, graph: str) -> Any:
        path = self._folder / f"{graph}.onnx"
        options = session_options(self.threads)
        try:
            model = ir.load(path)
            if is_fp8(model):
                options.add_session_config_entry(*_KEEPS_PAIRS)
            if not is_bf16(model):
                return open_session(path, options)
            emulate_bf16(model)
            return open_session(ir.to_proto(model).SerializeToString(), options, weights=self._folder)
        except EngineError as error:
            raise EngineError(f"{path.name}: {error}") from error

    @functools.cached_property
    def finder(self) -> PatchFinder | None:
        """Finds the patches that the graphs take a list of, by the manifest's facts that they carry."""
        facts = ir.load(self._folder / "event.onnx").metadata_props
        form = json.loads(facts.get("velora.active_patches", "null"))
        if form is None:
            return None
        height, width = json.loads(facts["velora.image_size"])
        return PatchFinder(ActivePatches(**form), (height, width))

    def close(self) -> None:
        """Let go of the sessions' memory."""
        self._sessions.clear()


Inputs = dict[str, "NDArray[Any]"]


def clip_runs(
    rgb: NDArray[np.uint8], event: NDArray[np.uint8], flags: Flags, finder: PatchFinder | None = None
) -> Iterator[tuple[str, Inputs]]:
    """Each tower's runs over a clip: the graph's name and its inputs, batch 1.

    Args:
        rgb: uint8[T, H, W, 3].
        event: uint8[T, H, W, 3].
        flags: `rgb_present` and `event_present`, float32[1, T]: the same for all pairs of the clip.
        finder: of the patches to compute, for graphs that take a list of them.
    """
    has_rgb, has_event = flags["rgb_present"][0, 0] > 0, flags["event_present"][0, 0] > 0

    active = [] if finder is None else [finder.find(image) for image in event]
    for j in range(len(rgb)):
        yield "rgb", {"image": rgb[j][None]}
        yield "event", {"image": event[j][None], **_listed(active[j : j + 1])}
        if j:
            images = {
                "rgb": rgb[j],
                "rgb_before": rgb[j - 1] if has_rgb else rgb[j],
                "event": event[j],
                "event_before": event[j - 1] if has_event else event[j],
            }
            either = [active[j] | active[j - 1] | (not has_event)] if active else []
            yield "diff", {**{name: image[None] for name, image in images.items()}, **_listed(either)}


def _listed(active: Sequence[NDArray[np.bool_]]) -> Inputs:
    """The input `patches` of one image's active patches, or of none: then the graph has no such input."""
    return {PATCHES: list_patches(active[0])[None]} if active else {}


def head_inputs(
    tokens: Mapping[str, Sequence[NDArray[np.float32]]], flags: Flags
) -> dict[str, NDArray[np.float32]]:
    """The head's inputs for a clip, its slots turned by two, as a ring's are.

    Args:
        tokens: of each tower's runs, float32[1, N, P], in their order.
        flags: as for `clip_runs`.
    """
    rings = {name: np.roll(np.concatenate(tokens[name]), 2, axis=0)[None] for name in MODALITIES}
    moved = (flags["rgb_present"] + flags["event_present"] > 0)[:, 1:].astype(np.float32)
    return {**rings, **flags, "diff_present": moved}


def stream_clip(
    sessions: Sessions, rgb: NDArray[np.uint8], event: NDArray[np.uint8], flags: Flags
) -> NDArray[np.float32]:
    """Logits [1, K] of one clip as the runtime gets them: image by image, slots turned, then the head.

    Args:
        sessions: of the graphs.
        rgb: uint8[T, H, W, 3].
        event: uint8[T, H, W, 3].
        flags: `rgb_present` and `event_present`, float32[1, T]: the same for all pairs of the clip.
    """
    tokens: dict[str, list[NDArray[np.float32]]] = defaultdict(list)
    for graph, inputs in clip_runs(rgb, event, flags, sessions.finder):
        tokens[graph].append(sessions.run(graph, inputs))
    return sessions.run("head", head_inputs(tokens, flags))
