"""What chooses the epoch of the checkpoint `best`, and whose gradient is cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file
from toy_runs import SIDE, T, toy_config, toy_tree

from velora_edge.data.clips.clips import ClipSpec
from velora_edge.data.clips.store import ClipStore
from velora_edge.errors import DatasetError
from velora_edge.model.checkpoint import read_checkpoint
from velora_edge.model.velora import create_model
from velora_edge.train import loop
from velora_edge.train.evaluate import choose_part
from velora_edge.train.loop import Trainer
from velora_edge.train.run import RunFolder, read_metrics
from velora_edge.train.session import make_accelerator, model_config, train
from velora_edge.train.settings import TrainConfig

if TYPE_CHECKING:
    from pathlib import Path


def divided(folder: Path, data: Path, val: float, test: float, **settings: Any) -> TrainConfig:
    tree = toy_tree(folder, data, **settings)
    tree["data"]["split"] = {"val": val, "test": test}
    return TrainConfig.model_validate(tree)


def test_the_test_part_can_choose_the_epoch_and_then_every_report_says_so(
    tmp_path: Path, toy_clips: Path
) -> None:
    outcome = train(divided(tmp_path, toy_clips, 0, 0.2, choose="test", epochs=2))
    checkpoint = read_checkpoint(outcome.folder / "best")
    assert checkpoint.run["data"]["chosen_by"] == "test"
    assert checkpoint.accuracy == {"chosen_on_test": outcome.best}
    parts = [line["part"] for line in read_metrics(outcome.folder)]
    assert (parts.count("test"), parts.count("val")) == (2, 0)
    source = ClipStore(toy_clips, ClipSpec(T, (SIDE, SIDE)))
    for wanted in ("auto", "test"):
        part = choose_part(source, checkpoint.run, wanted)
        assert (part.name, part.why) == ("test", "by which the checkpoint was chosen, so not unseen")
    assert choose_part(source, checkpoint.run, "train").why == "asked for"
    source.close()


def test_all_recordings_are_trained_on_where_the_last_epoch_is_taken(tmp_path: Path, toy_clips: Path) -> None:
    outcome = train(divided(tmp_path, toy_clips, 0, 0, choose="last", epochs=2, batch_size=10))
    assert outcome.best == {"epoch": 2, "step": 8}
    best, last = (load_file(outcome.folder / name / "tuned.safetensors") for name in ("best", "last"))
    assert best.keys() == last.keys()
    assert all(torch.equal(best[name], last[name]) for name in best)


@pytest.mark.parametrize(("choose", "epoch"), [("val", 1), ("last", 2)])
def test_the_last_epoch_is_taken_although_an_earlier_one_did_better(
    choose: str, epoch: int, tmp_path: Path, toy_clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What was best before is told with its epoch; it stays better than all that comes.
    monkeypatch.setattr(loop, "_rank", lambda figures: ("epoch" in figures, 0.0))
    outcome = train(divided(tmp_path, toy_clips, 0.2, 0, choose=choose, epochs=2))
    assert outcome.best["epoch"] == epoch
    assert 0 <= outcome.best["top1"] <= 1


@pytest.mark.parametrize(
    ("choose", "problem"),
    [("val", "validation has no clips"), ("test", "there is no test part by which a checkpoint")],
)
def test_a_part_that_is_to_choose_must_be_there(
    choose: str, problem: str, tmp_path: Path, toy_clips: Path
) -> None:
    with pytest.raises(DatasetError, match=problem):
        train(divided(tmp_path, toy_clips, 0, 0, choose=choose))


def test_the_norm_of_the_head_alone_is_cut_where_asked(tmp_path: Path, toy_clips: Path) -> None:
    before = {}
    for name in ("all", "head"):
        config = toy_config(tmp_path / name, toy_clips, epochs=1, clip_norm=1e-9, clip_norm_of=name)
        source = ClipStore(toy_clips, ClipSpec(T, (SIDE, SIDE)))
        torch.manual_seed(0)
        model = create_model(model_config(config, source))
        trainer = Trainer(config, source, model, make_accelerator(config.train), RunFolder(config, source))
        before[name] = {id(p) for p in trainer.clipped}
        assert before[name] == {
            id(p) for key, p in trainer.parameters.items()
            if name == "all" or (key.startswith("head.") and ".lora_" not in key)
        }  # fmt: skip
        source.close()
    assert 0 < len(before["head"]) < len(before["all"])
