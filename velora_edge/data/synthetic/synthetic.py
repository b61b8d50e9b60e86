"""Synthetic data set: clips that neither camera can label alone, rendered on first use."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from velora_edge.data.clips.augment import SYNTHETIC
from velora_edge.data.clips.clips import SPLITS, ClipSource, Item, Modality, Pairs, pack_windows
from velora_edge.data.synthetic.synthetic_scene import (
    LABELS,
    Flights,
    Light,
    SceneModel,
    draw_colour,
    draw_flights,
    draw_ground,
    draw_light,
    draw_log,
    draw_sprite,
    expose_into,
    light_at,
    render_events,
)
from velora_edge.errors import DatasetError, InputError
from velora_edge.events.accumulate.representations import RegistrationMap
from velora_edge.events.simulator import EventSimulator
from velora_edge.vision import Resizer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.random import Generator
    from numpy.typing import NDArray

    from velora_edge.data.clips.clips import ClipSpec
    from velora_edge.datatypes import EventBatch


__all__ = ["LABELS", "Action", "Clip", "SceneModel", "SyntheticSet", "make_clip", "render_actions"]

_EXPOSURE_SAMPLES = 4


@dataclass(frozen=True, slots=True)
class Clip:
    """Clip of both cameras; pair k is picture k and the events in [t_us[k] - period_us, t_us[k]).

    Attributes:
        rgb: uint8[T, H, W, 3], RGB order.
        events: of a sensor of the same view and resolution, in time order, from 0.
        t_us: int64[T], middle of each picture's exposure.
        period_us: from one picture to the next.
        label: index into `LABELS`.
    """

    rgb: NDArray[np.uint8]
    events: EventBatch
    t_us: NDArray[np.int64]
    period_us: int
    label: int

    @property
    def name(self) -> str:
        """The label's name."""
        return LABELS[self.label]


class Action(NamedTuple):
    """A stretch of a longer recording: `label` is a name of `LABELS`, times in microseconds, [start, end)."""

    label: str
    start_us: int
    end_us: int


def make_clip(
    seed: int | Sequence[int], *, label: int | None = None, pairs: int = 8, scene: SceneModel | None = None
) -> Clip:
    """One clip; the same arguments give the same clip.

    Args:
        seed: of everything that is drawn.
        label: index into `LABELS`, or None to draw it. The same seed with another label shows the same ground
            in the same light and an object of the same shape, size and speed.
        pairs: T.
        scene: what is shown.
    """
    scene = scene or SceneModel()
    rng = np.random.default_rng(seed)
    drawn = int(rng.integers(len(LABELS)))
    label = drawn if label is None else label
    end_us = pairs * scene.period_us
    t_us = scene.period_us * np.arange(1, pairs + 1, dtype=np.int64)
    view = _View(scene, rng)
    # The crossing that the next picture would catch is already on its way when the clip ends.
    view.add(LABELS[label], scene.period_us * np.arange(pairs + 2, dtype=np.int64))
    return Clip(view.expose(t_us), view.events(end_us), t_us, scene.period_us, label)


def render_actions(
    actions: Sequence[Action], t_us: NDArray[np.int64], seed: int, scene: SceneModel | None = None
) -> tuple[NDArray[np.uint8], EventBatch]:
    """A longer recording in which one action follows another over the same ground.

    Args:
        actions: in time order; between them the view is empty. One crossing for each picture.
        t_us: int64[T], middle of the exposure of each picture.
        seed: of everything that is drawn.
        scene: what is shown.

    Returns:
        The pictures, uint8[T, H, W, 3], and the events from 0 to the end of the last exposure.
    """
    scene = scene or SceneModel()
    view = _View(scene, np.random.default_rng(seed))
    for action in actions:
        view.add(action.label, t_us[(t_us >= action.start_us) & (t_us < action.end_us)])
    return view.expose(t_us), view.events(int(t_us[-1]) + scene.exposure_us // 2)


class SyntheticSet:
    """`n` clips of one split, the same ones whenever they are asked for; the labels take turns.

    Splits are disjoint: each clip is drawn from a seed of its own, made of the set's, the split's number and
    the index.

    Args:
        n: number of clips.
        seed: of the set.
        split: train, val or test.
        pairs: T.
        scene: what is shown.
    """

    labels = LABELS

    def __init__(
        self, n: int, seed: int = 0, split: str = "train", *, pairs: int = 8, scene: SceneModel | None = None
    ) -> None:
        if split not in SPLITS:
            raise InputError(f"expected the split to be one of {', '.join(SPLITS)}, got {split!r}")
        self.n, self.seed, self.split, self.pairs, self.scene = n, seed, split, pairs, scene or SceneModel()

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[Clip]:
        return (self[i] for i in range(self.n))

    def __getitem__(self, index: int) -> Clip:
        if not 0 <= index < self.n:
            raise IndexError(f"clip {index} of {self.n}")
        seed = (self.seed, SPLITS.index(self.split), index)
        return make_clip(seed, label=self.label(index), pairs=self.pairs, scene=self.scene)

    def label(self, index: int) -> int:
        """The label of a clip, without making it."""
        return index % len(LABELS)


class _View:
    """The scene while it is put together, then seen by both cameras."""

    def __init__(self, scene: SceneModel, rng: Generator) -> None:
        self.scene, self.rng = scene, rng
        self.ground, self.ground_rgb = draw_ground(scene, rng)
        self.light: Light = draw_light(scene, rng)
        noise_hz = rng.uniform(*scene.noise_rate_hz)
        self.sensor = replace(scene.sensor, noise_rate_hz=noise_hz)
        self.sprites: list[NDArray[np.float32]] = []
        self.colours: list[NDArray[np.float32]] = []
        self._parts: list[Flights] = []

    def add(self, label: str, t_us: NDArray[np.int64]) -> None:
        """Let an object fly through the pictures taken at `t_us`."""
        colour, _, direction = label.partition("-")
        # The shade has dice of its own: how many it needs must not change what is drawn after it.
        shade = draw_colour(colour, np.random.default_rng(self.rng.integers(2**32)))
        self.sprites.append(draw_sprite(self.scene, self.rng))
        flights = draw_flights(self.scene, direction, t_us, self.sprites[-1], len(self.sprites) - 1, self.rng)
        self.colours.extend(shade * np.float32(luma) for luma in flights.luma)
        self._parts.append(flights)

    @property
    def flights(self) -> Flights:
        return Flights(*(np.concatenate(columns) for columns in zip(*self._parts, strict=True)))

    def expose(self, t_us: NDArray[np.int64]) -> NDArray[np.uint8]:
        shape = (len(t_us), *self.ground_rgb.shape)
        images = np.empty(shape, np.uint8)
        noise = self.rng.standard_normal(shape, np.float32)
        expose_into(
            images, t_us, self.scene.exposure_us, _EXPOSURE_SAMPLES, self.ground_rgb, np.array(self.colours),
            np.array(self.sprites), self.flights, self.light, noise, np.array(self.scene.grain),
        )  # fmt: skip
        return images

    def events(self, end_us: int) -> EventBatch:
        scene, side, flights = self.scene, self.scene.side_px, self.flights
        sensor = EventSimulator(side, side, self.sensor, seed=int(self.rng.integers(2**63)))
        sprites, ground_log = np.array(self.sprites), np.log(self.ground)
        canvas = ground_log.copy()
        for i in np.flatnonzero((flights.start_us <= 0) & (flights.end_us >= 0)):
            draw_log(canvas, self.ground, ground_log, sprites, flights, i, 0)
        sensor.begin(canvas + np.float32(light_at(self.light, 0)), 0)
        sensor.room, n = render_events(
            sensor.state, canvas, self.ground, ground_log, sprites, flights, self.light, (0, end_us),
            scene.light_step_us, scene.step_px, self.sensor.refractory_us, sensor.room,
        )  # fmt: skip
        return sensor.collect(n, end_us)


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

    @property
    def rate_hz(self) -> float:
        """See `ClipSource.rate_hz`."""
        return 1e6 / self._parts["train"].scene.period_us

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
    resizer = Resizer(source_hw, spec.image_size, spec.rgb.fit, spec.rgb.resample)
    rgb = np.empty((len(clip.rgb), *spec.image_size, 3), np.uint8)
    for picture, image in zip(clip.rgb, rgb, strict=True):
        resizer.resize_into(picture, image)
    registration = RegistrationMap.from_fit(source_hw, spec.image_size, spec.event.fit)
    windows = [(int(t_us) - clip.period_us, int(t_us)) for t_us in clip.t_us]
    return Pairs(rgb, pack_windows(clip.events, windows, registration, spec.event))
