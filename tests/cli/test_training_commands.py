"""The commands of data and training at their edge with the shell."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import timm
import torch
import yaml

from velora_cli.main import velora
from velora_edge.console import run

if TYPE_CHECKING:
    from collections.abc import Sequence

sys.path += [str(Path(__file__).parents[1] / name) for name in ("data", "train")]
from toy_runs import toy_tree, write_clips
from written_sets import write_poker


def call(capsys: pytest.CaptureFixture[str], args: Sequence[object]) -> tuple[int, str, str]:
    code = run(velora, [str(arg) for arg in args], name="velora")
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_check_tells_classes_and_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, ["dataset", "check", write_poker(tmp_path)])
    assert code == 0
    assert "pokerevent: 4 recordings by rgb and event, 2 classes" in out
    assert "pairs a recording: 4 to 5, median 5" in out


def test_check_prints_every_problem_and_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_poker(tmp_path)
    (root / "clubs/clubs_a/clubs_a_dvs/00000002.png").write_bytes(b"junk")
    (root / "hearts/hearts_b/hearts_b_aps/frame00000000.png").unlink()
    code, out, err = call(capsys, ["dataset", "check", root])
    assert code == 2
    assert "problem: clubs/clubs_a/clubs_a_dvs/00000002.png: not a PNG file" in out
    assert "problem: hearts/hearts_b: hearts_b_aps lacks frames that the other has: 0" in out
    assert err.splitlines()[-1] == f"error: {root}: 2 problems, listed above; mend them"


def test_check_as_json_prints_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, ["dataset", "check", write_poker(tmp_path), "--json"])
    assert code == 0
    assert json.loads(out)["recordings"] == 4


def test_build_packs_in_the_form_that_a_configuration_asks_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("model: {image_size: [6, 8]}\nclip: {event: {fit: stretch}}\n")
    code, out, _ = call(
        capsys, ["dataset", "build", write_poker(tmp_path / "set"), tmp_path / "s.h5", "--for", config]
    )
    assert code == 0
    assert f"{tmp_path}/s.h5: 4 recordings, 18 pairs" in out
    code, _, err = call(capsys, ["dataset", "check", tmp_path / "s.h5"])
    assert code == 0, err


def test_build_leaves_nothing_of_a_damaged_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_poker(tmp_path / "set")
    (root / "clubs/clubs_a/clubs_a_dvs/00000002.png").write_bytes(b"junk")
    code, _, err = call(capsys, ["dataset", "build", root, tmp_path / "s.h5"])
    assert code == 2
    assert "clubs/clubs_a/clubs_a_dvs/00000002.png: not a PNG file; nothing was written" in err
    assert [entry.name for entry in tmp_path.iterdir()] == ["set"]


def test_train_then_eval_by_the_commands_that_are_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_clips(tmp_path / "clips.h5")
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump(toy_tree(tmp_path, data)))
    code, out, _ = call(capsys, ["train", config, "train.epochs=1"])
    assert code == 0
    following = out.splitlines()[-2]
    assert following.startswith("next: velora eval ")
    assert out.splitlines()[-1].endswith(" toy.velora --stride auto")  # its clips are spread
    code, out, _ = call(capsys, [*following.split()[2:], "--json", tmp_path / "r.json"])
    assert code == 0
    assert "part test (held out from the model's training)" in " ".join(out.split())
    report = json.loads((tmp_path / "r.json").read_text())
    assert set(report["ablation"]) == {"both", "rgb", "event"}
    assert (tmp_path / "r.png").is_file()


def test_train_tells_three_mistakes_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump(toy_tree(tmp_path, tmp_path / "none.h5")))
    code, _, err = call(capsys, ["train", config, "train.lr=fast", "model.lora.rnk=4"])
    assert code == 2
    (line,) = err.splitlines()
    for part in (
        "train.lr: expected",
        "model.lora.rnk: unknown key, did you mean rank?",
        "data.path: no such",
    ):
        assert part in line
    assert [entry.name for entry in tmp_path.iterdir()] == ["c.yaml"]


@pytest.mark.parametrize(
    ("args", "error"),
    [
        (["eval", "nowhere.velora", "--data", "synthetic"], "error: nowhere.velora: no such"),
        (["eval", "demo", "--data", "nowhere"], "error: nowhere: no such file or folder"),
        (["dataset", "check", "nowhere"], "error: nowhere: no such file or folder"),
        (["train", "nowhere.yaml"], "error: nowhere.yaml: no such file"),
        (["pretrain", "nowhere.yaml"], "error: nowhere.yaml: no such file"),
    ],
)
def test_what_is_not_there_is_named_in_one_line(
    args: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(capsys, args)
    assert code == 2
    (line,) = err.splitlines()
    assert line.startswith(error)


def test_build_replaces_a_store_only_where_that_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["dataset", "build", write_poker(tmp_path / "set"), tmp_path / "s.h5", "--image-size", "8"]
    assert call(capsys, args)[0] == 0
    before = (tmp_path / "s.h5").stat().st_ino
    code, _, err = call(capsys, args)
    assert (code, err) == (
        2,
        f"error: {tmp_path}/s.h5: exists already; give another name, or --overwrite to replace it\n",
    )
    assert (tmp_path / "s.h5").stat().st_ino == before
    assert call(capsys, [*args, "--overwrite"])[0] == 0
    assert (tmp_path / "s.h5").stat().st_ino != before


@pytest.mark.parametrize(("classes", "is_shown"), [(5, False), (6, True)])
def test_top5_is_shown_where_it_tells_something(
    classes: int, is_shown: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    import numpy as np

    from velora_cli.training import eval as command
    from velora_edge.train.objective import Scores

    confusion = np.eye(classes, dtype=np.int64)
    scores = Scores(classes, 1.0, 1.0, 0.1, confusion, np.ones(classes, bool))
    facts = SimpleNamespace(name="toy", kind="bundle", runtime="here", trained=True, parameters={})
    predictor = SimpleNamespace(labels=tuple("abcdef"[:classes]), facts=facts)
    source = SimpleNamespace(path="set", cameras=("rgb", "event"))
    command._show(predictor, source, SimpleNamespace(name="test", why="held out"), {"both": scores})  # type: ignore[arg-type]
    assert ("top-5" in capsys.readouterr().out) == is_shown


@pytest.fixture(scope="module")
def toy_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run that was trained on clips spread over recordings of 0.4 s, and its data."""
    folder = tmp_path_factory.mktemp("toy")
    data, config = write_clips(folder / "clips.h5"), folder / "c.yaml"
    config.write_text(yaml.safe_dump({**toy_tree(folder, data, epochs=1), "clip": {"rate_hz": 10}}))
    assert run(velora, ["train", str(config)], name="velora") == 0
    return folder / "toy", data


def test_eval_prints_the_curve_of_a_corruption_and_writes_its_rows(
    toy_run: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, data = toy_run
    corrupt = ["--corrupt", "drop-events=0.5:1,desync=120"]
    code, out, err = call(capsys, ["eval", model, "--data", data, *corrupt, "--json", tmp_path / "r.json"])
    assert code == 0, err
    table = [line.split("│")[1:3] for line in out.splitlines() if line.startswith("│")]
    rows = [tuple(cell.strip() for cell in cells) for cells in table]
    assert rows[rows.index(("none", "")) :][:4] == [
        ("none", ""),
        ("drop-events", "0.5 of the events"),
        ("drop-events", "1 of the events"),
        ("desync", "100 ms late"),  # the nearest number of pairs
    ]
    found = json.loads((tmp_path / "r.json").read_text())["corruptions"]
    assert [(row["kind"], row["level"], row["unit"]) for row in found] == [
        ("drop-events", 0.5, "of the events"),
        ("drop-events", 1.0, "of the events"),
        ("desync", 100.0, "ms late"),
    ]


def test_eval_writes_its_report_though_nobody_reads_the_tables(
    toy_run: tuple[Path, Path], tmp_path: Path
) -> None:
    model, data = map(str, toy_run)
    command = [sys.executable, "-m", "velora_cli.main", "eval", model, "--data", data, "--json"]
    with subprocess.Popen([*command, tmp_path / "r.json"], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.close()
    assert child.returncode == 0
    assert json.loads((tmp_path / "r.json").read_text())["data"]["clips"] > 0
    assert (tmp_path / "r.png").is_file()


def test_eval_shows_every_corruption_where_none_is_named(
    toy_run: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from velora_edge.train.evaluate import CORRUPTIONS

    model, data = toy_run
    code, out, err = call(capsys, ["eval", model, "--data", data, "--json", tmp_path / "r.json", "--corrupt"])
    assert code == 0, err
    found = json.loads((tmp_path / "r.json").read_text())["corruptions"]
    assert list(dict.fromkeys(row["kind"] for row in found)) == list(CORRUPTIONS)
    assert "drawn: events of shorter windows" in out


@pytest.mark.parametrize(
    ("corrupt", "error"),
    [
        ("fog", "'fog': expected all, or of noise, drop-events, "),
        ("noise=2", "noise=2: expected numbers from 0 to 1 with colons between them"),
        ("rate=0.25", "rate=0.25: expected numbers from 0.5 to 2 "),
        ("desync=soon", "desync=soon: expected numbers from 0 to "),
    ],
)
def test_a_corruption_that_is_none_is_named(
    corrupt: str, error: str, toy_run: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    model, data = toy_run
    code, _, err = call(capsys, ["eval", model, "--data", data, "--corrupt", corrupt])
    assert code == 2
    (line,) = err.splitlines()
    assert line.startswith(f"error: --corrupt: {error}")


def test_corruptions_that_a_set_cannot_have_are_left_out_or_named(
    toy_run: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = write_clips(tmp_path / "events.h5", 8, ("event",))
    report = tmp_path / "r.json"
    code, _, err = call(capsys, ["eval", toy_run[0], "--data", events, "--json", report, "--corrupt=all"])
    assert code == 0, err
    kinds = {row["kind"] for row in json.loads(report.read_text())["corruptions"]}
    assert kinds == {"noise", "drop-events", "hot-pixels", "rate"}
    code, _, err = call(capsys, ["eval", toy_run[0], "--data", events, "--corrupt", "rgb-noise"])
    assert (code, "error: --corrupt: 'rgb-noise': the set has event alone" in err) == (2, True)


def test_eval_finds_the_stride_that_covers_the_span_of_training(
    toy_run: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    model, data = toy_run
    code, out, err = call(capsys, ["eval", model, "--data", data, "--stride", "auto", "--rate", 20])
    assert code == 0, err
    assert out.splitlines()[0] == "stride 3: pairs come at 20 a second"


def test_help_names_every_corruption() -> None:
    from velora_cli.training.eval import command
    from velora_edge.train.evaluate import CORRUPTIONS

    (help_text,) = [param.help for param in command.params if param.name == "corrupt"]
    assert help_text is not None
    assert [kind for kind in CORRUPTIONS if kind not in help_text] == []


def test_export_refuses_clips_that_were_spread_until_a_stride_covers_their_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from velora_edge.bundle import open_bundle

    data, config = write_clips(tmp_path / "clips.h5", pairs=9), tmp_path / "c.yaml"
    tree = {**toy_tree(tmp_path, data, epochs=1), "clip": {"rate_hz": 10}}
    config.write_text(yaml.safe_dump(tree))
    assert call(capsys, ["train", config])[0] == 0
    arguments = ["export", tmp_path / "toy" / "best", tmp_path / "toy.velora"]
    code, _, err = call(capsys, arguments)
    assert (code, err) == (
        2,
        f"error: {tmp_path}/toy/best: was trained on clips spread over whole recordings (0.60 s; 0.20 s by "
        "its stride of 1), which a live stream does not have; give --stride auto, which takes pairs 3 apart, "
        "or --stride N\n",
    )
    code, out, err = call(capsys, [*arguments, "--stride", "auto"])
    assert code == 0, err
    assert "a clip covers 0.60 s at 10 pairs a second (stride 3), 0.60 s in training" in out
    manifest = open_bundle(tmp_path / "toy.velora").manifest
    assert (manifest.stride, manifest.span_s, manifest.rate_hz) == (3, pytest.approx(0.6), 10.0)
    code, out, _ = call(capsys, ["info", tmp_path / "toy.velora"])
    assert "stride 3, 0.60 s in training at 10 pairs a second" in " ".join(out.split())


def test_weights_prints_the_two_lines_that_a_configuration_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=64)
    torch.save(vit.state_dict(), "mine.pth")
    code, out, _ = call(capsys, ["weights", "mine.pth", "tower.safetensors"])
    lines = out.splitlines()
    assert code == 0
    assert lines[0] == (
        "tower.safetensors: vit_tiny_patch16_224.augreg_in21k, 22.0 MB; mean 0.5 0.5 0.5, std 0.5 0.5 0.5"
    )
    assert yaml.safe_load("\n".join(lines[2:])) == {
        "backbone": {"name": "vit_tiny_patch16_224.augreg_in21k", "weights": "tower.safetensors"},
        "image_size": [64, 64],
    }
    code, _, err = call(capsys, ["weights", "mine.pth", "tower.safetensors"])
    assert (code, err) == (
        2, "error: tower.safetensors: exists already; give another name, or --overwrite to replace it\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["gone.pth"], "gone.pth: no such file of weights; check the path, or give timm's name of a model"),
        (
            ["vit_tiny", "--name", "vit_tiny"],
            "--name: is for a file; give the name alone: velora weights vit_tiny",
        ),
        (
            ["vit_smal_patch14_dinov2"],
            "backbone.name: timm has no model vit_smal_patch14_dinov2; try one of: ",
        ),
    ],
)
def test_weights_that_cannot_be_had_give_one_line(
    args: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, ["weights", *args])
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1
