"""Runs in processes of their own: killed and resumed, or several together."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from toy_runs import toy_tree

from velora_edge.train.run import read_metrics

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = [sys.executable, "-m", "velora_cli.training.train"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
STEPS = 7

pytestmark = pytest.mark.slow


def write_config(folder: Path, data: Path, workers: int = 0, **train: Any) -> Path:
    folder.mkdir(parents=True)
    tree = toy_tree(folder, data, **train)
    tree["data"]["workers"] = workers
    if train.get("batch_size", 4) != 4 or "ema" in train:
        tree["model"]["lora"]["dropout"] = 0.0  # its masks are drawn in each process
    (folder / "c.yaml").write_text(yaml.safe_dump(tree))
    return folder / "c.yaml"


def run(config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, str(config), *arguments], env=ENVIRONMENT, capture_output=True, text=True, timeout=280
    )


def tensors(run_folder: Path, which: str) -> dict[str, torch.Tensor]:
    return load_file(run_folder / "toy" / which / "tuned.safetensors")


def test_a_run_killed_in_mid_epoch_and_resumed_ends_with_the_same_weights(
    tmp_path: Path, toy_clips: Path
) -> None:
    settings: dict[str, Any] = {"epochs": 40, "save_every": 3, "drop_rgb": 0.2, "drop_event": 0.2}
    whole = write_config(tmp_path / "whole", toy_clips, **settings)
    broken = write_config(tmp_path / "broken", toy_clips, workers=2, **settings)
    assert run(whole).returncode == 0
    kills = 0
    process = subprocess.Popen(
        [*COMMAND, str(broken)], env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    state, deadline = tmp_path / "broken" / "toy" / "state.pt", time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if state.exists() and _is_mid_epoch(state):
            process.send_signal(signal.SIGKILL)
            kills += 1
            break
        time.sleep(0.01)
    assert process.wait() == -signal.SIGKILL
    assert kills == 1
    resumed = run(broken, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed at step" in resumed.stderr
    for which in ("best", "last"):
        expected, found = tensors(tmp_path / "whole", which), tensors(tmp_path / "broken", which)
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)


def _is_mid_epoch(state: Path) -> bool:
    done = torch.load(state, weights_only=True)["done"]
    return 0 < done < STEPS


@pytest.mark.parametrize("drops", [0.0, 0.25])
def test_two_processes_give_the_losses_of_one_with_twice_the_batch(
    drops: float, tmp_path: Path, toy_clips: Path
) -> None:
    settings: dict[str, Any] = {"epochs": 2, "ema": 0.9, "drop_rgb": drops, "drop_event": drops}
    one = write_config(tmp_path / "one", toy_clips, batch_size=8, **settings)
    two = write_config(tmp_path / "two", toy_clips, batch_size=4, workers=1, **settings)
    alone, together = run(one), run(two, "--processes", "2")
    assert alone.returncode == 0, alone.stderr
    assert together.returncode == 0, together.stderr
    expected, found = read_metrics(tmp_path / "one" / "toy"), read_metrics(tmp_path / "two" / "toy")
    assert [(line["step"], line["part"]) for line in found] == [
        (line["step"], line["part"]) for line in expected
    ]
    for key in ("loss", "classification", "reconstruction", "top1"):
        values = [line[key] for line in expected if key in line]
        assert [line[key] for line in found if key in line] == pytest.approx(values, abs=2e-5), key
    first, second = tensors(tmp_path / "one", "last"), tensors(tmp_path / "two", "last")
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, atol=2e-4, rtol=1e-3, msg=name)
    moved = [name for name in first if "lora_B" in name and float(second[name].abs().max()) > 0]
    assert len(moved) >= 12


def test_two_hosts_give_the_losses_of_one_with_twice_the_batch(tmp_path: Path, toy_clips: Path) -> None:
    settings: dict[str, Any] = {"epochs": 1, "ema": 0.9}
    one = write_config(tmp_path / "one", toy_clips, batch_size=8, **settings)
    two = write_config(tmp_path / "two", toy_clips, batch_size=4, **settings)
    assert run(one).returncode == 0
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        meeting = f"127.0.0.1:{probe.getsockname()[1]}"
    hosts = [
        subprocess.Popen(
            [*COMMAND, str(two), "--hosts", "2", "--host", str(host), "--main", meeting],
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for host in range(2)
    ]
    assert [host.wait(timeout=240) for host in hosts] == [0, 0]
    losses = [
        [line["loss"] for line in read_metrics(folder / "toy")]
        for folder in (tmp_path / "one", tmp_path / "two")
    ]
    assert losses[1] == pytest.approx(losses[0], abs=2e-5)


def test_a_run_of_several_processes_that_cannot_start_says_why_once(tmp_path: Path, toy_clips: Path) -> None:
    config = write_config(tmp_path / "r", toy_clips)
    result = run(config, "train.lr=fast", "data.path=nowhere", "--processes", "2")
    assert result.returncode == 2
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert "train.lr: expected a valid number" in line
    assert "data.path: no such file or folder: nowhere" in line
    assert "Traceback" not in result.stderr


def test_several_hosts_need_a_place_to_meet(tmp_path: Path, toy_clips: Path) -> None:
    result = run(write_config(tmp_path / "r", toy_clips), "--hosts", "2")
    assert result.returncode == 2
    assert result.stderr.startswith("error: --main: several hosts need to know where to meet")
