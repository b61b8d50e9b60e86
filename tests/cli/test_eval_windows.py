"""`velora eval --windows` and `--decide`, on recordings that `velora train` packed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from recordings import write_events
from videos import write_video

from velora_cli.main import velora
from velora_edge.console import run

if TYPE_CHECKING:
    from collections.abc import Sequence

sys.path.append(str(Path(__file__).parents[1] / "train"))
from toy_runs import toy_tree

PERIOD_US, PICTURES = 40_000, 12


def call(capsys: pytest.CaptureFixture[str], args: Sequence[object]) -> tuple[int, str, str]:
    code = run(velora, [str(arg) for arg in args], name="velora")
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A set of recordings of two classes, two of them held out, and a run that was trained on the others."""
    folder = tmp_path_factory.mktemp("trained")
    for part, takes in (("train", 4), ("test", 1)):
        for label in ("wave", "rest"):
            root = folder / "set" / part / label
            root.mkdir(parents=True)
            for k in range(takes):
                write_events(root / f"{k}.raw", start_us=0, duration_us=PERIOD_US * PICTURES, seed=k)
                write_video(root / f"{k}.mp4", [PERIOD_US * (i + 1) for i in range(PICTURES)])
    tree = toy_tree(folder / "runs", folder / "set", epochs=1, batch_size=2)
    tree["clip"] = {"sampling": "stride", "stride": 2, "event": {"window_us": PERIOD_US}}
    tree["data"]["split"] = {"val": 0.25}
    (folder / "c.yaml").write_text(yaml.safe_dump(tree))
    assert run(velora, ["train", str(folder / "c.yaml")], name="velora") == 0
    return folder / "runs" / "toy", folder / "set"


def test_every_window_of_what_was_held_out_is_told(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, recordings = trained
    report = tmp_path / "r.json"
    code, out, err = call(capsys, ["eval", model, "--data", recordings, "--windows", "--json", report])
    assert code == 0, err
    found = json.loads(report.read_text())
    # Twelve pairs, of which a clip spans five.
    assert (found["windows"], found["data"]["clips"], found["data"]["part"]) == (True, 16, "test")
    assert "16 windows of 2 recordings, part test (held out from the model's training)" in out
    interval = found["top1_interval"]
    assert interval["recordings"] == 2
    assert f"interval: {interval['method']}, 2 recordings" in out
    assert interval["low"] <= found["top1"] <= interval["high"]


def test_actions_are_decided_in_the_recordings(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, recordings = trained
    report, settings = tmp_path / "r.json", ["enter=0", "leave=0", "hold_ms=0"]
    given = [word for one in settings for word in ("--decide", one)]
    code, out, err = call(capsys, ["eval", model, "--data", recordings, *given, "--json", report])
    assert code == 0, err
    actions = json.loads(report.read_text())["actions"]
    assert (actions["recordings"], actions["true"], actions["decide"]) == (2, 2, settings)
    # A threshold of 0 decides on something in each recording.
    assert actions["told"] >= 2
    assert f"actions in 2 recordings: 2 labelled, {actions['told']} decided; " in out


def test_actions_need_whole_recordings(
    trained: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    model, _ = trained
    (store,) = (model.parent / "packed").iterdir()
    code, _, err = call(capsys, ["eval", model, "--data", store, "--decide", "default"])
    assert code == 2
    assert f"actions are decided in whole recordings, and {store} is a set of kind store" in err


def test_windows_and_corruptions_do_not_go_together(
    trained: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    model, recordings = trained
    code, _, err = call(capsys, ["eval", model, "--data", recordings, "--windows", "--corrupt", "noise"])
    assert (code, err) == (2, "error: --windows does not go with --corrupt; leave one of them out\n")
