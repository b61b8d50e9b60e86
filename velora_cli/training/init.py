"""`velora init SET [CONFIG]`: a commented training configuration that fits what a data set holds."""

from __future__ import annotations

import re
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from velora_edge.console import overwrite_option, refuse_existing
from velora_edge.errors import InputError, MissingExtraError
from velora_edge.files import replace_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from velora_edge.data.clips.clips import ClipSource, ClipSpec
    from velora_edge.data.layouts.recording_index import Recording
    from velora_edge.train.settings import TrainConfig

MOST_READ, MOST_COUNTED = 50, 1000
"""Recordings that are looked at for their length: those that must be read for it, and those that need not."""
LONGEST_CLIP_S, USUAL_RATE_HZ = 2.0, 30.0
TOWER_PATCH = 16
CLIP_LENGTH, WINDOW_US, SHORTEST_WINDOW_US = 8, 33_333, 1000
LORA = {"tuning": "lora", "lora": {"rank": 8, "alpha": 16.0}}
FEWEST_TAKES, ENOUGH_TAKES = 3, 6
"""Of a class: with fewer a part would lack it; from so many on, the usual shares give each part one."""


@dataclass(frozen=True)
class Tower:
    """A tower to start from.

    Attributes:
        name: timm's, with published weights.
        side: of its images, pixels.
        batch_size: clips in a step.
        steps: about as many make a run.
    """

    name: str
    side: int
    batch_size: int
    steps: int


TOWERS = {
    "gpu": Tower("vit_base_patch16_clip_quickgelu_224.openai", 224, 16, 2000),
    "cpu": Tower("vit_tiny_patch16_224.augreg_in21k", 112, 8, 600),
}


@dataclass(frozen=True)
class SetFacts:
    """What a set holds, as far as a configuration depends on it.

    Attributes:
        kind: its layout.
        path: as the user gave it.
        cameras: that recorded it.
        takes: recordings of each class, by its name.
        listed: recordings that its publishers, or its folders, have for training; 0 where nobody divided it.
        lengths_s: of recordings, seconds; those of image files and stores, which have no times, by
            `USUAL_RATE_HZ`.
        rate_hz: pairs a second; None where nothing tells.
        window_us: of events, for one pair.
        sensor: height and width of the event camera; None where nothing tells.
        stored: the form of the images of a store, which are packed already.
    """

    kind: str
    path: str
    cameras: tuple[str, ...]
    takes: dict[str, int]
    listed: int
    lengths_s: tuple[float, ...]
    rate_hz: float | None
    window_us: int
    sensor: tuple[int, int] | None = None
    stored: ClipSpec | None = None

    @property
    def pairs_hz(self) -> float:
        """Pairs a second, assumed where nothing tells."""
        return self.rate_hz or USUAL_RATE_HZ

    def describe(self) -> str:
        """One line for people."""
        count, median = sum(self.takes.values()), statistics.median(self.lengths_s)
        rate = (
            f"{USUAL_RATE_HZ:g} pairs a second assumed" if self.rate_hz is None else f"{self.rate_hz:.3g} Hz"
        )
        return (
            f"{self.kind}: {count} recordings by {' and '.join(self.cameras)}, {len(self.takes)} classes; "
            f"{min(self.lengths_s):.2f} to {max(self.lengths_s):.2f} s long, median {median:.2f} s ({rate})"
        )

    def problems(self) -> list[str]:
        """What a first model will suffer from."""
        if self.listed:
            return []
        few = [f"{name} ({count})" for name, count in self.takes.items() if count < FEWEST_TAKES]
        shown = ", ".join(few[:5]) + (", ..." if len(few) > 5 else "")
        return (
            [f"too few recordings to train, validate and test: {shown}; {FEWEST_TAKES} are the least"]
            if few
            else []
        )


@click.command(
    epilog="Examples:  velora init synthetic  |  velora init synthetic my.yaml --for gpu --overwrite"
)
@click.argument("path", metavar="SET")
@click.argument("config", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--kind", default="auto", show_default=True, help="The set's layout; see velora dataset check.")
@click.option(
    "--for", "machine", type=click.Choice(["cpu", "gpu"]),
    help="Where it is trained: chooses tower, image size and batch.  [default: what this machine has]",
)  # fmt: skip
@click.option(
    "--weights", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE",
    help="Start from this tower: a file that velora weights or velora pretrain wrote.",
)  # fmt: skip
@overwrite_option
def command(
    path: str, config: Path | None, kind: str, machine: str | None, weights: Path | None, overwrite: bool
) -> None:
    """Write a training configuration that fits the data set SET, every key with its meaning.

    CONFIG is NAME.yaml by default, by the set's name. The clip's length follows from that of the recordings,
    the parts from their number, the image size from the sensor, the tower from the machine.
    """
    from velora_edge.train.settings import TrainConfig

    out = config or Path(f"{_name_of(path)}.yaml")
    refuse_existing(out, overwrite=overwrite)
    facts = read_facts(path, kind)
    tower = TOWERS[machine or ("gpu" if _has_gpu() else "cpu")]
    tree, notes = propose(facts, _name_of(str(out)), tower, weights)
    text = _as_text(TrainConfig.model_validate(tree), tree, notes, facts, out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        replace_file(out, text.encode(), mode=0o644)
    except OSError as error:
        raise InputError(
            f"cannot be written: {error.strerror}", path=out, remedy="choose another place"
        ) from error
    click.echo(f"{out}: {facts.describe()}")
    for problem in facts.problems():
        click.echo(f"note: {problem}")
    click.echo(f"next: velora train {out}")


def read_facts(path: str, kind: str = "auto") -> SetFacts:
    """Look at a set: its classes, and how long some of its recordings are.

    Raises:
        DatasetError: if there is none, or it cannot be read.
    """
    from velora_cli.training.dataset import open_source
    from velora_edge.data.clips.clips import ClipSpec
    from velora_edge.data.clips.store import stored_spec
    from velora_edge.data.registry import detect

    place, stored = Path(path), None
    if place.is_file() and kind in ("auto", "store") and detect(place) == "store":
        stored = stored_spec(place, CLIP_LENGTH)
    source = open_source(path, stored or ClipSpec(CLIP_LENGTH, (64, 64)), kind)
    try:
        return _facts_of(source, path, stored)
    finally:
        source.close()


def _facts_of(source: ClipSource, path: str, stored: ClipSpec | None) -> SetFacts:
    from velora_edge.data.layouts.recording_index import index_recordings

    takes = dict.fromkeys(source.labels, 0)
    for item in source.items:
        takes[source.labels[item.label]] += 1
    parts = [item.split for item in source.items]
    listed = parts.count("train") if "test" in parts else 0
    sensor, rate = None, None
    if source.kind == "recordings":
        lengths, rate, window, sensor = _measure(index_recordings(Path(path)).recordings)
    else:
        pairs = [source.pairs(int(index)) for index in _some(len(source), MOST_COUNTED)]
        window = stored.event.window_us if stored else WINDOW_US
        # A set that is packed as it is read has one window after the other; files of images have no times.
        if source.event_frames == "packed" and source.kind != "store":
            rate = 1e6 / window
        lengths = [count / (rate or USUAL_RATE_HZ) for count in pairs]
        given = getattr(source, "sensor", None)
        sensor = (given[1], given[0]) if isinstance(given, tuple) else None
    return SetFacts(
        source.kind, path, source.cameras, takes, listed, tuple(lengths), rate, window, sensor, stored
    )


def _some(count: int, most: int) -> Sequence[int]:
    """Numbers of at most so many of `count` recordings, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64)).tolist()


def _measure(recordings: Sequence[Recording]) -> tuple[list[float], float, int, tuple[int, int]]:
    """Lengths in seconds, pairs a second, the window that fits, and the sensor's height and width."""
    from velora_edge.events.registry import open_events
    from velora_edge.preprocessing.registry import open_rgb_source

    with open_events(recordings[0].events) as reader:
        sensor = (reader.height, reader.width)
    lengths, periods = [], []
    for index in _some(len(recordings), MOST_READ):
        recording = recordings[index]
        times = None
        if recording.video is not None and (source := open_rgb_source(str(recording.video))) is not None:
            times = source.times_us()
            source.close()
        if times is not None and len(times) > 1:
            periods.append(float(np.median(np.diff(times))))
        if recording.end_us is not None:
            lengths.append((recording.end_us - recording.start_us) / 1e6)
        elif times is not None and len(times) > 1:
            lengths.append((float(times[-1] - times[0]) + periods[-1]) / 1e6)
        else:
            lengths.append(_events_s(recording))
    if periods:
        period_us = round(statistics.median(periods))
        return lengths, 1e6 / period_us, period_us, sensor
    # Without pictures a pair is a window: a short action is cut into enough of them.
    window_us = int(1e6 * _quarter(lengths) / CLIP_LENGTH) // 1000 * 1000
    window_us = min(WINDOW_US, max(SHORTEST_WINDOW_US, window_us))
    return lengths, 1e6 / window_us, window_us, sensor


def _events_s(recording: Recording) -> float:
    """From the first event to the last, seconds; reads the whole file."""
    from velora_edge.events.registry import open_events

    first, last = None, 0
    with open_events(recording.events) as reader:
        for batch in reader:
            first = int(batch.t_us.min()) if first is None else min(first, int(batch.t_us.min()))
            last = max(last, int(batch.t_us.max()))
    return 0.0 if first is None else (last - first) / 1e6


def _quarter(lengths_s: Sequence[float]) -> float:
    """A length that three quarters of the recordings reach."""
    return float(np.percentile(lengths_s, 25))


def propose(
    facts: SetFacts, name: str, tower: Tower, weights: Path | None = None
) -> tuple[dict[str, Any], dict[str, str]]:
    """A configuration as a tree of plain values, and why some of its keys are as they are, by dotted name.

    With `weights` the tower is that of the file, in place of the machine's.

    Raises:
        InputError: if the file does not say which model its weights are of.
        MissingExtraError: if the extra `train` is not installed.
    """
    length, stride = _choose_clip(facts)
    split, members = _choose_split(facts)
    batch = max(1, min(tower.batch_size, members // 2))
    epochs = min(100, max(5, round(tower.steps * batch / members)))
    tree: dict[str, Any] = {
        "run": {"name": name},
        "data": {
            "path": facts.path,
            **({} if facts.listed else {"split": split}),
            "augment": {"shift": 0.045, "rotate_deg": 5.0, "scale": 0.1, "brightness": 0.1, "contrast": 0.1},
        },
        "clip": {"sampling": "stride", "stride": stride, "event": {"window_us": facts.window_us}},
        "model": {"clip_length": length, **_model_keys(facts, tower, weights), **LORA},
        "train": {
            "epochs": epochs,
            "batch_size": batch,
            "lr": 5e-4,
            "weight_decay": 0.01,
            "reconstruction": 0.1,
            "ema": 0.99,
        },
    }
    if facts.stored is not None:
        tree["clip"] |= {key: getattr(facts.stored, key).model_dump(mode="json") for key in ("event", "rgb")}
    span_s, reached_s = (length - 1) * stride / facts.pairs_hz, _quarter(facts.lengths_s)
    notes = {
        "clip.stride": f"{length} pairs span {span_s:.2f} s; three quarters of the recordings last "
        f"{reached_s:.2f} s or more",
        "model.backbone": "The tower that training starts from"
        if weights
        else "timm fetches its weights; without a network: velora weights demo, and --weights FILE",
        "train.epochs": f"of {members // batch} steps each",
    }
    if facts.kind == "recordings":
        notes["data.path"] = "velora train packs the recordings once, in the form of this model"
    return tree, notes


def _model_keys(facts: SetFacts, tower: Tower, weights: Path | None) -> dict[str, Any]:
    """What the tower and the sensor decide, or the record of a file of weights."""
    if weights is not None:
        return _keys_of_weights(facts, weights)
    try:
        import timm
    except ImportError as error:
        raise MissingExtraError("timm", "train", "training") from error
    published = timm.get_pretrained_cfg(tower.name)
    assert published is not None
    size, patch = _choose_size(facts, tower.side)
    args = {} if patch == TOWER_PATCH else {"args": {"patch_size": patch}}
    return {
        "image_size": list(size),
        "mean": list(published.mean),
        "std": list(published.std),
        "backbone": {"name": tower.name, **args, "pretrained": True},
    }


def _keys_of_weights(facts: SetFacts, weights: Path) -> dict[str, Any]:
    from velora_edge.model.tower import read_record

    record = read_record(weights)
    if record is None:
        problem, remedy = "does not say which model its weights are of", "make it by velora weights FILE"
        raise InputError(problem, path=weights, remedy=remedy)
    size = record.image_size if facts.stored is None else facts.stored.image_size
    backbone = {"name": record.name, "args": record.args, "weights": str(weights)}
    return {
        "image_size": list(size),
        "mean": list(record.mean),
        "std": list(record.std),
        "backbone": backbone,
    }


def _choose_clip(facts: SetFacts) -> tuple[int, int]:
    """Pairs in a clip and pairs from one to the next: what three quarters of the recordings fill."""
    rate = facts.pairs_hz
    pairs = max(2, int(_quarter(facts.lengths_s) * rate + 0.5))
    length = min(CLIP_LENGTH, pairs)
    fitting, longest = (pairs - 1) // (length - 1), int(LONGEST_CLIP_S * rate) // (length - 1)
    return length, max(1, min(fitting, longest))


def _choose_size(facts: SetFacts, side: int) -> tuple[tuple[int, int], int]:
    """Height and width of the images, no larger than the sensor's picture, and the patch for them."""
    if facts.stored is not None:
        size = facts.stored.image_size
    else:
        least = side if facts.sensor is None else max(32, min(facts.sensor) // 16 * 16)
        size = (min(side, least),) * 2
    patches = [p for p in range(1, 17) if not (size[0] % p or size[1] % p) and min(size) // p >= 7]
    return size, max(patches, default=1)


def _choose_split(facts: SetFacts) -> tuple[dict[str, float], int]:
    """Shares of validation and test, some of the smallest class for each, and how many are left to train."""
    count, fewest = sum(facts.takes.values()), min(facts.takes.values())
    if FEWEST_TAKES <= fewest < ENOUGH_TAKES:
        share = -(-100 // fewest) / 100
        split = {"val": share, "test": share}
    else:
        split = {"val": 0.1, "test": 0.2}
    left = facts.listed * (1 - split["val"]) if facts.listed else count * (1 - sum(split.values()))
    return split, max(1, int(left))


def _as_text(
    config: TrainConfig, tree: dict[str, Any], notes: dict[str, str], facts: SetFacts, out: Path
) -> str:
    from velora_edge.config import commented_yaml

    head = [f"velora train {out}", "", facts.describe(), *facts.problems()]
    head.append("All other keys and their meaning: velora train --print-config")
    lines = [f"# {line}".rstrip() for line in head]
    return "\n".join(lines) + "\n\n" + commented_yaml(config, only=tree, notes=notes)


def _name_of(path: str) -> str:
    """A name for the run by that of the set, of characters that a run's name may have."""
    return re.sub(r"[^\w.-]+", "_", Path(path).resolve().stem) or "my_run"


def _has_gpu() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return bool(torch.cuda.is_available())
