"""Evaluation of a model on a data set: as it is, without a camera, corrupted; as JSON and as a picture."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from velora_edge.data.clips.clips import SplitConfig, fingerprint, split_items
from velora_edge.data.clips.corruptions import CorruptedSource, Corruption
from velora_edge.errors import DatasetError, InputError
from velora_edge.files import replace_file
from velora_edge.train.batches import ClipDataset, evaluation_batches, load
from velora_edge.train.objective import interval_of, recording_of, score

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from velora_edge.data.clips.clips import ClipSource, ClipSpec
    from velora_edge.train.batches import Batch
    from velora_edge.train.objective import Scores
    from velora_edge.train.predictors import Predictor


BOTH = "both"
CHOSE = "by which the checkpoint was chosen, so not unseen"
"""Why a test part is told where training took its best epoch on it."""


@dataclass(frozen=True)
class Part:
    """Which recordings are told.

    Attributes:
        name: train, val, test or all.
        members: int64[N], their numbers in the data set.
        why: why these, for the reader.
    """

    name: str
    members: NDArray[np.int64]
    why: str


def choose_part(source: ClipSource, run: dict[str, Any], wanted: str = "auto") -> Part:
    """The recordings that a model may be judged by.

    Args:
        source: the data set.
        run: identity of the model's training run.
        wanted: a part's name, or `auto`: of the set that the model was trained on, the test part that was
            held out; of another set, its published test part, or everything.

    Raises:
        DatasetError: if the part is empty.
    """
    data = run.get("data", {})
    split = trained_split(run)
    is_same = data.get("fingerprint") == fingerprint(source.items)
    is_published = any(item.split == "test" for item in source.items)
    name, why = wanted, "asked for"
    if wanted == "auto":
        name = "test" if is_same or is_published else "all"
        why = (
            "held out from the model's training" if is_same else "published" if is_published
            else "the model was not trained on this set"
        )  # fmt: skip
    if name == "test" and is_same and data.get("chosen_by") == "test":
        why = CHOSE
    if name == "all":
        return Part(name, np.arange(len(source), dtype=np.int64), why)
    config = split if is_same and split is not None else SplitConfig()
    members = split_items(source.items, config)[name]  # type: ignore[index]
    if not len(members):
        raise DatasetError([f"the part {name} is empty"], path=source.path, remedy="try --split all")
    return Part(name, members, why)


def trained_split(run: dict[str, Any]) -> SplitConfig | None:
    """How the set that a model was trained on was divided, as its training run's identity says."""
    split = run.get("data", {}).get("split")
    return None if split is None else SplitConfig.model_validate(split)


def match_labels(source: ClipSource, predictor: Predictor) -> NDArray[np.int64]:
    """For each class of the data set, its place among the model's.

    Raises:
        InputError: if the model does not know one of them.
    """
    places = {label: k for k, label in enumerate(predictor.labels)}
    unknown = [label for label in source.labels if label not in places]
    if unknown:
        shown = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        raise InputError(
            f"the model does not know the data set's labels {shown}; it has {', '.join(places)}"[:400],
            path=source.path,
            remedy="evaluate it on a set with its own labels",
        )
    return np.array([places[label] for label in source.labels], np.int64)


def evaluate(
    predictor: Predictor,
    source: ClipSource,
    part: Part,
    *,
    ablate: bool = False,
    batch_size: int = 16,
    workers: int = 0,
    tick: Callable[[], None] = lambda: None,
) -> dict[str, Scores]:
    """Scores with both cameras, and with each alone where `ablate` asks for it and the set has both.

    A clip is read once; its cameras are hidden one after the other.

    Args:
        predictor: the model.
        source: the data set.
        part: which of its recordings.
        ablate: hide each camera in turn.
        batch_size: clips at a time.
        workers: processes that read clips.
        tick: called after each batch.
    """
    modes = (BOTH, *source.cameras) if ablate and len(source.cameras) > 1 else (BOTH,)
    places = match_labels(source, predictor)
    told: dict[str, list[NDArray[np.float32]]] = {mode: [] for mode in modes}
    labels, recordings = [], list[str]()
    batches = evaluation_batches(part.members, batch_size)
    for batch in load(ClipDataset(source), batches, workers):
        for mode in modes:
            told[mode].append(predictor.logits(only(batch, mode)))
        labels.append(places[batch.label.numpy()])
        recordings += [recording_of(source.items[index].name) for index in batch.index.tolist()]
        tick()
    truth = np.concatenate(labels)
    scores = {mode: score(np.concatenate(logits), truth) for mode, logits in told.items()}
    return {
        mode: replace(found, interval=interval_of(found.right, recordings)) for mode, found in scores.items()
    }


def only(batch: Batch, mode: str) -> Batch:
    """The clips as one camera alone would have recorded them; unchanged for `both`."""
    if mode == BOTH:
        return batch
    present = batch.present.clone()
    present[:, 1 if mode == "rgb" else 0] = False
    if mode == "rgb":
        return replace(batch, event=None, present=present)
    return replace(batch, rgb=None, present=present)


@dataclass(frozen=True)
class CorruptionKind:
    """A corruption that clips can be given more and less of.

    Attributes:
        unit: of a level.
        levels: that the curve shows; of `desync` in pairs.
        camera: the one that it needs; None: both.
        make: the corruption of a level, for clips of so many pairs.
    """

    unit: str
    levels: tuple[float, ...]
    camera: str | None
    make: Callable[[float, int], Corruption]


CORRUPTIONS: dict[str, CorruptionKind] = {
    "noise": CorruptionKind(
        "of the pixels", (0.005, 0.02, 0.05), "event", lambda level, length: Corruption(noise=level)
    ),
    "drop-events": CorruptionKind(
        "of the events", (0.25, 0.5, 0.75), "event", lambda level, length: Corruption(drop_events=level)
    ),
    "hot-pixels": CorruptionKind(
        "of the pixels", (0.001, 0.003, 0.01), "event", lambda level, length: Corruption(hot_pixels=level)
    ),
    "rgb-noise": CorruptionKind(
        "of full scale", (0.05, 0.1, 0.2), "rgb", lambda level, length: Corruption(rgb_noise=level)
    ),
    "rgb-stale": CorruptionKind(
        "of the clip",
        (0.25, 0.5, 1.0),
        "rgb",
        lambda level, length: Corruption(stale=(length - round(level * length), length)),
    ),
    "rgb-lost": CorruptionKind(
        "of the clip", (1.0,), None, lambda level, length: Corruption(rgb_lost=level > 0)
    ),
    "desync": CorruptionKind(
        "ms late", (1, 2, 4), None, lambda level, length: Corruption(delay_pairs=round(level))
    ),
    "rate": CorruptionKind(
        "times the rate", (0.5, 2.0), "event", lambda level, length: Corruption(rate=level, window=1 / level)
    ),
}


@dataclass(frozen=True)
class CurvePoint:
    """Scores under one corruption.

    Attributes:
        kind: its name.
        level: how much of it.
        unit: of the level.
        is_exact: the images are those that such cameras would have given; otherwise events were drawn.
        scores: with all cameras.
    """

    kind: str
    level: float
    unit: str
    is_exact: bool
    scores: Scores

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        found = self.scores
        facts = {"kind": self.kind, "level": self.level, "unit": self.unit, "exact": self.is_exact}
        return {**facts, "top1": found.top1, "top5": found.top5, "loss": found.loss}


def evaluate_corrupted(
    predictor: Predictor,
    source: ClipSource,
    part: Part,
    corruption: tuple[str, float],
    seed: int,
    reopen: Callable[[ClipSpec], ClipSource],
    **reading: Any,
) -> CurvePoint:
    """Scores with all cameras under one corruption; the same each time for the same seed.

    Args:
        predictor: the model.
        source: the data set.
        part: which of its recordings.
        corruption: kind and level.
        seed: of what is drawn; a recording's draws do not depend on the level.
        reopen: opens the set in another form: windows of another length are cut anew, where that can be.
        reading: `batch_size`, `workers` and `tick` of `evaluate`.
    """
    (name, level), spec = corruption, source.spec
    kind = CORRUPTIONS[name]
    if name == "rate" and source.cuts_windows:
        event = spec.event.model_copy(update={"window_us": max(1, round(spec.event.window_us / level))})
        other = reopen(replace(spec, event=event))
        scores = evaluate(predictor, other, part, **reading)[BOTH]
        other.close()
        return CurvePoint(name, level, kind.unit, True, scores)
    amount = level * (source.rate_hz or 0) / 1000 if name == "desync" else level
    corrupted = CorruptedSource(source, kind.make(amount, spec.length), seed)
    scores = evaluate(predictor, corrupted, part, **reading)[BOTH]
    return CurvePoint(name, level, kind.unit, name != "rate" or level == 0.5, scores)


SCHEMA_VERSION = 1
_FONT, _SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.4
_BLUE = np.array([48, 96, 192])


def as_dict(
    predictor: Predictor,
    source: ClipSource,
    part: Part,
    scores: dict[str, Scores],
    curve: Sequence[CurvePoint] = (),
    **more: Any,
) -> dict[str, Any]:
    """The evaluation as plain values; shares lie between 0 and 1, a confusion row is a true class."""
    best, facts = scores[BOTH], predictor.facts
    return {
        "v": SCHEMA_VERSION,
        "model": {
            "name": facts.name,
            "kind": facts.kind,
            "runtime": facts.runtime,
            "trained": facts.trained,
            "parameters": facts.parameters,
            "run": facts.run,
        },
        "data": {
            "path": str(source.path),
            "kind": source.kind,
            "part": part.name,
            "why": part.why,
            "seed": getattr(source, "seed", None),
            "clips": best.clips,
        },
        "top1": best.top1,
        "top5": best.top5,
        "loss": best.loss,
        "top1_interval": None if best.interval is None else best.interval.as_dict(),
        "ablation": {mode: _figures(found) for mode, found in scores.items()},
        **({"corruptions": [point.as_dict() for point in curve]} if curve else {}),
        **more,
        "labels": list(predictor.labels),
        "per_class": best.per_class(predictor.labels),
        "confusion": best.confusion.tolist(),
    }


def _figures(scores: Scores) -> dict[str, Any]:
    interval = None if scores.interval is None else scores.interval.as_dict()
    return {"top1": scores.top1, "top5": scores.top5, "loss": scores.loss, "top1_interval": interval}


def write_json(report: dict[str, Any], path: Path) -> None:
    """Write a report, whole or not at all.

    Raises:
        InputError: if it cannot be written.
    """
    _write(path, (json.dumps(report, indent=2) + "\n").encode())


def write_confusion(confusion: NDArray[np.int64], labels: Sequence[str], path: Path) -> None:
    """Write a confusion matrix as a PNG.

    Raises:
        InputError: if it cannot be written.
    """
    encoded, data = cv2.imencode(".png", draw_confusion(confusion, labels))
    assert encoded
    _write(path, data.tobytes())


def draw_confusion(confusion: NDArray[np.int64], labels: Sequence[str]) -> NDArray[np.uint8]:
    """A picture of a confusion matrix, uint8[H, W, 3] BGR.

    A row is a true class and a column what it was told to be; the darker, the larger the share of the row. Up
    to 40 classes get names and counts, more are squares alone.

    Args:
        confusion: int64[K, K].
        labels: K class names.
    """
    classes = len(labels)
    is_named = classes <= 40
    cell = 36 if is_named else max(2, 1200 // classes)
    margin = 16 + max(_width(label) for label in labels) if is_named else 8
    side = margin + cell * classes + 8
    picture = np.full((side, side, 3), 255, np.uint8)
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    colours = 255 - shares[..., None] * (255 - _BLUE[::-1])
    squares = colours.astype(np.uint8).repeat(cell, axis=0).repeat(cell, axis=1)
    picture[margin : margin + len(squares), margin : margin + len(squares)] = squares
    if is_named:
        _write_names(picture, labels, margin, cell)
        _write_counts(picture, confusion, shares, margin, cell)
    return picture


def _write_names(picture: NDArray[np.uint8], labels: Sequence[str], margin: int, cell: int) -> None:
    names = np.full((cell * len(labels), margin, 3), 255, np.uint8)
    for k, label in enumerate(labels):
        place = (margin - 8 - _width(label), k * cell + cell // 2 + 4)
        cv2.putText(names, label, place, _FONT, _SCALE, (0, 0, 0), 1, cv2.LINE_AA)
    picture[margin : margin + len(names), :margin] = names
    picture[:margin, margin : margin + len(names)] = cv2.rotate(names, cv2.ROTATE_90_CLOCKWISE)


def _write_counts(
    picture: NDArray[np.uint8],
    confusion: NDArray[np.int64],
    shares: NDArray[np.float64],
    margin: int,
    cell: int,
) -> None:
    for row, column in np.argwhere(confusion > 0):
        text = str(confusion[row, column])
        place = (margin + column * cell + (cell - _width(text)) // 2, margin + row * cell + cell // 2 + 4)
        colour = (255, 255, 255) if shares[row, column] > 0.5 else (0, 0, 0)
        cv2.putText(picture, text, place, _FONT, _SCALE, colour, 1, cv2.LINE_AA)


def _width(text: str) -> int:
    return int(cv2.getTextSize(text, _FONT, _SCALE, 1)[0][0])


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, data, mode=0o644)
    except OSError as error:
        raise InputError(
            f"cannot be written: {error.strerror}", path=path, remedy="choose another place"
        ) from error
