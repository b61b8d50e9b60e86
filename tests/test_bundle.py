"""Bundles on disk: written whole, checked whole."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from velora_edge.bundle import (
    GRAPHS,
    BundleWriter,
    Manifest,
    Weights,
    find_model,
    open_bundle,
    read_manifest,
    write_manifest,
)
from velora_edge.errors import BundleError

MANIFEST = Manifest(
    name="m",
    version="0.1.0",
    labels=("a", "b"),
    clip_length=8,
    image_size=(64, 64),
    tokens=65,
    token_size=128,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    weights=Weights(trained=False, architecture="none", sha256="0" * 64),
    opset=18,
)


def _write(path: Path, content: str = "graph") -> Path:
    with BundleWriter(path) as writer:
        for graph in GRAPHS:
            (writer.folder / f"{graph}.onnx").write_text(f"{content} {graph}")
        (writer.folder / "weights.bin").write_bytes(b"12345678")
        writer.finish(MANIFEST)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return _write(tmp_path / "m.velora")


def test_a_bundle_lists_the_digest_of_every_file(path: Path) -> None:
    bundle = open_bundle(path)
    assert bundle.manifest.files == {
        "clip.onnx": hashlib.sha256(b"graph clip").hexdigest(),
        "diff.onnx": hashlib.sha256(b"graph diff").hexdigest(),
        "event.onnx": hashlib.sha256(b"graph event").hexdigest(),
        "head.onnx": hashlib.sha256(b"graph head").hexdigest(),
        "rgb.onnx": hashlib.sha256(b"graph rgb").hexdigest(),
        "weights.bin": hashlib.sha256(b"12345678").hexdigest(),
    }
    assert bundle.graph("rgb") == path / "rgb.onnx"
    with pytest.raises(BundleError, match=r"the manifest does not list engine\.plan"):
        bundle.file("engine.plan")


def test_demo_is_a_model_wherever_one_is_asked_for() -> None:
    assert find_model("demo").name == "demo.velora"
    assert find_model("other.velora") == Path("other.velora")


@pytest.mark.parametrize("name", ["rgb.onnx", "weights.bin"])
def test_one_changed_bit_is_found(path: Path, name: str) -> None:
    data = bytearray((path / name).read_bytes())
    data[-1] ^= 1
    (path / name).write_bytes(data)
    with pytest.raises(BundleError, match=f"{name}: expected SHA-256 .* changed or damaged"):
        open_bundle(path)


def test_a_missing_file_is_told(path: Path) -> None:
    (path / "weights.bin").unlink()
    with pytest.raises(BundleError, match=r"m\.velora, weights\.bin: the file is missing"):
        open_bundle(path)


def _changed(path: Path, **changes: Any) -> None:
    data = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**data, **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 6}, r"schema version 6 is newer .* git pull in the checkout"),
        ({"colour": "red"}, "colour: Extra inputs"),
        ({"clip_length": 1, "labels": []}, "labels: .*; clip_length: "),
        ({"files": {"../rgb.onnx": "0"}}, r"file name '\.\./rgb\.onnx' leaves the bundle"),
        ({"files": {"/etc/passwd": "0"}}, "leaves the bundle"),
        ({"files": {"rgb.onnx": "0"}}, r"files lack event\.onnx, diff\.onnx, head\.onnx, clip\.onnx"),
    ],
)
def test_a_manifest_that_cannot_be_is_refused(path: Path, changes: dict[str, Any], message: str) -> None:
    _changed(path, **changes)
    with pytest.raises(BundleError, match=message) as caught:
        open_bundle(path)
    assert str(caught.value).startswith(f"{path}, manifest.json: ")


@pytest.mark.parametrize("content", ["", "hello", "[1, 2]", "\x00"])
def test_a_manifest_that_is_none_is_refused(path: Path, content: str) -> None:
    (path / "manifest.json").write_text(content)
    with pytest.raises(BundleError) as caught:
        open_bundle(path)
    assert str(caught.value).startswith(f"{path}, manifest.json: ")
    assert "\n" not in str(caught.value)


def test_what_is_no_bundle_is_told(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such model"):
        open_bundle(tmp_path / "nothing.velora")
    with pytest.raises(BundleError, match=r"it holds no manifest\.json"):
        open_bundle(tmp_path)


def test_a_bundle_is_replaced_whole(path: Path) -> None:
    (path / "engines").mkdir()
    _write(path, content="newer")
    assert open_bundle(path).graph("rgb").read_text() == "newer rgb"
    assert not (path / "engines").exists()
    assert [file.name for file in path.parent.iterdir()] == ["m.velora"]


def test_a_failure_leaves_what_was_there_and_nothing_else(path: Path) -> None:
    def fill_the_disk() -> None:
        with BundleWriter(path) as writer:
            (writer.folder / "rgb.onnx").write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fill_the_disk()
    assert open_bundle(path).graph("rgb").read_text() == "graph rgb"
    assert [file.name for file in path.parent.iterdir()] == ["m.velora"]


def test_other_people_s_files_and_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    (tmp_path / "file").write_text("dear")
    for name in ("home", "file"):
        with pytest.raises(BundleError, match=f"{name}: exists and is not a model bundle"):
            BundleWriter(tmp_path / name)


def test_an_empty_folder_is_free_to_take(tmp_path: Path) -> None:
    (tmp_path / "m.velora").mkdir()
    assert open_bundle(_write(tmp_path / "m.velora")).manifest.name == "m"


def test_a_manifest_is_replaced_in_place(path: Path) -> None:
    manifest = read_manifest(path).model_copy(update={"accuracy": {"top1": 0.9}})
    write_manifest(path, manifest)
    assert open_bundle(path).manifest == manifest
    assert sorted(file.name for file in path.iterdir()) == sorted([*manifest.files, "manifest.json"])
