"""A repository for Triton, and the client that asks such a server."""

from __future__ import annotations

import http.server
import importlib.util
import json
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from velora_export.evaluation.sessions import Sessions
from velora_export.triton import write_repository

from tests.toy_bundle import H, T, W, write_toy_bundle
from velora_cli.main import velora
from velora_edge.bundle import GRAPHS, Bundle
from velora_edge.console import run
from velora_edge.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

CLIENT = Path(__file__).parents[2] / "export" / "triton_client.py"

HEAD = """name: "toy_head"
backend: "onnxruntime"
max_batch_size: 8
input [
  {
    name: "rgb"
    data_type: TYPE_FP32
    dims: [ 3, 3, 5 ]
  }
]
input [
  {
    name: "event"
    data_type: TYPE_FP32
    dims: [ 3, 3, 5 ]
  }
]
input [
  {
    name: "diff"
    data_type: TYPE_FP32
    dims: [ 2, 3, 5 ]
  }
]
input [
  {
    name: "rgb_present"
    data_type: TYPE_FP32
    dims: [ 3 ]
  }
]
input [
  {
    name: "event_present"
    data_type: TYPE_FP32
    dims: [ 3 ]
  }
]
input [
  {
    name: "diff_present"
    data_type: TYPE_FP32
    dims: [ 2 ]
  }
]
output [
  {
    name: "logits"
    data_type: TYPE_FP32
    dims: [ 4 ]
    label_filename: "labels.txt"
  }
]
instance_group [
  {
    count: 1
    kind: KIND_AUTO
  }
]
dynamic_batching {
  max_queue_delay_microseconds: 2000
}
parameters {
  key: "velora.active_patches"
  value { string_value: "null" }
}
parameters {
  key: "velora.clip_length"
  value { string_value: "3" }
}
"""


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_toy_bundle(tmp_path / "toy.velora")


def test_a_config_names_types_shapes_labels_and_instances(bundle: Bundle, tmp_path: Path) -> None:
    assert write_repository(bundle, tmp_path / "models") == [f"toy_{graph}" for graph in GRAPHS]
    text = (tmp_path / "models" / "toy_head" / "config.pbtxt").read_text()
    assert text.startswith(HEAD)
    assert 'key: "velora.labels"\n  value { string_value: "[\\"a\\", \\"b\\", \\"c\\", \\"d\\"]" }' in text


def test_a_model_of_halves_goes_to_a_gpu_and_says_its_types(tmp_path: Path) -> None:
    write_repository(write_toy_bundle(tmp_path / "toy.velora", half=True), tmp_path / "models")
    text = (tmp_path / "models" / "toy_rgb" / "config.pbtxt").read_text()
    assert 'name: "tokens"\n    data_type: TYPE_FP16\n    dims: [ 3, 5 ]\n' in text
    assert "kind: KIND_GPU" in text
    assert "max_batch_size: 32" in text


def test_each_graph_lies_beside_the_weights_that_it_uses(bundle: Bundle, tmp_path: Path) -> None:
    write_repository(bundle, tmp_path / "models")
    for graph in GRAPHS:
        version = tmp_path / "models" / f"toy_{graph}" / "1"
        assert sorted(file.name for file in version.iterdir()) == ["model.onnx", "weights.bin"]
        onnx.checker.check_model(str(version / "model.onnx"), full_check=True)
    # Bytes of the towers' 48 x 15 weights and of the head's 45 x 4; smaller ones stay in their graph.
    sizes = {
        graph: (tmp_path / "models" / f"toy_{graph}" / "1" / "weights.bin").stat().st_size for graph in GRAPHS
    }
    assert {graph: sizes[graph] for graph in ("rgb", "event", "diff")} == dict.fromkeys(
        ("rgb", "event", "diff"), 48 * 15 * 4
    )
    assert (tmp_path / "models" / "toy_clip" / "labels.txt").read_text() == "a\nb\nc\nd\n"


def test_models_are_replaced_and_other_folders_are_not(bundle: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    write_repository(bundle, folder)
    (folder / "toy_rgb" / "1" / "old.txt").write_text("old")
    write_repository(bundle, folder)
    assert not (folder / "toy_rgb" / "1" / "old.txt").exists()
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"toy_{graph}" for graph in GRAPHS)
    (folder / "toy_rgb" / "config.pbtxt").unlink()
    with pytest.raises(BundleError, match="toy_rgb: exists and is not a Triton model"):
        write_repository(bundle, folder)


def test_the_command_makes_a_repository_of_a_bundle(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "models"
    assert run(velora, ["export", str(bundle.path), "--triton", str(folder)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{folder}: toy_rgb, toy_event, toy_diff, toy_head, toy_clip",
        f"next: tritonserver --model-repository {folder}",
    ]
    assert run(velora, ["export", str(bundle.path), "out.velora", "--triton", str(folder)]) == 2
    assert "give CHECKPOINT and OUT, or a bundle and --triton DIR" in capsys.readouterr().err


def _client() -> ModuleType:
    spec = importlib.util.spec_from_file_location("triton_client", CLIENT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TYPES = {"UINT8": np.uint8, "FP32": np.float32}


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers as Triton does (KServe v2, binary tensors), by ONNX Runtime."""

    sessions: Sessions
    facts: dict[str, str]

    def do_GET(self) -> None:
        parameters = {key: {"string_value": value} for key, value in self.facts.items()}
        self._answer(json.dumps({"parameters": parameters}).encode(), None)

    def do_POST(self) -> None:
        length = int(self.headers["Inference-Header-Content-Length"])
        content = self.rfile.read(int(self.headers["Content-Length"]))
        inputs: dict[str, Any] = {}
        for entry in json.loads(content[:length])["inputs"]:
            size = entry["parameters"]["binary_data_size"]
            flat = np.frombuffer(content[length : length + size], TYPES[entry["datatype"]])
            inputs[entry["name"]] = flat.reshape(entry["shape"])
            length += size
        assert length == len(content)
        graph = self.path.split("/")[3].removeprefix("toy_")
        output = self.sessions.run(graph, inputs)
        described = {"name": "x", "shape": output.shape, "datatype": "FP32"}
        self._answer(json.dumps({"outputs": [described]}).encode(), output.tobytes())

    def _answer(self, header: bytes, content: bytes | None) -> None:
        self.send_response(200)
        if content is not None:
            self.send_header("Inference-Header-Content-Length", str(len(header)))
        self.end_headers()
        self.wfile.write(header + (content or b""))

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def _server(bundle: Bundle) -> Iterator[str]:
    labels = {"velora.labels": json.dumps(bundle.manifest.labels)}
    handler = type("Handler", (_Handler,), {"sessions": Sessions(bundle.path, threads=1), "facts": labels})
    server = http.server.HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_client_tells_clips_labels(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 2, T, H, W, 3), np.uint8)
    np.savez(tmp_path / "c.npz", rgb=images[0], event=images[1])
    flags = {f"{camera}_present": np.ones((2, T), np.float32) for camera in ("rgb", "event")}
    logits = Sessions(bundle.path, threads=1).run("clip", {"rgb": images[0], "event": images[1], **flags})
    with _server(bundle) as url:
        _client().main(["toy", str(tmp_path / "c.npz"), "--url", url])
    told = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert told == [[f"{k}:", "abcd"[int(row.argmax())]] for k, row in enumerate(logits)]


def test_the_client_streams_pairs_through_rings_of_its_own(bundle: Bundle) -> None:
    images = np.random.default_rng(1).integers(0, 256, (2, T + 1, H, W, 3), np.uint8)
    sessions = Sessions(bundle.path, threads=1)
    with _server(bundle) as url:
        client = _client()
        stream = client.Stream(client.Server(url), "toy", T)
        given = [stream.add(rgb, event) for rgb, event in zip(*images, strict=True)]
    # What the last T pairs leave in the rings: pair 3 in slot 0, and the newest two differences.
    tokens = {
        name: [sessions.run(name, {"image": image[None]}) for image in images[k]]
        for k, name in enumerate(("rgb", "event"))
    }
    pairs = [
        {"rgb": images[0][[j]], "rgb_before": images[0][[j - 1]], "event": images[1][[j]],
         "event_before": images[1][[j - 1]]}
        for j in (3, 2)
    ]  # fmt: skip
    rings = {
        **{name: np.concatenate([ring[3], ring[1], ring[2]])[None] for name, ring in tokens.items()},
        "diff": np.concatenate([sessions.run("diff", pair) for pair in pairs])[None],
    }
    flags = {f"{name}_present": np.ones((1, ring.shape[1]), np.float32) for name, ring in rings.items()}
    np.testing.assert_allclose(given[-1], sessions.run("head", {**rings, **flags})[0], atol=1e-6)
    assert len(given) == T + 1
