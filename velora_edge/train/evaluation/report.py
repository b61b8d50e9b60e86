"""What an evaluation found: as JSON, as a picture of the confusion matrix."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from velora_edge.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from velora_edge.data.clips.clips import ClipSource
    from velora_edge.train.evaluation.evaluate import Part
    from velora_edge.train.evaluation.predictors import Predictor
    from velora_edge.train.scores import Scores

SCHEMA_VERSION = 1
_FONT, _SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.4
_BLUE = np.array([48, 96, 192])


def as_dict(
    predictor: Predictor, source: ClipSource, part: Part, scores: dict[str, Scores]
) -> dict[str, Any]:
    """The evaluation as plain values; shares lie between 0 and 1, a confusion row is a true class."""
    best = scores["both"]
    facts = predictor.facts
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
        "ablation": {mode: {"top1": s.top1, "top5": s.top5, "loss": s.loss} for mode, s in scores.items()},
        "labels": list(predictor.labels),
        "per_class": best.per_class(predictor.labels),
        "confusion": best.confusion.tolist(),
    }


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
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        raise InputError(
            f"cannot be written: {error.strerror}", path=path, remedy="choose another place"
        ) from error
