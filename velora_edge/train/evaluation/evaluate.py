"""How well a model tells a data set's labels, with all cameras and without each of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge.data.clips.clips import SPLITS
from velora_edge.data.clips.splits import SplitConfig, fingerprint, split_items
from velora_edge.errors import DatasetError, InputError
from velora_edge.train.batches import ClipDataset, evaluation_batches, load
from velora_edge.train.scores import score

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from velora_edge.data.clips.clips import ClipSource
    from velora_edge.train.batches import Batch
    from velora_edge.train.evaluation.predictors import Predictor
    from velora_edge.train.scores import Scores

BOTH = "both"
PARTS = ("auto", "all", *SPLITS)


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
    is_same = data.get("fingerprint") == fingerprint(source.items)
    is_published = any(item.split == "test" for item in source.items)
    name, why = wanted, "asked for"
    if wanted == "auto":
        name = "test" if is_same or is_published else "all"
        why = (
            "held out from the model's training" if is_same else "published" if is_published
            else "the model was not trained on this set"
        )  # fmt: skip
    if name == "all":
        return Part(name, np.arange(len(source), dtype=np.int64), why)
    config = SplitConfig.model_validate(data["split"]) if is_same and "split" in data else SplitConfig()
    members = split_items(source.items, config)[name]  # type: ignore[index]
    if not len(members):
        raise DatasetError([f"the part {name} is empty"], path=source.path, remedy="try --split all")
    return Part(name, members, why)


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
    labels = []
    batches = evaluation_batches(part.members, batch_size)
    for batch in load(ClipDataset(source), batches, workers):
        for mode in modes:
            told[mode].append(predictor.logits(only(batch, mode)))
        labels.append(places[batch.label.numpy()])
        tick()
    truth = np.concatenate(labels)
    return {mode: score(np.concatenate(logits), truth) for mode, logits in told.items()}


def only(batch: Batch, mode: str) -> Batch:
    """The clips as one camera alone would have recorded them; unchanged for `both`."""
    if mode == BOTH:
        return batch
    present = batch.present.clone()
    present[:, 1 if mode == "rgb" else 0] = False
    if mode == "rgb":
        return replace(batch, event=None, present=present)
    return replace(batch, rgb=None, present=present)
