"""Client of a Triton Inference Server: whole clips, or pair by pair as a live stream.

    velora export demo --triton models/
    tritonserver --model-repository models/
    python triton_client.py demo clips.npz [--stream] [--url http://localhost:8000]

`clips.npz` holds `rgb` and `event`, uint8[B, T, H, W, 3], as the bundle's manifest says that images are
made. Needs NumPy alone: it speaks Triton's own protocol (KServe v2 over HTTP with binary tensors). With the
package `tritonclient` the same names, shapes and types go into its `InferInput`.
"""

from __future__ import annotations

import argparse
import json
import urllib.request
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Arrays = dict[str, "NDArray[Any]"]
DATATYPES = {"uint8": "UINT8", "int64": "INT64", "float16": "FP16", "float32": "FP32"}
DTYPES = {datatype: np.dtype(name) for name, datatype in DATATYPES.items()}
HEADER = "Inference-Header-Content-Length"


class Server:
    """A Triton server.

    Args:
        url: such as http://localhost:8000.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def config(self, model: str) -> dict[str, Any]:
        """A model's configuration, with the bundle's facts among its `parameters`."""
        with urllib.request.urlopen(f"{self._url}/v2/models/{model}/config") as answer:
            return dict(json.load(answer))

    def infer(self, model: str, inputs: Arrays) -> NDArray[Any]:
        """The one output of a model on inputs by name, the batch first."""
        arrays = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        header = json.dumps({"inputs": [_describe(*item) for item in arrays.items()], "parameters": {
            "binary_data_output": True}}).encode()  # fmt: skip
        body = header + b"".join(array.tobytes() for array in arrays.values())
        request = urllib.request.Request(f"{self._url}/v2/models/{model}/infer", body)
        request.add_header("Content-Type", "application/octet-stream")
        request.add_header(HEADER, str(len(header)))
        with urllib.request.urlopen(request) as answer:
            length = int(answer.headers[HEADER])
            content = answer.read()
        (output,) = json.loads(content[:length])["outputs"]
        return np.frombuffer(content[length:], DTYPES[output["datatype"]]).reshape(output["shape"])


def _describe(name: str, array: NDArray[Any]) -> dict[str, Any]:
    return {
        "name": name,
        "shape": array.shape,
        "datatype": DATATYPES[array.dtype.name],
        "parameters": {"binary_data_size": array.nbytes},
    }


class Stream:
    """The rings of one live stream; the server keeps nothing of it, so that any server of several will do.

    Args:
        server: which answers.
        name: the models' common name.
        clip_length: pairs in a clip, T.
        active: `velora.active_patches` of the bundle's facts; None: the model computes all patches.
    """

    def __init__(
        self, server: Server, name: str, clip_length: int, active: dict[str, Any] | None = None
    ) -> None:
        self._server, self._name, self._active = server, name, active
        self._slots = {"rgb": clip_length, "event": clip_length, "diff": clip_length - 1}
        self._rings: Arrays = {}
        self._counts = dict.fromkeys(self._slots, 0)
        self._before: Arrays | None = None

    def add(self, rgb: NDArray[np.uint8], event: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits of the newest T pairs, float32[K].

        Args:
            rgb: uint8[H, W, 3].
            event: uint8[H, W, 3].
        """
        self._put("rgb", {"image": rgb[None]})
        self._put("event", {"image": event[None], **self._patches(event)})
        if self._before is not None:
            patches = self._patches(event, self._before["event_before"][0])
            self._put("diff", {"rgb": rgb[None], "event": event[None], **self._before, **patches})
        else:
            like = self._rings["rgb"]
            self._rings["diff"] = np.zeros((1, self._slots["diff"], *like.shape[2:]), like.dtype)
        self._before = {"rgb_before": rgb[None].copy(), "event_before": event[None].copy()}
        flags = {
            f"{name}_present": (np.arange(size) < self._counts[name])[None].astype(np.float32)
            for name, size in self._slots.items()
        }
        logits: NDArray[np.float32] = self._server.infer(f"{self._name}_head", {**self._rings, **flags})[0]
        return logits

    def _patches(self, *images: NDArray[np.uint8]) -> Arrays:
        """The input `patches`: numbers of those in which one of the event images is not blank."""
        if self._active is None:
            return {}
        down, across = self._active["grid"]
        changed = np.any([(image != self._active["blank"]).any(axis=-1) for image in images], axis=0)
        by_patch = changed.reshape(down, changed.shape[0] // down, across, changed.shape[1] // across)
        return {"patches": by_patch.any(axis=(1, 3)).reshape(-1).nonzero()[0][None]}

    def _put(self, modality: str, images: Arrays) -> None:
        """Compute the tokens of images; they take the place of the oldest ones of their ring."""
        tokens = self._server.infer(f"{self._name}_{modality}", images)
        size = self._slots[modality]
        if modality not in self._rings:
            self._rings[modality] = np.zeros((1, size, *tokens.shape[1:]), tokens.dtype)
        self._rings[modality][0, self._counts[modality] % size] = tokens[0]
        self._counts[modality] += 1


def main(arguments: list[str] | None = None) -> None:
    """Print a label for each clip of a file."""
    parser = argparse.ArgumentParser(description="Ask a Triton server what clips show.")
    parser.add_argument("name", help="the bundle's name")
    parser.add_argument("clips", help="an .npz file with rgb and event, uint8[B, T, H, W, 3]")
    parser.add_argument("--stream", action="store_true", help="pair by pair, as a live stream does")
    parser.add_argument("--url", default="http://localhost:8000")
    options = parser.parse_args(arguments)
    server = Server(options.url)
    facts = server.config(f"{options.name}_clip")["parameters"]
    labels = json.loads(facts["velora.labels"]["string_value"])
    with np.load(options.clips, allow_pickle=False) as file:
        pairs = list(zip(file["rgb"], file["event"], strict=True))
    for number, (rgb, event) in enumerate(pairs):
        if options.stream:
            active = json.loads(facts.get("velora.active_patches", {}).get("string_value", "null"))
            stream = Stream(server, options.name, len(rgb), active)
            logits = [stream.add(*pair) for pair in zip(rgb, event, strict=True)][-1]
        else:
            flags = {f"{camera}_present": np.ones((1, len(rgb)), np.float32) for camera in ("rgb", "event")}
            logits = server.infer(f"{options.name}_clip", {"rgb": rgb[None], "event": event[None], **flags})[
                0
            ]
        print(f"{number}: {labels[int(logits.argmax())]}  {np.round(logits, 3).tolist()}")


if __name__ == "__main__":
    main()
