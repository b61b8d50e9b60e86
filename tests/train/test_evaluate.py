from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
import torch
from toy_runs import LABELS, SIDE, T, toy_config, write_clips

from velora_edge.data.clips.clips import ClipSpec
from velora_edge.data.clips.store import ClipStore
from velora_edge.errors import BundleError, DatasetError, InputError
from velora_edge.train.batches import Batch
from velora_edge.train.evaluate import (
    CORRUPTIONS,
    CurvePoint,
    as_dict,
    choose_part,
    draw_confusion,
    evaluate,
    evaluate_corrupted,
    match_labels,
    only,
    write_confusion,
    write_json,
)
from velora_edge.train.predictors import Facts, open_predictor
from velora_edge.train.session import train

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SPEC = ClipSpec(length=T, image_size=(SIDE, SIDE))


class ByCamera:
    """Tells red from blue by the pictures, ON from OFF by the events; guesses the first without a camera."""

    facts = Facts("by-camera", "checkpoint", "numpy", trained=True)
    labels = LABELS
    spec = SPEC

    def logits(self, batch: Batch) -> np.ndarray:
        blue = np.zeros(len(batch), int)
        off = np.zeros(len(batch), int)
        if batch.rgb is not None:
            pictures = batch.rgb.numpy().astype(float)
            blue = (pictures[..., 2].mean((1, 2, 3)) > pictures[..., 0].mean((1, 2, 3))).astype(int)
        if batch.event is not None:
            events = batch.event.numpy().astype(float)
            off = (events[..., 2].mean((1, 2, 3)) > events[..., 0].mean((1, 2, 3))).astype(int)
        return np.eye(4, dtype=np.float32)[2 * blue + off]


@pytest.fixture
def store(toy_clips: Path) -> Iterator[ClipStore]:
    opened = ClipStore(toy_clips, SPEC)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, toy_clips: Path) -> Path:
    """A trained run."""
    return train(toy_config(tmp_path_factory.mktemp("run"), toy_clips, epochs=4, ema=0.9)).folder


def test_ablation_hides_one_camera_at_a_time(store: ClipStore) -> None:
    part = choose_part(store, {}, "all")
    scores = evaluate(ByCamera(), store, part, ablate=True, batch_size=7)
    assert {mode: found.top1 for mode, found in scores.items()} == {"both": 1.0, "rgb": 0.5, "event": 0.5}
    assert scores["both"].clips == 40
    np.testing.assert_array_equal(scores["both"].confusion, np.eye(4, dtype=np.int64) * 10)


def test_without_ablation_there_is_one_score(store: ClipStore) -> None:
    assert list(evaluate(ByCamera(), store, choose_part(store, {}, "all"))) == ["both"]


def test_a_set_of_one_camera_is_not_ablated(tmp_path: Path) -> None:
    source = ClipStore(write_clips(tmp_path / "e.h5", 8, ("event",)), SPEC)
    scores = evaluate(ByCamera(), source, choose_part(source, {}, "all"), ablate=True)
    assert {mode: found.top1 for mode, found in scores.items()} == {"both": 0.5}
    source.close()


def test_a_hidden_camera_is_absent_not_black() -> None:
    images = torch.zeros(1, 2, 4, 4, 3, dtype=torch.uint8)
    batch = Batch(images, images, torch.tensor([[True, True]]), torch.tensor([0]), torch.tensor([0]))
    rgb, event = only(batch, "rgb"), only(batch, "event")
    assert (rgb.event, event.rgb) == (None, None)
    assert rgb.present.tolist() == [[True, False]]
    assert event.present.tolist() == [[False, True]]
    assert batch.present.tolist() == [[True, True]]


def test_a_checkpoint_is_judged_by_what_was_held_out(run: Path, store: ClipStore) -> None:
    from velora_edge.data.clips.clips import SplitConfig, split_items

    predictor = open_predictor(run)
    part = choose_part(store, predictor.facts.run)
    assert part.name == "test"
    assert part.why == "held out from the model's training"
    assert part.members.tolist() == split_items(store.items, SplitConfig())["test"].tolist()


def test_another_set_is_told_whole(run: Path, tmp_path: Path) -> None:
    other = ClipStore(write_clips(tmp_path / "other.h5", 12), SPEC)
    part = choose_part(other, open_predictor(run).facts.run)
    assert (part.name, len(part.members)) == ("all", 12)
    other.close()


def test_an_empty_part_is_refused(store: ClipStore) -> None:
    run = {"data": {"fingerprint": "", "split": {}}}
    with pytest.raises(DatasetError, match="the part test is empty; try --split all"):
        choose_part(
            store, {"data": {"fingerprint": _fingerprint(store), "split": {"test": 0.0}}} | {"x": run}
        )


def _fingerprint(store: ClipStore) -> str:
    from velora_edge.data.clips.clips import fingerprint

    return fingerprint(store.items)


def test_classes_are_matched_by_name(store: ClipStore) -> None:
    turned = ByCamera()
    turned.labels = LABELS[::-1]
    assert match_labels(store, turned).tolist() == [3, 2, 1, 0]
    turned.labels = ("red-on", "red-off", "sit", "walk")
    with pytest.raises(InputError, match="the model does not know the data set's labels blue-on, blue-off"):
        match_labels(store, turned)


def test_a_run_stands_for_its_best_checkpoint(run: Path, store: ClipStore) -> None:
    first, second = open_predictor(run), open_predictor(run / "best")
    part = choose_part(store, {}, "all")
    scores = [evaluate(predictor, store, part)["both"] for predictor in (first, second)]
    assert scores[0].loss == scores[1].loss
    assert first.facts.parameters == second.facts.parameters
    assert first.facts.parameters["trained"] > 0


def test_a_bundle_scores_as_its_checkpoint(run: Path, store: ClipStore, tmp_path: Path) -> None:
    from velora_export.bundle_export import export_bundle

    from velora_edge.model.checkpoint import load_model, read_checkpoint

    description = read_checkpoint(run / "best")
    export_bundle(
        load_model(run / "best"), tmp_path / "toy.velora", name="toy", trained=True, run=description.run
    )
    part = choose_part(store, description.run, "all")
    checkpoint, bundle = (
        evaluate(open_predictor(model), store, part, ablate=True) for model in (run, tmp_path / "toy.velora")
    )
    for mode in ("both", "rgb", "event"):
        assert bundle[mode].top1 == checkpoint[mode].top1
        assert bundle[mode].loss == pytest.approx(checkpoint[mode].loss, abs=1e-4)


@pytest.mark.parametrize("name", ["nothing", "file.txt", "folder"])
def test_what_is_no_model_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(BundleError, match=name):
        open_predictor(tmp_path / name)


def test_the_report_holds_every_figure(store: ClipStore, tmp_path: Path) -> None:
    part = choose_part(store, {}, "all")
    report = as_dict(ByCamera(), store, part, evaluate(ByCamera(), store, part, ablate=True))
    write_json(report, tmp_path / "deep" / "r.json")
    read: dict[str, Any] = json.loads((tmp_path / "deep" / "r.json").read_text())
    assert (read["top1"], read["top5"]) == (1.0, 1.0)
    assert {mode: figures["top1"] for mode, figures in read["ablation"].items()} == {
        "both": 1.0, "rgb": 0.5, "event": 0.5,
    }  # fmt: skip
    assert read["data"]["clips"] == 40
    assert read["confusion"] == (np.eye(4, dtype=int) * 10).tolist()
    assert read["per_class"]["red-on"] == {"clips": 10, "recall": 1.0, "precision": 1.0}


def never(spec: ClipSpec) -> ClipStore:
    raise AssertionError("a store cannot cut other windows")


def corrupted(store: ClipStore, kind: str, level: float, seed: int = 0) -> CurvePoint:
    return evaluate_corrupted(
        ByCamera(), store, choose_part(store, {}, "all"), (kind, level), seed, never, batch_size=7
    )


@pytest.mark.parametrize(
    ("kind", "level", "top1"),
    [
        ("rgb-lost", 1.0, 0.5),  # the pictures' colour is guessed
        ("drop-events", 1.0, 0.5),  # without an event the polarity is
        ("drop-events", 0.5, 1.0),
        ("rgb-stale", 1.0, 1.0),  # a picture that stands still has its colour
        ("noise", 0.05, 1.0),
        ("rate", 0.5, 1.0),
    ],
)
def test_a_corruption_costs_what_hangs_on_it(store: ClipStore, kind: str, level: float, top1: float) -> None:
    point = corrupted(store, kind, level)
    assert (point.kind, point.level, point.scores.clips, point.scores.top1) == (kind, level, 40, top1)


def test_a_corruption_is_the_same_for_the_same_seed(store: ClipStore) -> None:
    confusions = [corrupted(store, "noise", 1.0, seed).scores.confusion for seed in (0, 0, 1, 2, 3)]
    np.testing.assert_array_equal(confusions[0], confusions[1])
    assert any((confusions[0] != other).any() for other in confusions[2:])


def test_twice_the_rate_is_drawn_from_images_and_half_of_it_exact(store: ClipStore) -> None:
    points = [corrupted(store, "rate", level) for level in (0.5, 2.0)]
    assert [(point.unit, point.is_exact) for point in points] == [
        ("times the rate", True),
        ("times the rate", False),
    ]


def test_a_set_that_cuts_its_windows_is_opened_with_others_for_another_rate(store: ClipStore) -> None:
    asked: list[ClipSpec] = []

    def reopen(spec: ClipSpec) -> ClipStore:
        asked.append(spec)
        return ClipStore(store.path, SPEC)

    store.cuts_windows = True
    part = choose_part(store, {}, "all")
    point = evaluate_corrupted(ByCamera(), store, part, ("rate", 2.0), 0, reopen)
    assert [spec.event.window_us for spec in asked] == [round(SPEC.event.window_us / 2)]
    assert point.is_exact
    assert point.scores.top1 == 1.0


def test_every_kind_runs_at_its_own_levels(store: ClipStore) -> None:
    store.spec = replace(SPEC, rate_hz=30.0)
    for kind, of_kind in CORRUPTIONS.items():
        for level in of_kind.levels:
            assert corrupted(store, kind, level).scores.clips == 40


def test_the_report_holds_the_curve(store: ClipStore) -> None:
    part = choose_part(store, {}, "all")
    scores = evaluate(ByCamera(), store, part)
    assert "corruptions" not in as_dict(ByCamera(), store, part, scores)
    (row,) = as_dict(ByCamera(), store, part, scores, [corrupted(store, "rgb-lost", 1.0)])["corruptions"]
    loss = row.pop("loss")
    assert row == {
        "kind": "rgb-lost", "level": 1.0, "unit": "of the clip", "exact": True, "top1": 0.5, "top5": 1.0,
    }  # fmt: skip
    assert loss > scores["both"].loss


def test_the_confusion_picture_darkens_by_share_of_the_row() -> None:
    confusion = np.array([[3, 1], [0, 0]])
    picture = draw_confusion(confusion, ("a", "b"))
    side = picture.shape[0]
    corners = [picture[side - 8 - 70, side - 8 - 70 + 36 * k].tolist() for k in (0, 1)]
    # Shares 3/4 and 1/4 of the way from white to blue.
    assert corners[0] == [207, 135, 99]
    assert corners[1] == [239, 215, 203]
    assert picture[side - 12, side - 12].tolist() == [255, 255, 255]


@pytest.mark.parametrize("classes", [3, 300])
def test_confusion_pictures_are_written_whatever_the_number_of_classes(classes: int, tmp_path: Path) -> None:
    write_confusion(
        np.eye(classes, dtype=np.int64), [f"class {k}" for k in range(classes)], tmp_path / "c.png"
    )
    picture = cv2.imread(str(tmp_path / "c.png"))
    assert picture is not None
    assert picture.shape[0] == picture.shape[1] < 1500


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"r\.json: cannot be written"):
        write_json({}, tmp_path / "file" / "r.json")
