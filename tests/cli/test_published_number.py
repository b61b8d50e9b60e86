"""From the published files to the published figure, by the commands alone, on generated copies."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
import yaml

from velora_cli.main import velora
from velora_edge.console import run
from velora_edge.data.clips.clips import choose_pairs
from velora_edge.data.registry import open_clips
from velora_edge.model.checkpoint import load_model, read_checkpoint
from velora_edge.train.batches import ClipDataset, evaluation_batches, load
from velora_edge.train.predictors import open_predictor

if TYPE_CHECKING:
    from collections.abc import Sequence

sys.path += [str(Path(__file__).parents[1] / name) for name in ("data", "train")]
from toy_runs import toy_tree
from written_sets import write_published_hardvs, write_published_poker

ROOTS = [
    "Poker_Event",
    "Poker_Event/Poker_rgb_event",
    "Poker_Event/Poker_Event_list",
    "HARDVS",
    "HARDVS/rawframes",
    "HARDVS/HarDvs300_list",
]


def call(capsys: pytest.CaptureFixture[str], args: Sequence[object]) -> tuple[int, str, str]:
    code = run(velora, [str(arg) for arg in args], name="velora")
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def imported(shared_golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    labels = tmp_path / "labels.txt"
    labels.write_text("A\n2\n3\n4\n5\n")
    out = tmp_path / "published"
    code, _, err = call(
        capsys, ["import-checkpoint", shared_golden / "checkpoint.pth", out, "--labels", labels]
    )
    assert code == 0, err
    return out


@torch.no_grad()
def test_logits_of_png_files_are_those_of_the_published_preprocessing(imported: Path, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="the published code reads pictures by Pillow")
    T = pytest.importorskip("torchvision.transforms", reason="the published code resizes by torchvision")
    published = T.Compose([T.Resize((32, 32)), T.ToTensor(), T.Normalize([0.5] * 3, [0.5] * 3)])
    home = write_published_poker(tmp_path, classes=2, hw=(260, 346))
    model = load_model(imported)
    predictor = open_predictor(imported)
    source = open_clips(home, predictor.spec)
    batches = evaluation_batches(np.arange(len(source)), 2)
    ours = np.concatenate([predictor.logits(batch) for batch in load(ClipDataset(source), batches, 0)])
    for index, item in enumerate(source.items):
        folder = home / "Poker_rgb_event" / item.name
        frames = choose_pairs(2, predictor.spec)
        streams = [
            torch.stack(
                [
                    published(image.open(sorted((folder / f"{folder.name}{suffix}").iterdir())[frame]))
                    for frame in frames
                ]
            )[None]
            for suffix in ("_aps", "_dvs")
        ]
        wanted = model(*streams)[0].numpy()
        np.testing.assert_allclose(ours[index], wanted, rtol=0, atol=1e-4)
    assert np.abs(ours[0] - ours[1]).max() > 1e-3


def test_import_writes_how_the_authors_make_their_images(imported: Path) -> None:
    described = read_checkpoint(imported)
    assert described.model.labels == ("A", "2", "3", "4", "5")
    assert (described.inputs.rgb.fit, described.inputs.event.fit) == ("stretch", "stretch")
    assert described.inputs.rgb.resample == "bilinear"
    assert described.run["data"]["sampling"] == "spread"


def test_import_takes_corrections(
    shared_golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--fit", "letterbox", "--stride", 3, "--palette", "000000,0000ff,#ff8000"]
    code, out, err = call(
        capsys, ["import-checkpoint", shared_golden / "checkpoint.pth", tmp_path / "p", *options]
    )
    assert code == 0, err
    inputs = read_checkpoint(tmp_path / "p").inputs
    assert (inputs.rgb.fit, inputs.event.fit, inputs.stride) == ("letterbox", "letterbox", 3)
    assert inputs.event.palette.model_dump() == {
        "background": (0, 0, 0),
        "off": (0, 0, 255),
        "on": (255, 128, 0),
    }
    assert "images by letterbox" in out


@pytest.mark.parametrize("palette", ["ffffff,0000ff", "white,blue,red", "fff,00f,f00"])
def test_a_palette_that_is_not_three_colours_is_refused(
    palette: str, imported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(capsys, ["eval", imported, "--data", "synthetic", "--palette", palette])
    assert code == 2
    (line,) = err.splitlines()
    assert line.startswith("error: --palette: expected three colours of six hexadecimal digits each, got ")


def test_eval_takes_corrections(imported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = write_published_poker(tmp_path, classes=5)
    names = tmp_path / "others.txt"
    names.write_text("one\ntwo\nthree\nfour\nfive\n")
    code, _, err = call(capsys, ["eval", imported, "--data", home, "--labels", names])
    assert code == 2
    assert "the model does not know the data set's labels A, 2, 3, 4, 5" in err
    names.write_text("one\ntwo\n")
    code, _, err = call(capsys, ["eval", imported, "--data", home, "--labels", names])
    assert (code, err) == (
        2,
        "error: --labels: the model has 5 classes, got 2 labels; give one label for each class, "
        "in the order of the logits\n",
    )
    losses = []
    for options in ([], ["--fit", "crop"], ["--stride", "1"]):
        report = tmp_path / "r.json"
        code, _, err = call(capsys, ["eval", imported, "--data", home, "--json", report, *options])
        assert code == 0, err
        losses.append(json.loads(report.read_text())["loss"])
    assert len(set(losses)) == 3


@pytest.mark.slow
@pytest.mark.parametrize("root", ROOTS)
def test_check_build_train_and_eval_take_each_usual_root(
    root: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_published_poker(tmp_path, classes=3, hw=(16, 16), copies=2)
    write_published_hardvs(tmp_path, classes=3, copies=2)
    place, store = tmp_path / root, tmp_path / "s.h5"
    config = tmp_path / "c.yaml"
    tree = toy_tree(tmp_path, place, epochs=1, batch_size=2)
    config.write_text(yaml.safe_dump({**tree, "clip": {"rgb": {"resample": "bilinear", "fit": "stretch"}}}))
    code, out, err = call(capsys, ["dataset", "check", place])
    assert code == 0, err
    assert f"{'hardvs' if 'HARDVS' in root else 'pokerevent'}: 9 recordings" in out
    code, out, err = call(capsys, ["dataset", "build", place, store, "--for", config])
    assert code == 0, err
    assert "9 recordings" in out
    for data in (place, store):
        code, out, err = call(
            capsys, ["train", config, f"data.path={data}", "data.split.val=0.6", "--overwrite"]
        )
        assert code == 0, err
        code, out, err = call(
            capsys, ["eval", tmp_path / "toy", "--data", data, "--json", tmp_path / "r.json"]
        )
        assert code == 0, err
        report = json.loads((tmp_path / "r.json").read_text())
        assert (report["data"]["part"], report["data"]["clips"]) == ("test", 3)


@pytest.mark.parametrize("command", ["check", "build", "train", "eval"])
def test_without_the_lists_each_command_ends_with_one_line(
    command: str, imported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = write_published_poker(tmp_path, classes=1)
    (home / "Poker_Event_list").rename(tmp_path / "elsewhere")
    frames, config = home / "Poker_rgb_event", tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump(toy_tree(tmp_path, frames)))
    args = {
        "check": ["dataset", "check", frames],
        "build": ["dataset", "build", frames, tmp_path / "s.h5"],
        "train": ["train", config],
        "eval": ["eval", imported, "--data", frames],
    }[command]
    code, _, err = call(capsys, args)
    assert code == 2
    (line,) = err.splitlines()
    assert line == (
        f"error: {frames}: no lists of its parts: expected train_label.txt and test_label.txt in one of "
        f"{frames}, {home}; copy the published lists there, or take the folders as a set of your own, "
        "divided by data.split: kind frames"
    )
    assert not (tmp_path / "toy").exists()
    assert not (tmp_path / "s.h5").exists()


@pytest.mark.slow
def test_a_damaged_copy_is_built_trained_on_and_evaluated_where_that_is_asked_for(
    imported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = write_published_poker(tmp_path, classes=2, hw=(16, 16), copies=3)
    for name in ("A/test_000", "2/train_001b"):
        folder = home / "Poker_rgb_event" / name
        (folder / f"{folder.name}_dvs" / "00000000.png").write_bytes(b"junk")
    store, config = tmp_path / "s.h5", tmp_path / "c.yaml"
    code, out, err = call(capsys, ["dataset", "build", home, store, "--skip-damaged", "--image-size", 16])
    assert code == 0, err
    assert f"{store}: 6 recordings, 12 pairs" in out
    assert (tmp_path / "s.h5.skipped.txt").read_text().splitlines() == [
        "Poker_rgb_event/2/train_001b/train_001b_dvs/00000000.png: not a PNG file",
        "Poker_rgb_event/A/test_000/test_000_dvs/00000000.png: not a PNG file",
    ]
    config.write_text(yaml.safe_dump(toy_tree(tmp_path, home, epochs=1, batch_size=2)))
    training = ["train", config, "data.split.val=0.34"]
    assert call(capsys, training)[0] == 2
    code, _, err = call(capsys, [*training, "data.skip_damaged=true"])
    assert code == 0, err
    assert "left out: Poker_rgb_event/2/train_001b/train_001b_dvs/00000000.png: not a PNG file" in err
    report = tmp_path / "r.json"
    code, out, err = call(
        capsys, ["eval", tmp_path / "toy", "--data", home, "--skip-damaged", "--json", report]
    )
    assert code == 0, err
    assert "left out: Poker_rgb_event/A/test_000/test_000_dvs/00000000.png: not a PNG file" in out
    assert json.loads(report.read_text())["data"]["clips"] == 1
