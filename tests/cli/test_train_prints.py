"""What `velora train` prints beside its progress: configurations, estimates, what chose the epoch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from velora_cli.main import velora
from velora_edge.config import load_config
from velora_edge.console import run
from velora_edge.train.cost import GPUS
from velora_edge.train.settings import PretrainConfig, TrainConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from velora_edge.config import Section

sys.path += [str(Path(__file__).parents[1] / name) for name in ("data", "train")]
from toy_runs import toy_tree, write_clips


def call(capsys: pytest.CaptureFixture[str], args: Sequence[object]) -> tuple[int, str, str]:
    code = run(velora, [str(arg) for arg in args], name="velora")
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("command", ["train", "pretrain"])
def test_a_configuration_with_all_keys_is_printed_and_loads_again(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = call(capsys, [command, "--print-config"])
    assert code == 0
    schema: type[Section] = TrainConfig if command == "train" else PretrainConfig
    (tmp_path / "all.yaml").write_text(out)
    config = load_config(tmp_path / "all.yaml", schema)
    assert yaml.safe_load(out) == config.model_dump(mode="json")
    assert "# passes over the training part\n  epochs: 50\n" in out


def test_a_given_configuration_is_printed_with_its_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump(toy_tree(tmp_path, tmp_path / "nowhere.h5")))
    code, out, err = call(capsys, ["train", config, "train.epochs=7", "--print-config"])
    assert code == 0, err
    assert out.startswith(f"# velora train {config}\n")
    assert "  epochs: 7  # default 50\n" in out
    assert yaml.safe_load(out)["data"]["path"] == str(tmp_path / "nowhere.h5")


def test_an_estimate_tells_each_gpu_and_that_nothing_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump(toy_tree(tmp_path, write_clips(tmp_path / "clips.h5"))))
    code, out, err = call(capsys, ["train", config, "--estimate"])
    assert code == 0, err
    assert "TFLOP a clip" in out
    assert "2 epochs" in out
    assert all(gpu.name in out for gpu in GPUS)
    assert "Computed, not measured" in out
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_dir()] == []


@pytest.mark.parametrize("command", ["train", "pretrain"])
def test_without_a_configuration_the_way_to_one_is_told(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(capsys, [command])
    assert code == 2
    assert "Missing argument 'CONFIG': configs/ holds some, and velora init SET writes one" in err


def test_a_run_that_the_test_part_chose_says_that_its_figure_is_not_unseen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump(toy_tree(tmp_path, write_clips(tmp_path / "clips.h5"))))
    code, out, _ = call(capsys, ["train", config, "train.epochs=1", "train.choose=test", "data.split.val=0"])
    assert code == 0
    assert "after epoch 1, which was chosen by it: no figure of unseen recordings" in out
    code, out, _ = call(capsys, ["eval", tmp_path / "toy", "--data", tmp_path / "clips.h5"])
    assert code == 0
    assert "part test (by which the checkpoint was chosen, so not unseen)" in " ".join(out.split())
