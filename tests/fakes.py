"""Stand-ins for clocks, cameras, engines and sinks, and a model small enough to make on the spot."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from velora_runtime.sinks.base import Result, Sink

from velora_edge.bundle import Bundle, BundleWriter, EventInput, Manifest, Weights
from velora_edge.datatypes import EventBatch, RGBFrame, TriggerBatch
from velora_edge.events.formats.arrays import ArrayReader
from velora_edge.preprocessing.sources import RGBSource

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Sequence

    from velora_runtime.engines.ring import Presence, Slot


class FakeClock:
    """Time that passes only by waiting for it."""

    def __init__(self) -> None:
        self.t_us = 0
        self.waits: list[int] = []

    def now_us(self) -> int:
        return self.t_us

    def wait_until(self, t_us: int, stop: threading.Event) -> None:
        if not stop.is_set():
            self.waits.append(t_us)
            self.t_us = max(self.t_us, t_us)


class MemoryEvents(ArrayReader):
    """A recording in memory: events as (t_us, x, y, p), trigger edges as (t_us, id, p)."""

    def __init__(
        self,
        events: Sequence[tuple[int, int, int, int]],
        sensor: tuple[int, int] = (8, 8),
        triggers: Sequence[tuple[int, int, int]] = (),
    ) -> None:
        super().__init__(Path("memory.raw"), "memory", sensor)
        self.batch = EventBatch(
            *(np.array([e[i] for e in events], kind) for i, kind in enumerate(("i8", "u2", "u2", "u1")))
        )
        self.edges = TriggerBatch(
            *(np.array([e[i] for e in triggers], kind) for i, kind in enumerate(("i8", "u1", "u1")))
        )

    def batches(self) -> Iterator[EventBatch]:
        if len(self.batch):
            yield self.batch

    def triggers(self) -> TriggerBatch:
        return self.edges


class FakeRGB(RGBSource):
    """Frames at given times; every pixel of frame k is k."""

    def __init__(self, times_us: Sequence[int], hw: tuple[int, int] = (8, 8), *, on_event_clock: bool = True):
        self.name, self.warnings = "fake", []
        self.height, self.width = hw
        self.is_on_event_clock = on_event_clock
        self._times_us = list(times_us)

    def __iter__(self) -> Iterator[RGBFrame]:
        for seq, t_us in enumerate(self._times_us):
            yield RGBFrame(np.full((self.height, self.width, 3), seq, np.uint8), t_us, seq)

    def times_us(self) -> np.ndarray:
        return np.array(self._times_us, np.int64)


class RecordingEngine:
    """Keeps in each slot what was put there: the value of an image's first pixel, or the difference's two."""

    name = "a fake"

    def __init__(self, clip_length: int, stride: int = 1, labels: int = 2) -> None:
        T, S = clip_length, stride
        self.rgb: list[list[int | None]] = [[None] * T for _ in range(S)]
        self.event: list[list[int | None]] = [[None] * T for _ in range(S)]
        self.diff: list[list[tuple[int, ...] | None]] = [[None] * (T - 1) for _ in range(S)]
        self.decided: list[tuple[int, list[float], list[float], list[float]]] = []
        self.logits = np.zeros(labels, np.float32)
        self.is_closed = False

    def encode(
        self, modality: str, images: Sequence[np.ndarray], slot: Slot, patches: np.ndarray | None = None
    ) -> None:
        values = [int(image[0, 0, 0]) for image in images]
        if modality != "diff":
            getattr(self, modality)[slot.phase][slot.pair] = values[0]
            return
        pairs = ((images[0], images[1]), (images[2], images[3]))
        self.diff[slot.phase][slot.diff] = tuple(
            None if now is before else (int(before[0, 0, 0]), int(now[0, 0, 0])) for now, before in pairs
        )  # type: ignore[assignment]

    def decide(self, phase: int, presence: Presence) -> np.ndarray:
        self.decided.append((phase, presence.rgb.tolist(), presence.event.tolist(), presence.diff.tolist()))
        return self.logits

    def warm_up(self) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True


class RecordingSink(Sink):
    """Keeps everything it gets; its thread waits at `gate` where one is given."""

    name = "recording"

    def __init__(self, *, room: int = 256, gate: threading.Event | None = None) -> None:
        self.room, self._gate = room, gate
        self.taken: list[Result] = []
        self.written: list[Result] = []
        self.discarded: list[Result] = []
        self.closed = 0

    def take(self, result: Result) -> Any:
        self.taken.append(result)
        return result

    def write(self, item: Result) -> None:
        if self._gate is not None:
            assert self._gate.wait(30)
        self.written.append(item)

    def discard(self, item: Result) -> None:
        self.discarded.append(item)

    def close(self) -> None:
        self.closed += 1


def tiny_manifest(clip_length: int = 3, stride: int = 1, **changes: Any) -> Manifest:
    """A model of 8x8 images, 4 tokens of 48 and three labels."""
    manifest = Manifest(
        name="tiny",
        version="0",
        labels=("left", "right", "still"),
        clip_length=clip_length,
        stride=stride,
        image_size=(8, 8),
        tokens=4,
        token_size=48,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        event=EventInput(window_us=1000),
        weights=Weights(trained=True, architecture="by hand", sha256="0"),
        opset=18,
    )
    return manifest.model_copy(update=changes)


def write_tiny_bundle(path: Path, clip_length: int = 3, stride: int = 1, **changes: Any) -> Bundle:
    """A bundle whose graphs are written by hand: towers of one function each, a head of one matrix."""
    import onnx
    import onnx.parser

    manifest = tiny_manifest(clip_length, stride, **changes)
    weight = np.random.default_rng(7).normal(size=(576, len(manifest.labels))).astype(np.float32)
    with BundleWriter(path) as writer:
        for name, text in _graphs(clip_length).items():
            model = onnx.parser.parse_model('<ir_version: 9, opset_import: ["" : 18]>\n' + text)
            if name in ("head", "clip"):
                model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "weight"))
            onnx.checker.check_model(model)
            onnx.save(model, writer.folder / f"{name}.onnx")
        return writer.finish(manifest)


def _graphs(T: int) -> dict[str, str]:
    constants = """
        float scale = {0.00784313725}, float one = {1.0}, float absent = {0.25}, int64[1] first = {1},
        int64[2] last = {2, 3}, int64[3] each = {-1, 4, 48}, int64[4] clip = {0, -1, 4, 48},
        int64[4] images = {-1, 8, 8, 3}, int64[2] flat = {-1, 192}, int64[1] zero = {0},
        int64[1] T = {T_SLOTS}, int64[1] before = {D_SLOTS}
    """.replace("T_SLOTS", str(T)).replace("D_SLOTS", str(T - 1))
    diff = """
        {a}1 = Cast<to = 1>({a})  {a}2 = Cast<to = 1>({a}_before)  {a}3 = Sub({a}1, {a}2)  {a}4 = Abs({a}3)
    """
    mean = """
        {m}_mask = Unsqueeze({m}_present, last)  {m}_kept = Mul({m}_tokens, {m}_mask)
        {m}_sum = ReduceSum<keepdims = 0>({m}_kept, first)
        {m}_slots = ReduceSum<keepdims = 1>({m}_present, first)
        {m}_count = Max({m}_slots, one)  {m}_any = Min({m}_slots, one)  {m}_none = Sub(one, {m}_any)
        {m}_flat = Reshape({m}_sum, flat)  {m}_mean = Div({m}_flat, {m}_count)
        {m}_there = Mul({m}_mean, {m}_any)  {m}_lack = Mul(absent, {m}_none)
        {m}_in = Add({m}_there, {m}_lack)
    """
    towers = """
        {m}_long = Reshape({m}, images)  {m}_float = Cast<to = 1>({m}_long)  {m}_unit = Mul({m}_float, scale)
        {m}_tanh = {f}({m}_unit)  {m}_tokens = Reshape({m}_tanh, clip_{k})
    """
    both = """
        {m}_new = Slice({m}, first, T, first)  {m}_old = Slice({m}, zero, before, first)
        {m}_new1 = Cast<to = 1>({m}_new)  {m}_old1 = Cast<to = 1>({m}_old)  {m}_sub = Sub({m}_new1, {m}_old1)
        {m}_moved = Abs({m}_sub)
        {m}_p1 = Slice({m}_present, first, T, first)  {m}_p0 = Slice({m}_present, zero, before, first)
        {m}_both = Mul({m}_p1, {m}_p0)  {m}_bm = Unsqueeze({m}_both, pixel)
        {m}_counts = Mul({m}_moved, {m}_bm)
    """
    join = """
        joined = Concat<axis = 1>(rgb_in, event_in, diff_in)  logits = MatMul(joined, weight)
    """
    means = "".join(mean.format(m=m) for m in ("rgb", "event", "diff"))
    return {
        "rgb": f"""rgb (uint8[B, 8, 8, 3] image) => (float[B, 4, 48] tokens) <{constants}>
            {{ a = Cast<to = 1>(image)  b = Mul(a, scale)  c = Tanh(b)  tokens = Reshape(c, each) }}""",
        "event": f"""event (uint8[B, 8, 8, 3] image) => (float[B, 4, 48] tokens) <{constants}>
            {{ a = Cast<to = 1>(image)  b = Mul(a, scale)  c = Sin(b)  tokens = Reshape(c, each) }}""",
        "diff": f"""diff (uint8[B, 8, 8, 3] rgb, uint8[B, 8, 8, 3] rgb_before, uint8[B, 8, 8, 3] event,
            uint8[B, 8, 8, 3] event_before) => (float[B, 4, 48] tokens) <{constants}>
            {{ {diff.format(a="rgb")} {diff.format(a="event")}
            s = Add(rgb4, event4)  u = Mul(s, scale)  q = Sqrt(u)  tokens = Reshape(q, each) }}""",
        "head": f"""head (float[B, {T}, 4, 48] rgb, float[B, {T}, 4, 48] event, float[B, {T - 1}, 4, 48] diff,
            float[B, {T}] rgb_present, float[B, {T}] event_present, float[B, {T - 1}] diff_present)
            => (float[B, K] logits) <{constants}>
            {{ rgb_tokens = Identity(rgb)  event_tokens = Identity(event)  diff_tokens = Identity(diff)
            {means} {join} }}""",
        "clip": f"""clip (uint8[B, {T}, 8, 8, 3] rgb, uint8[B, {T}, 8, 8, 3] event,
            float[B, {T}] rgb_present, float[B, {T}] event_present) => (float[B, K] logits)
            <{constants}, int64[3] pixel = {{2, 3, 4}}, int64[4] clip_T = {{-1, {T}, 4, 48}},
            int64[4] clip_D = {{-1, {T - 1}, 4, 48}}>
            {{ {towers.format(m="rgb", f="Tanh", k="T")} {towers.format(m="event", f="Sin", k="T")}
            {both.format(m="rgb")} {both.format(m="event")}
            s = Add(rgb_counts, event_counts)  u = Mul(s, scale)  q = Sqrt(u)
            diff_tokens = Reshape(q, clip_D)
            either = Add(rgb_both, event_both)  diff_present = Min(either, one)
            {means} {join} }}""",
    }


def relisted(bundle: Bundle, name: str, data: bytes) -> Bundle:
    """The bundle with another file in one's place, as its manifest says too."""
    (bundle.path / name).write_bytes(data)
    files = {**bundle.manifest.files, name: hashlib.sha256(data).hexdigest()}
    return Bundle(bundle.path, bundle.manifest.model_copy(update={"files": files}))
