"""Graphs of a bundle compiled by OpenVINO, in the bundle's own precision or not at all.

OpenVINO chooses a precision where it is not told one: bf16 on processors that have it, fp16 on graphics. Here
each graph is compiled with the bundle's, and asked afterwards what it computes in.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge.bundle import file_sha256
from velora_edge.errors import BundleError, EngineError, MissingExtraError
from velora_edge.events.accumulate.active_patches import PATCHES
from velora_edge.files import cache_home, replace_file
from velora_edge.ort import checked_copy, first_line
from velora_runtime.engines.ort import check_inputs

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from velora_edge.bundle import Bundle, Manifest
    from velora_runtime.engines.base import EngineOptions

LOG = logging.getLogger("velora.openvino")

HINTS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
"""INFERENCE_PRECISION_HINT by what the layers that are not int8 compute in."""


def load_openvino() -> Any:
    """The openvino module.

    Raises:
        MissingExtraError: naming the extra to install, if it is not there.
    """
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("openvino", "openvino", "inference") from error
    return openvino


@functools.cache
def load_core() -> Any:
    """The process's one openvino.Core, which is never let go of.

    On processors with AMX the plugin of each Core installs an alternate stack for signals. Where several end
    in another order than they began, OpenVINO 2026.4 leaves one behind whose memory is gone, and the next
    signal ends the process.

    Raises:
        MissingExtraError: naming the extra to install, if openvino is not there.
    """
    return load_openvino().Core()


def why_not_precise(manifest: Manifest, device: str, capabilities: list[str]) -> str | None:
    """Why a device does not compute in a bundle's precision, or None.

    Args:
        manifest: the bundle's.
        device: OpenVINO's name of it, for people.
        capabilities: its OPTIMIZATION_CAPABILITIES.
    """
    wanted = {manifest.floats, manifest.precision}
    lacking = [name for name in sorted(wanted) if name.upper() not in capabilities]
    if not lacking:
        return None
    known = [name for name in ("fp32", "bf16", "fp16", "int8") if name.upper() in capabilities]
    return f"{device} has no {' and no '.join(lacking)}; export the model in one of {', '.join(known)}"


class Compiled:
    """One graph, batch 1, on a device.

    Args:
        core: OpenVINO's.
        bundle: whose graph it is.
        name: rgb, event, diff or head.
        device: OpenVINO's name of it.
        options: what the user asked of the engine.
        cache: of the bundle's compiled graphs; one for all of them.
        length: of its list of patches; None: any.

    Raises:
        BundleError: if OpenVINO does not take the graph, or it has other inputs than a bundle's graph.
        EngineError: if it would compute in another precision than the bundle's.

    Attributes:
        model: OpenVINO's compiled model.
        token_type: of its output.
    """

    def __init__(
        self,
        core: Any,
        bundle: Bundle,
        name: str,
        device: str,
        options: EngineOptions,
        cache: BlobCache,
        length: int | None = None,
    ) -> None:
        self.name = name
        graph = _read(core, bundle, name)
        if length is not None:
            graph.reshape({PATCHES: [1, length]})
        hint = HINTS[bundle.manifest.floats]
        try:
            self.model = core.compile_model(
                graph, device, settings(device, hint, options.threads, cache.folder)
            )
        except Exception as error:  # whatever a plugin raises
            raise EngineError(
                f"openvino cannot compile {name}.onnx for {device}: {first_line(error)}"
            ) from error
        cache.seal()
        self.token_type = np.dtype(self.model.outputs[0].element_type.to_dtype())
        found = self.model.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if found != hint:
            raise EngineError(f"expected openvino to compute {name}.onnx in {hint}, it would in {found}")

    def count_int8(self) -> int:
        """How many linear layers were compiled to int8, as the plugin for CPUs tells it."""
        facts = (op.get_rt_info() for op in self.model.get_runtime_model().get_ops())
        layers = (f for f in facts if f["layerType"].astype(str) in ("FullyConnected", "MatMul"))
        return sum(f["runtimePrecision"].astype(str) in ("i8", "u8") for f in layers)

    def request(self) -> Request:
        """What runs it; one for each set of inputs that stay bound."""
        return Request(self.model, self.name)


class Request:
    """One run of a graph after another, on memory that is bound, never copied.

    The caller keeps bound arrays alive until the run is over.
    """

    def __init__(self, model: Any, name: str) -> None:
        self._request, self._name = model.create_infer_request(), name

    def feed(self, name: str, array: NDArray[Any]) -> None:
        """Bind an input without its batch axis.

        Raises:
            EngineError: if the graph has no such input, or another shape or type there.
        """
        try:
            self._request.set_tensor(name, share(array))
        except Exception as error:  # openvino raises RuntimeError for whatever it is
            raise self._failed(error) from error

    def run(self, target: Any) -> None:
        """Compute into `target`, made by `share`.

        Raises:
            EngineError: if OpenVINO fails.
        """
        try:
            self._request.set_output_tensor(target)
            self._request.infer()
        except Exception as error:  # as above
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> EngineError:
        return EngineError(f"openvino failed in {self._name}.onnx: {first_line(error)}")


def share(array: NDArray[Any]) -> Any:
    """A tensor [1, ...] on the memory of an array, which must be contiguous: OpenVINO would copy it."""
    if not array.flags.c_contiguous:
        raise ValueError(f"expected a contiguous array, got strides {array.strides}")
    return load_openvino().Tensor(array[None], shared_memory=True)


class BlobCache:
    """OpenVINO's cache of one bundle's compiled graphs, with a digest of each file.

    OpenVINO recognises a file that is cut short, but not one whose weights were spoilt: it would compute
    other numbers. A file without its digest, or with another one, is therefore removed before OpenVINO looks.

    Attributes:
        folder: where OpenVINO is to keep them; None: nothing can be kept.
    """

    DIGESTS = ".sha256"

    def __init__(self, folder: Path) -> None:
        self.folder: Path | None = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK):
                raise PermissionError(13, "not writable")
            self._remove_spoilt(folder)
        except OSError as error:
            LOG.warning("compiled graphs are not kept in %s: %s", folder, error.strerror)
            self.folder = None

    @classmethod
    def for_bundle(cls, bundle: Bundle) -> BlobCache:
        """The cache of a bundle's graphs, found by the digests of its files."""
        return cls(cache_home() / "velora" / "openvino" / bundle_digest(bundle)[:16])

    def seal(self) -> None:
        """Keep the digests of files that are new."""
        if self.folder is None:
            return
        try:
            for blob in self.folder.glob("*.blob"):
                digest = blob.with_suffix(self.DIGESTS)
                if not digest.exists():
                    replace_file(digest, file_sha256(blob).encode())
        except OSError as error:
            LOG.warning("compiled graphs are not kept in %s: %s", self.folder, error.strerror)

    def _remove_spoilt(self, folder: Path) -> None:
        for blob in folder.glob("*.blob"):
            digest = blob.with_suffix(self.DIGESTS)
            if not digest.exists() or digest.read_text() != file_sha256(blob):
                LOG.warning("%s is spoilt and is made again", blob)
                digest.unlink(missing_ok=True)
                blob.unlink(missing_ok=True)


def bundle_digest(bundle: Bundle) -> str:
    """One digest of all files that a bundle's manifest names."""
    lines = (f"{name} {digest}\n" for name, digest in sorted(bundle.manifest.files.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _read(core: Any, bundle: Bundle, name: str) -> Any:
    """OpenVINO's model of a graph, with the batch fixed to 1."""
    try:
        with checked_copy(bundle, name) as path:
            graph = core.read_model(path)
    except (BundleError, EngineError):
        raise
    except Exception as error:  # openvino raises RuntimeError for whatever it is
        raise BundleError(
            f"openvino cannot load the graph: {first_line(error)}",
            path=bundle.path,
            place=f"{name}.onnx",
            remedy="export the model again, or pip install -U openvino",
        ) from error
    check_inputs(bundle, name, tuple(entry.any_name for entry in graph.inputs))
    graph.reshape({entry.any_name: [1, *list(entry.partial_shape)[1:]] for entry in graph.inputs})
    return graph


def settings(device: str, hint: str, threads: int, cache: Path | None = None) -> dict[str, Any]:
    """OpenVINO's properties: one stream, short latencies, threads that the system may move.

    Pinned threads would wait for a core that decoding has while another is free.

    Args:
        device: OpenVINO's name of it.
        hint: what floats are computed in, see `HINTS`.
        threads: for the arithmetic on the CPU; 0: all cores.
        cache: folder of compiled graphs; None: nothing is kept.
    """
    chosen: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}
    if device == "CPU":
        chosen |= {"NUM_STREAMS": "1", "ENABLE_CPU_PINNING": False}
        chosen |= {"INFERENCE_NUM_THREADS": threads} if threads else {}
    if cache is not None:
        chosen["CACHE_DIR"] = str(cache)
    return chosen
