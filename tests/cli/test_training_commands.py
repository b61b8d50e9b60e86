"""The commands of data and training at their edge with the shell."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
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
    scores = Scores(classes, 1.0, 1.0, 0.1, confusion)
    facts = SimpleNamespace(name="toy", kind="bundle", runtime="here", trained=True, parameters={})
    predictor = SimpleNamespace(labels=tuple("abcdef"[:classes]), facts=facts)
    source = SimpleNamespace(path="set", cameras=("rgb", "event"))
    command._show(predictor, source, SimpleNamespace(name="test", why="held out"), {"both": scores})  # type: ignore[arg-type]
    assert ("top-5" in capsys.readouterr().out) == is_shown
