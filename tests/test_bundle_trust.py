"""A bundle is what its manifest lists: all that a graph refers to is listed, checked, loaded as checked."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.toy_bundle import write_toy_bundle
from velora_edge.bundle import MANIFEST, Bundle, file_sha256, find_model, open_bundle
from velora_edge.errors import BundleError

pytest.importorskip("onnx", reason="writes graphs")
pytest.importorskip("onnxruntime", reason="needs ONNX Runtime (the extra cpu)")

import onnx
from velora_runtime.engines.ort import Graph

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_toy_bundle(tmp_path / "toy.velora").path


def relist(path: Path, **changes: str | None) -> None:
    """Bring the manifest's digests up to date, as somebody does who makes a bundle by hand."""
    raw = json.loads((path / MANIFEST).read_text())
    raw["files"] = {name: file_sha256(path / name) for name in raw["files"] if (path / name).is_file()}
    for name, digest in changes.items():
        if digest is None:
            raw["files"].pop(name.replace("__", "."))
    (path / MANIFEST).write_text(json.dumps(raw))


def point_at(path: Path, location: str) -> None:
    """Let all weights of the graph `rgb` lie in another file."""
    model = onnx.load(path / "rgb.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    (path / "rgb.onnx").write_bytes(model.SerializeToString())
    relist(path)


def weights_of(path: Path) -> Path:
    return path / "rgb.bin" if (path / "rgb.bin").exists() else path / "weights.bin"


def test_weights_that_the_manifest_does_not_list_are_refused(path: Path) -> None:
    name = weights_of(path).name
    relist(path, **{name.replace(".", "__"): None})
    with pytest.raises(BundleError, match=f"refers to {name}, which the manifest does not list"):
        Graph(open_bundle(path), "rgb")


@pytest.mark.parametrize(
    "location", ["../outside.bin", "{}/outside.bin", "./../outside.bin", "sub/../../outside.bin"]
)
def test_weights_outside_of_the_bundle_are_refused(path: Path, location: str) -> None:
    shutil.copy(weights_of(path), path.parent / "outside.bin")
    (path / "sub").mkdir()
    point_at(path, location.format(path.parent))
    with pytest.raises(BundleError, match="which the manifest does not list"):
        Graph(open_bundle(path), "rgb")


def test_a_link_in_a_file_s_place_is_not_followed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = weights_of(path)
    shutil.move(weights, path.parent / "outside.bin")
    weights.symlink_to(path.parent / "outside.bin")
    with pytest.raises(BundleError, match="leads out of the bundle"):
        open_bundle(path)
    monkeypatch.setenv("VELORA_FOLLOW_LINKS", "1")
    Graph(open_bundle(path), "rgb")


def test_a_graph_with_a_compiled_program_is_refused(path: Path) -> None:
    model = onnx.load(path / "rgb.onnx", load_external_data=False)
    model.graph.node[0].op_type = "EPContext"
    (path / "rgb.onnx").write_bytes(model.SerializeToString())
    relist(path)
    with pytest.raises(BundleError, match="compiled program"):
        Graph(open_bundle(path), "rgb")


def change(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)


@pytest.mark.parametrize("what", ["graph", "weights"])
def test_what_was_changed_after_the_check_is_not_loaded(path: Path, what: str) -> None:
    bundle = open_bundle(path)
    change(path / "rgb.onnx" if what == "graph" else weights_of(path))
    with pytest.raises(BundleError, match="the file was changed or damaged"):
        Graph(bundle, "rgb")


@pytest.mark.parametrize("what", ["graph", "weights"])
def test_openvino_loads_what_was_checked_too(tmp_path: Path, what: str) -> None:
    pytest.importorskip("openvino", reason="needs OpenVINO (the extra openvino)")
    from velora_runtime.engines.openvino_graphs import _read, load_core

    path = tmp_path / "demo.velora"
    shutil.copytree(find_model("demo"), path)
    bundle = open_bundle(path)
    assert _read(load_core(), bundle, "rgb").inputs
    change(path / "rgb.onnx" if what == "graph" else weights_of(path))
    with pytest.raises(BundleError, match="the file was changed or damaged"):
        _read(load_core(), bundle, "rgb")


def test_a_whole_bundle_gives_the_numbers_of_its_files(path: Path) -> None:
    import numpy as np
    import onnxruntime

    image = np.random.default_rng(0).integers(0, 255, (1, 4, 4, 3), np.uint8)
    expected = onnxruntime.InferenceSession(path / "rgb.onnx").run(None, {"image": image})[0]
    assert np.array_equal(
        Graph(Bundle(path, open_bundle(path).manifest), "rgb").session.run(None, {"image": image})[0],
        expected,
    )
