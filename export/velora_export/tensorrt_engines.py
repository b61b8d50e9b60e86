"""A bundle's engines for this machine: built, compared with ONNX Runtime, signed, entered in the manifest."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from velora_edge.bundle import EngineFile, read_manifest, write_manifest
from velora_edge.errors import BundleError, EngineError
from velora_edge.gpu.cuda import Cuda, why_no_cuda
from velora_edge.gpu.engine import EngineLoader
from velora_edge.gpu.log import Messages
from velora_edge.gpu.matching import (
    model_digest,
    network_name,
    read_engine,
    this_machine,
    why_no_fp8,
    why_not_here,
)
from velora_edge.gpu.origin import sign, why_not_trusted
from velora_edge.gpu.plan import plan_version, target_name
from velora_edge.gpu.runner import EngineRunner
from velora_export.tensorrt_builder import PlanBuilder, cache_path
from velora_export.tensorrt_parity import Comparison, check_parity

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from velora_edge.bundle import Bundle
    from velora_edge.gpu.matching import Machine
    from velora_export.tensorrt_builder import BuildOptions
    from velora_export.tensorrt_parity import Clips
    from velora_export.tensorrt_progress import BuildProgress

FOLDER = "engines"


@dataclass(frozen=True, slots=True)
class BuiltEngine:
    """What came of one graph.

    Attributes:
        entry: the manifest's.
        seconds: that the build took; 0 where an engine was already there.
        size_bytes: of the engine.
        is_new: False where it was already there.
    """

    entry: EngineFile
    seconds: float
    size_bytes: int
    is_new: bool

    def describe(self) -> str:
        """A line for people."""
        entry, parity = self.entry, self.entry.parity
        took = f"built in {self.seconds:.0f} s" if self.is_new else "already there"
        apart = f"{parity.get('relative', 0):.1e} from ONNX Runtime's output"
        agreement = parity.get("top1_agreement")
        same = "" if agreement is None else f", same label in {agreement:.0%}"
        return f"{entry.graph:5} {took}, {self.size_bytes / 1e6:.1f} MB, {apart}{same}: {entry.file}"


class BundleBuilder:
    """Builds a bundle's engines on this machine's GPU.

    Single-threaded. Use as a context manager: CUDA's memory and the log's file are let go at the end.

    Args:
        bundle: whose files were checked; engines go into its folder.
        options: how to build.
        clips: to compare on.
        device: the CUDA device's number.

    Attributes:
        machine: what the engines are built for.
        log: the builder's log.

    Raises:
        EngineError: if there is no GPU or no TensorRT, or the GPU does not know the bundle's precision.
        BundleError: if the bundle cannot be written to.
    """

    def __init__(self, bundle: Bundle, options: BuildOptions, clips: Clips, *, device: int = 0) -> None:
        reason = why_no_cuda(device)
        if reason is not None:
            raise EngineError(
                f"engines are built on the GPU that runs them: {reason}; velora doctor tells more"
            )
        self.bundle, self.options = bundle, options
        self._exit = contextlib.ExitStack()
        with contextlib.ExitStack() as undo:
            cuda = Cuda(device)
            undo.callback(cuda.close)
            self._cuda = cuda
            self.machine: Machine = this_machine(cuda.describe())
            machine, compatible = self.machine, options.hardware_compatible
            reason = why_no_fp8(bundle.manifest.precision, machine, hardware_compatible=compatible)
            if reason is not None:
                raise EngineError(reason)
            self._target = target_name(machine.tensorrt, machine.gpu, machine.compute_capability)
            self.log = bundle.path / FOLDER / f"build-{self._target}.log"
            try:
                self.log.parent.mkdir(exist_ok=True)
                messages = Messages(undo.enter_context(self.log.open("w")))
            except OSError as error:
                raise _unwritable(self.log, error) from error
            self._builder = PlanBuilder(cuda, options, messages, cache_path(self._target))
            self._loader = EngineLoader(cuda, messages)
            self._comparison = Comparison(bundle.path, bundle.manifest, clips)
            self._exit = undo.pop_all()

    def __enter__(self) -> BundleBuilder:
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def build(self, graphs: Sequence[str], progress: BuildProgress, *, force: bool) -> Iterator[BuiltEngine]:
        """Build what is not there yet; each engine is in the manifest when it is yielded.

        Args:
            graphs: names of graphs.
            progress: told of every step.
            force: build anew, and keep an engine that is too far from ONNX Runtime.

        Raises:
            EngineError: if TensorRT cannot, or if an engine is not its graph.
            KeyboardInterrupt: if the user stopped it.
        """
        for graph in graphs:
            found = None if force else self._find(graph)
            yield found or self._build(graph, progress, force=force)

    def _find(self, graph: str) -> BuiltEngine | None:
        """An engine that is already there, whole, ours and built with the same options."""
        manifest = read_manifest(self.bundle.path)
        for entry in manifest.engines:
            reason = why_not_here(entry, manifest, self.machine) or why_not_trusted(entry)
            if entry.graph != graph or reason is not None or _traits(entry) != _traits(self.options):
                continue
            with contextlib.suppress(EngineError, BundleError):
                return BuiltEngine(entry, 0.0, len(read_engine(self.bundle.path, entry)), is_new=False)
        return None

    def _build(self, graph: str, progress: BuildProgress, *, force: bool) -> BuiltEngine:
        manifest, machine = self.bundle.manifest, self.machine
        digest = model_digest(manifest, graph)
        name = network_name(graph, manifest.precision, digest)
        start = time.perf_counter()
        plan = self._builder.build(self.bundle.graph(graph), name, manifest.precision, progress)
        seconds = time.perf_counter() - start
        parity = self._compare(graph, plan, name, force=force)
        parts = (graph, self._target, manifest.precision, digest[:12], *_traits(self.options))
        file = Path(FOLDER) / f"{'-'.join(parts)}.engine"
        self._write(self.bundle.path / file, plan)
        entry = EngineFile(
            graph=graph,
            file=file.as_posix(),
            sha256=hashlib.sha256(plan).hexdigest(),
            model=digest,
            precision=manifest.precision,
            tensorrt=plan_version(plan, file),
            gpu=machine.gpu,
            compute_capability=machine.compute_capability,
            version_compatible=self.options.version_compatible,
            hardware_compatible=self.options.hardware_compatible,
            parity=parity,
        )
        signed = sign(entry)
        self._enter(signed)
        return BuiltEngine(signed, seconds, len(plan), is_new=True)

    def _compare(self, graph: str, plan: bytes, name: str, *, force: bool) -> dict[str, object]:
        cuda = Cuda(self._cuda.device)
        try:
            engine = self._loader.load(plan, name, host_code=self.options.version_compatible)
            try:
                parity = self._comparison.compare(graph, EngineRunner(cuda, engine))
            finally:
                engine.close()
        finally:
            cuda.close()
        if not force:
            check_parity(graph, parity)
        return parity.as_dict()

    def _write(self, path: Path, plan: bytes) -> None:
        try:
            with tempfile.NamedTemporaryFile("wb", dir=path.parent, prefix=".", delete=False) as file:
                file.write(plan)
            Path(file.name).chmod(0o644)
            Path(file.name).replace(path)
        except OSError as error:
            raise _unwritable(path, error) from error

    def _enter(self, entry: EngineFile) -> None:
        """Put the entry into the manifest as it is now, in place of one for the same file."""
        manifest = read_manifest(self.bundle.path)
        others = tuple(other for other in manifest.engines if other.file != entry.file)
        write_manifest(self.bundle.path, manifest.model_copy(update={"engines": (*others, entry)}))


def _traits(built: BuildOptions | EngineFile) -> tuple[str, ...]:
    """What sets engines for one target apart, as parts of a file name."""
    traits = (("vc", built.version_compatible), ("hc", built.hardware_compatible))
    return tuple(name for name, has in traits if has)


def _unwritable(path: Path, error: OSError) -> BundleError:
    return BundleError(
        f"cannot be written: {error.strerror}", path=path, remedy="copy the bundle to where you may write"
    )
