"""Clips: what a model sees of a recording, what every data set offers, splits, and windows in memory."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from velora_edge.bundle import EventInput, RGBInput
from velora_edge.config import Section
from velora_edge.errors import DatasetError
from velora_edge.events.accumulate.representations import make_accumulator
from velora_edge.events.formats.arrays import ArrayStream
from velora_edge.preprocessing.windows import clip_span_s

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from velora_edge.datatypes import EventBatch
    from velora_edge.events.accumulate.representations import RegistrationMap


Modality = Literal["rgb", "event"]
CAMERAS: tuple[Modality, Modality] = ("rgb", "event")
"""The two cameras, in the order of every presence mask."""

Sampling = Literal["spread", "stride"]
EventFrames = Literal["packed", "files"]
Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, Split, Split] = ("train", "val", "test")
_MOST_ASKED = 200
"""Recordings that are asked for their length, where a median will do."""


@dataclass(frozen=True, slots=True)
class ClipSpec:
    """The form that a model wants its clips in; read from its checkpoint or its bundle.

    Attributes:
        length: pairs in a clip, T.
        image_size: height and width, pixels.
        sampling: `spread` takes T pairs evenly from the whole recording; `stride` takes T pairs that lie
            `stride` apart, as a live stream does.
        stride: pairs from one of the clip's pairs to the next, where sampling is `stride`.
        event: how events become images.
        rgb: how pictures become images.
        rate_hz: pairs a second, for data sets that do not tell (image files); None: not known either.
    """

    length: int
    image_size: tuple[int, int]
    sampling: Sampling = "spread"
    stride: int = 1
    event: EventInput = field(default_factory=EventInput)
    rgb: RGBInput = field(default_factory=RGBInput)
    rate_hz: float | None = None


@dataclass(frozen=True, slots=True)
class Pairs:
    """Images of both cameras in step; one of them may be absent.

    Attributes:
        rgb: uint8[T, H, W, 3], RGB order, or None.
        event: uint8[T, H, W, 3] in the spec's representation, or None.
        numbers: int64[T]; clips overlap, and pairs of one number are the same in each. None: not known.
    """

    rgb: NDArray[np.uint8] | None
    event: NDArray[np.uint8] | None
    numbers: NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """One labelled recording of a data set.

    Attributes:
        name: its name within the set, unique.
        label: its class, an index into the set's labels.
        split: the one that the set's publishers put it in, or None where they did not say.
    """

    name: str
    label: int
    split: Split | None = None


class ClipSource(ABC):
    """A data set: labelled recordings, each read as pairs of images in the form that a spec asks for.

    Readable from several threads at a time, and from forked or spawned workers.

    Attributes:
        kind: name of its layout, such as "pokerevent".
        path: where it lies.
        spec: the form of its images.
        labels: class names; an item's label is an index into them.
        items: its recordings, in an order that depends on nothing but the data.
        cameras: those that recorded it.
        is_sequential: read it in the order of its items and from one thread.
        event_frames: `packed` by our packer from events, or `files`: images that others made, by windows and
            in colours that nobody can tell.
        cuts_windows: it cuts its windows one after the other from events, as long as the spec says: with half
            the window it has twice the pairs.
    """

    is_sequential: bool = False
    event_frames: EventFrames = "packed"
    cuts_windows: bool = False
    kind: str
    path: Path
    spec: ClipSpec
    labels: tuple[str, ...]
    items: Sequence[Item]
    cameras: tuple[Modality, ...]

    def __len__(self) -> int:
        return len(self.items)

    @property
    def rate_hz(self) -> float | None:
        """Pairs a second; None where nobody knows."""
        return 1e6 / self.spec.event.window_us if self.cuts_windows else self.spec.rate_hz

    @abstractmethod
    def pairs(self, index: int) -> int:
        """Return the number of pairs of a recording; at least 1.

        Raises:
            DatasetError: if it has none, or if its files cannot be read.
        """

    @abstractmethod
    def read(self, index: int, which: NDArray[np.int64]) -> Pairs:
        """The chosen pairs of a recording.

        Args:
            index: of the recording.
            which: int64[T], numbers of pairs, not decreasing; repeats are allowed.

        Raises:
            DatasetError: if a file is missing or damaged.
        """

    @abstractmethod
    def problems(self, index: int, *, deep: bool) -> list[str]:
        """List problems of a recording, one sentence each that begins with the file's place in the set.

        Args:
            index: of the recording.
            deep: decode every image and every event; otherwise look at names, sizes, heads and tails.
        """

    def set_problems(self) -> list[str]:
        """List problems of the set as a whole, such as a line of a list that names no recording."""
        return []

    def warnings(self, index: int) -> list[str]:
        """List what of a recording may be meant otherwise, likewise; reads it."""
        return []

    def set_warnings(self) -> list[str]:
        """List what of the set as a whole may be meant otherwise, such as folders that are not looked at."""
        return []

    def clip(self, index: int, rng: np.random.Generator | None = None) -> Pairs:
        """T pairs of a recording in their order: drawn by `rng` in training, the same each time without."""
        return self.read(index, choose_pairs(self.pairs(index), self.spec, rng))

    def close(self) -> None:  # noqa: B027  (most sets hold nothing)
        """Close all files."""


def choose_pairs(
    pairs: int, spec: ClipSpec, rng: np.random.Generator | None = None, rate: float = 1.0
) -> NDArray[np.int64]:
    """Numbers of the pairs that make a clip, int64[T], not decreasing.

    `spread` cuts the recording into T equal parts and takes one pair of each: the middle one, or one that
    `rng` draws. `stride` takes T pairs `stride` apart: from the middle of the recording, or from where `rng`
    says. A recording that is too short repeats pairs (`spread`) or its last pair (`stride`).

    Args:
        pairs: of the recording.
        spec: the form of the clip.
        rng: draws; None: always the same pairs.
        rate: of a camera with so many times the pairs a second; at 2 a clip by `stride` is half as long.
    """
    step = np.arange(spec.length, dtype=np.int64)
    if spec.sampling == "stride":
        steps = (step * spec.stride / rate).astype(np.int64)
        spare = pairs - (int(steps[-1]) + 1)
        start = 0 if spare <= 0 else spare // 2 if rng is None else int(rng.integers(spare + 1))
        return np.minimum(start + steps, pairs - 1)
    inside = 0.5 if rng is None else rng.random(spec.length)
    return np.minimum(((step + inside) * pairs / spec.length).astype(np.int64), pairs - 1)


def median_span_s(source: ClipSource, members: Sequence[int] | NDArray[np.int64]) -> float | None:
    """Seconds from the first pair of a clip to its last; None where nobody knows, or recordings are one pair.

    Of clips that are spread over recordings it is the median over some of `members`; others follow from the
    stride.
    """
    spec, rate_hz = source.spec, source.rate_hz
    if rate_hz is None:
        return None
    if spec.sampling == "stride":
        return clip_span_s(spec.length, spec.stride, rate_hz)
    counts = []
    for index in members[:: max(1, len(members) // _MOST_ASKED)]:
        with suppress(DatasetError):  # data.skip_damaged leaves it out
            counts.append(source.pairs(int(index)))
    reach = [int(which[-1] - which[0]) for which in (choose_pairs(count, spec) for count in counts)]
    return float(np.median(reach)) / rate_hz or None if reach else None


class SplitConfig(Section):
    """Split of recordings where a set's publishers give none.

    Attributes:
        by: `recording`, whole recordings; or `time`: each recording of a set of them is cut into pieces,
            the first of which train; then come validation, a gap that no part has, and the test.
        val: share that validation takes of each class's training recordings; it chooses the checkpoint.
        test: share that the test takes of each class, where no test part is published; read once, at the end.
        seed: another seed makes other parts.
        gap: share of a recording between validation and test, by time.
        piece_s: length of a piece, seconds, by time: a multiple of the window.
    """

    by: Literal["recording", "time"] = "recording"
    val: float = Field(0.1, ge=0, lt=1)
    test: float = Field(0.2, ge=0, lt=1)
    seed: int = 0
    gap: float = Field(0.1, ge=0, lt=1)
    piece_s: float = Field(1.0, gt=0)

    def problems(self) -> list[str]:
        """See `Section.problems`."""
        taken = self.val + self.test + (self.gap if self.by == "time" else 0)
        others = "test and gap" if self.by == "time" else "test"
        return [f"val: together with {others} must leave something to train on"] if taken >= 1 else []


def split_items(items: Sequence[Item], config: SplitConfig) -> dict[Split, NDArray[np.int64]]:
    """Divide recordings into parts: int64[n] numbers of items, ascending.

    Published parts are kept. Where a set publishes no test part, the test takes its share of each class; the
    same for validation, which is never taken from a published test part. A recording's part follows from its
    name, its class and the seed, not from the order of the files.
    """
    parts: dict[Split, list[int]] = {
        split: [i for i, item in enumerate(items) if item.split == split] for split in SPLITS
    }
    free = [i for i, item in enumerate(items) if item.split is None]
    if not parts["test"]:
        parts["test"], free = _take(items, free, config.test, f"test:{config.seed}")
    if not parts["val"]:
        pool = sorted(free + parts["train"])
        share = config.val / (1 - config.test) if free else config.val
        parts["val"], rest = _take(items, pool, share, f"val:{config.seed}")
        parts["train"] = rest
    else:
        parts["train"] += free
    return {split: np.array(sorted(parts[split]), np.int64) for split in SPLITS}


def fingerprint(items: Iterable[Item]) -> str:
    """A digest of a set's names and labels: the same for the same recordings, whatever folder they lie in."""
    digest = hashlib.sha256()
    for item in sorted(items, key=lambda item: item.name):
        digest.update(f"{item.name}\0{item.label}\n".encode())
    return digest.hexdigest()


def _take(items: Sequence[Item], pool: Sequence[int], share: float, salt: str) -> tuple[list[int], list[int]]:
    """Divide `pool` into what is taken, `share` of each class, and what is left."""
    by_class: dict[int, list[int]] = defaultdict(list)
    for index in pool:
        by_class[items[index].label].append(index)
    taken: list[int] = []
    for members in by_class.values():
        members.sort(key=lambda i: hashlib.sha256(f"{salt}:{items[i].name}".encode()).digest())
        taken += members[: round(share * len(members))]
    left = set(pool) - set(taken)
    return taken, sorted(left)


def count_windows(t_first_us: int, t_last_us: int, window_us: int) -> int:
    """Return the number of whole windows that a recording fills from its first event on; at least 1."""
    return max(1, (t_last_us - t_first_us + 1) // window_us)


def pack_windows(
    events: EventBatch,
    windows: Sequence[tuple[int, int]],
    registration: RegistrationMap,
    event_input: EventInput,
) -> NDArray[np.uint8]:
    """Images of windows of one recording, by the stream and the kernels that the runtime packs with.

    Args:
        events: in time order.
        windows: [t0, t1) each, not overlapping and not going back; the same one may come several times.
        registration: from the sensor to the model's image.
        event_input: the representation.

    Returns:
        uint8[n, H, W, 3].
    """
    height, width = registration.source_hw
    frame = make_accumulator(event_input, registration)
    images = np.empty((len(windows), *registration.target_hw, 3), np.uint8)
    with ArrayStream(iter([events] if len(events) else []), width, height) as stream:
        for k, (t0_us, t1_us) in enumerate(windows):
            if k and windows[k - 1] == (t0_us, t1_us):
                images[k] = images[k - 1]
                continue
            stream.skip_until(t0_us)
            frame.begin(t0_us, t1_us)
            stream.accumulate_until(t1_us, frame)
            frame.render_into(images[k])
    return images
