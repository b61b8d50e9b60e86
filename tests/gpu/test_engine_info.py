"""velora info on engines."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from fakes_tensorrt import FakeTensorRT, make_plan
from tensorrt_streams import build
from toy_bundle import write_toy_bundle

from velora_cli.main import velora
from velora_edge.console import run

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_an_engine_tells_its_tensorrt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.engine").write_bytes(make_plan("10.13.3.9", {}))
    assert run(velora, ["info", str(tmp_path / "a.engine"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"format": "TensorRT engine", "version": "10.13.3.9"}
    assert run(velora, ["info", str(tmp_path / "a.engine")]) == 0
    assert capsys.readouterr().out == "format   TensorRT engine\nversion  10.13.3.9\n"


def test_a_bundle_tells_its_engines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    FakeTensorRT.install(monkeypatch, tmp_path)
    bundle = build(write_toy_bundle(tmp_path / "toy.velora"))
    assert run(velora, ["info", str(bundle.path)]) == 0
    origin = bundle.manifest.engines[0].origin
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("engine")]
    assert lines == [
        f"{f'engine {graph}':<12}  0.0 MB, TensorRT 10.3.0.26 on NVIDIA Fake GPU (compute capability 8.7); "
        f"built by {origin}"
        for graph in ("rgb", "event", "diff", "head")
    ]
