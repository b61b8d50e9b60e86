"""`velora info` on a recording's folder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.fakes import write_tiny_bundle
from tests.recordings import write_events
from tests.videos import write_video
from velora_cli.live.live import command
from velora_cli.main import velora
from velora_edge.console import run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """0.4 s of both cameras, recorded while a model recognised them."""
    write_events(tmp_path / "e.raw", triggers_us=[7_000_000 + 10_000 * k for k in range(1, 40)])
    write_video(tmp_path / "v.mp4", [10_000 * k for k in range(39)])
    model = write_tiny_bundle(tmp_path / "tiny.velora").path
    args = [str(model), "--events", str(tmp_path / "e.raw"), "--rgb", str(tmp_path / "v.mp4"), "--quiet"]
    assert run(command, [*args, "--pace", "max", "--record", str(tmp_path / "r")], name="velora-live") == 0
    return tmp_path / "r"


def test_a_recording_is_described(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run(velora, ["info", "--json", str(folder)], name="velora") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["kind"], said["why_ended"], said["duration_s"]) == ("recording", "end of the run", 0.38)
    assert (said["frames"], said["triggers"], said["warnings"]) == (39, 39, [])
    assert (said["events"]["encoding"], said["events"]["sensor"]) == ("EVT3", [64, 48])
    assert (said["video"]["width"], said["video"]["height"]) == (48, 32)
    assert said["model"]["name"] == "tiny"


def test_a_recording_that_was_cut_short_is_described_as_far_as_it_goes(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    (folder / "recording.json").write_text("{}")
    assert run(velora, ["info", str(folder)], name="velora") == 0
    printed = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert printed["ended"].strip() == "not properly"
    assert printed["duration"].strip().startswith("0.380 s")
    assert "not ended properly" in printed["warning"]
