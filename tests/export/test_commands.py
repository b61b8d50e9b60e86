"""`velora export` and `velora import-checkpoint`, as they are typed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from networks import SHALLOW, tiny_model
from safetensors.torch import load_file
from velora_export.evaluation.sessions import Sessions, random_clips

from velora_cli.main import velora
from velora_edge.bundle import open_bundle
from velora_edge.console import run
from velora_edge.model.checkpoint import save_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

torch.set_num_threads(2)


def test_export_tells_steps_parity_and_the_next_command(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    save_checkpoint(
        tiny_model(tuning="linear", backbone=SHALLOW), tmp_path / "best", include_base=True, trained=False
    )
    (tmp_path / "names.txt").write_text("sit\nstand\n\nwalk\n")
    out = tmp_path / "poses.velora"
    arguments = ["export", str(tmp_path / "best"), str(out), "--labels", str(tmp_path / "names.txt")]
    assert run(velora, arguments) == 0
    printed, steps = capfd.readouterr()
    lines = printed.splitlines()
    assert lines[0].startswith(f"{out}: ")
    assert lines[0].endswith("MB, 3 labels, clips of 4, random weights")
    assert "ONNX Runtime" in lines[1]
    assert lines[2].startswith("a streaming step: ")
    assert lines[3:] == [f"next: velora-live {out} --events RECORDING --rgb VIDEO"]
    assert steps.splitlines() == [
        "[1/8] merge LoRA",
        *(f"[{i}/8] graph {g}.onnx" for i, g in enumerate(("rgb", "event", "diff", "head", "clip"), start=2)),
        "[7/8] parity with torch on 4 clips: random, seed 0",
        "[8/8] latency of a streaming step",
    ]
    manifest = open_bundle(out).manifest
    assert (manifest.name, manifest.labels) == ("poses", ("sit", "stand", "walk"))
    assert not manifest.weights.trained


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "nowhere", "x.velora"], "error: nowhere: no such checkpoint"),
        (["export", "best", "taken"], "error: taken: exists and is not a model bundle"),
        (["export", "best", "x.velora", "--labels", "two.txt"], "the model has 3 classes, got 2 labels"),
        (["export", "best", "x.velora", "--labels", "twice.txt"], "error: twice.txt: names 'a' twice"),
        (["export", "best", "x.velora", "--labels", "none.txt"], "error: none.txt: cannot be read as text"),
        (["export", "best", "x.velora", "--precision", "int8"], "error: --clips: int8 takes its ranges from"),
        (["export", "best", "x.velora", "--clips", "two.npz"], "error: two.npz: no clips: "),
        (["import-checkpoint", "two.txt", "out"], "error: two.txt: not a torch checkpoint"),
        (["import-checkpoint", "none.pth", "out"], "error: none.pth: no such checkpoint"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    save_checkpoint(tiny_model(tuning="linear", backbone=SHALLOW), tmp_path / "best", include_base=True)
    (tmp_path / "two.txt").write_text("a\nb\n")
    (tmp_path / "twice.txt").write_text("a\na\nb\n")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "letter.txt").write_text("dear")
    before = sorted(tmp_path.rglob("*"))
    assert run(velora, arguments) == 2
    printed, errors = capfd.readouterr()
    assert printed == ""
    complaints = [line for line in errors.splitlines() if not line.startswith("[")]
    assert len(complaints) == 1
    assert message in complaints[0]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_a_published_checkpoint_runs_as_a_bundle_and_gives_the_published_log_probabilities(
    shared_golden: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    imported, bundle = tmp_path / "published", tmp_path / "published.velora"
    assert run(velora, ["import-checkpoint", str(shared_golden / "checkpoint.pth"), str(imported)]) == 0
    assert capfd.readouterr().out.splitlines() == [
        f"{imported}: 159 tensors taken over, 122 without effect on a prediction; 32x32 images, 5 classes, "
        "LoRA rank 4",
        "images by stretch, mean and std 0.5, clips spread over a recording, labels from class-0 to class-4; "
        "--fit, --stride, --palette, --labels correct it",
        f"next: velora eval {imported} --data Poker_Event",
        f"      velora export {imported} published.velora --stride N",
    ]
    assert run(velora, ["export", str(imported), str(bundle), "--stride", "4"]) == 0
    assert open_bundle(bundle).manifest.stride == 4
    sessions = Sessions(bundle, threads=2)
    T = open_bundle(bundle).manifest.clip_length
    present = {f"{m}_present": np.ones((1, n), np.float32) for m, n in zip(
        ("rgb", "event", "diff"), (T, T, T - 1), strict=True)}  # fmt: skip
    for i in (0, 1):
        item = load_file(shared_golden / f"batch1_item{i}.safetensors")
        rings = {m: item[f"{m}_frame_tokens"].numpy()[None] for m in ("rgb", "event", "diff")}
        logits = torch.from_numpy(sessions.run("head", {**rings, **present}))
        torch.testing.assert_close(logits.log_softmax(1), item["log_probs"], atol=1e-4, rtol=0)


@pytest.mark.slow
def test_an_int8_export_tells_its_ranges_its_speed_beside_fp32_and_what_was_overridden(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = tiny_model(backbone=SHALLOW)
    save_checkpoint(model, tmp_path / "best", include_base=True)
    clips = random_clips(model.config, count=4)
    np.savez(tmp_path / "c.npz", rgb=clips.rgb, event=clips.event, label=np.array([0, 1, 2, 0]))
    arguments = ["export", str(tmp_path / "best"), str(tmp_path / "out.velora"), "--precision", "int8"]
    assert run(velora, [*arguments, "--clips", str(tmp_path / "c.npz"), "--force"]) == 0
    printed, steps = capfd.readouterr()
    assert "[7/10] calibration on 2 clips: c.npz" in steps
    assert "[10/10] latency of a streaming step" in steps
    bundle = open_bundle(tmp_path / "out.velora")
    report = bundle.manifest.report
    assert bundle.manifest.precision == "int8"
    assert report is not None
    assert report.calibration is not None
    assert (report.calibration.source, report.calibration.clips, report.calibration.layers) == (
        "c.npz",
        2,
        28,
    )
    assert report.accuracy is not None
    assert report.accuracy.clips == 2
    assert report.latency is not None
    assert report.latency.fp32_p50_ms is not None
    warned = [line.removeprefix("warning: ") for line in printed.splitlines() if line.startswith("warning: ")]
    assert tuple(warned) == report.overridden
    slower = report.latency.p50_ms >= report.latency.fp32_p50_ms
    assert any("no faster here" in reason for reason in report.overridden) == slower


def test_a_run_stands_for_its_best_checkpoint_and_a_bundle_is_replaced_only_where_that_is_asked_for(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = tiny_model(tuning="linear", backbone=SHALLOW)
    for name in ("best", "last"):
        save_checkpoint(model, tmp_path / "run" / name, include_base=True, trained=False)
    arguments = ["export", str(tmp_path / "run"), str(tmp_path / "x.velora")]
    assert run(velora, arguments) == 0
    assert capfd.readouterr().err.startswith(f"velora: taking {tmp_path}/run/best\n")
    assert run(velora, arguments) == 2
    assert (
        "x.velora: exists already; give another name, or --overwrite to replace it" in capfd.readouterr().err
    )
    assert run(velora, [*arguments, "--overwrite"]) == 0
