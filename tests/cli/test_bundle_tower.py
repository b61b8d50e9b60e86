"""`velora weights BUNDLE` and `velora init --weights`: the tower of a bundle as the start of a training."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import timm
import torch
import yaml

from tests.toy_bundle import write_toy_bundle
from velora_cli.main import velora
from velora_cli.training.weights import read_bundle_tower
from velora_edge.bundle import find_model, open_bundle
from velora_edge.console import run
from velora_edge.errors import BundleError
from velora_edge.model.tower import read_record
from velora_edge.ort import checked_copy

if TYPE_CHECKING:
    from collections.abc import Sequence

sys.path.append(str(Path(__file__).parents[1] / "train"))
from toy_runs import write_clips

ARGS = {"patch_size": 8, "embed_dim": 128, "depth": 4, "num_heads": 4, "mlp_ratio": 3.0}


def call(capsys: pytest.CaptureFixture[str], args: Sequence[object]) -> tuple[int, str, str]:
    code = run(velora, [str(arg) for arg in args], name="velora")
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_tower_of_a_bundle_gives_the_bundle_s_tokens() -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime (the extra cpu)")
    image = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    with checked_copy(open_bundle(find_model("demo")), "rgb") as path:
        (expected,) = onnxruntime.InferenceSession(str(path)).run(None, {"image": image})
    state, record = read_bundle_tower("demo")
    assert (record.name, record.args, record.image_size) == ("vit_tiny_patch16_224", ARGS, (64, 64))
    vit = timm.create_model(record.name, num_classes=0, img_size=64, **record.args).eval()
    vit.load_state_dict(state)
    pixels = (torch.from_numpy(image).movedim(-1, 1) / 255 - 0.5) / 0.5
    with torch.inference_mode():
        tokens = vit.forward_features(pixels)
    torch.testing.assert_close(tokens, torch.from_numpy(expected), atol=2e-5, rtol=0)


def test_other_towers_and_precisions_are_refused(tmp_path: Path) -> None:
    write_toy_bundle(tmp_path / "toy.velora")
    write_toy_bundle(tmp_path / "half.velora", half=True)
    with pytest.raises(BundleError, match=r"toy\.velora: its tower is not a plain vision transformer"):
        read_bundle_tower(str(tmp_path / "toy.velora"))
    with pytest.raises(BundleError, match=r"half\.velora: is in fp16; export it again with --precision fp32"):
        read_bundle_tower(str(tmp_path / "half.velora"))


def test_a_bundle_s_tower_is_written_with_what_a_configuration_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, ["weights", "demo"])
    assert code == 0, err
    assert yaml.safe_load("\n".join(out.splitlines()[2:])) == {
        "backbone": {"name": "vit_tiny_patch16_224", "args": ARGS, "weights": "demo.safetensors"},
        "image_size": [64, 64],
    }
    record = read_record(tmp_path / "demo.safetensors")
    assert record is not None
    assert (record.args, record.mean, record.source) == (ARGS, (0.5, 0.5, 0.5), "demo")
    code, _, err = call(capsys, ["weights", "demo"])
    assert (code, "exists already" in err) == (2, True)


def test_init_starts_from_a_file_of_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tower, config, store = tmp_path / "t.safetensors", tmp_path / "c.yaml", write_clips(tmp_path / "clips.h5")
    assert call(capsys, ["weights", "demo", tower])[0] == 0
    code, _, err = call(capsys, ["init", store, config, "--weights", tower])
    assert code == 0, err
    model = yaml.safe_load(config.read_text())["model"]
    assert model["backbone"] == {"name": "vit_tiny_patch16_224", "args": ARGS, "weights": str(tower)}
    assert model["image_size"] == [16, 16]  # the store's
    assert model["mean"] == [0.5, 0.5, 0.5]


def test_weights_that_do_not_say_whose_they_are_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "t.safetensors")
    args = ["init", write_clips(tmp_path / "clips.h5"), tmp_path / "c.yaml", "--weights"]
    code, _, err = call(capsys, [*args, tmp_path / "t.safetensors"])
    assert code == 2
    assert "t.safetensors: does not say which model its weights are of; make it by velora weights FILE" in err
