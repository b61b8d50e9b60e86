"""Engines of a bundle: their targets, their build, their layers, their parity with ONNX Runtime."""

from __future__ import annotations

import contextlib
import hashlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from velora_edge.bundle import EngineFile, read_manifest, write_manifest
from velora_edge.errors import BundleError, EngineError
from velora_edge.events.accumulate.active_patches import list_lengths
from velora_edge.files import replace_file
from velora_edge.gpu.cuda import Cuda, why_no_cuda
from velora_edge.gpu.engine import EngineLoader
from velora_edge.gpu.kinds import (
    RTX,
    TENSORRT,
    Messages,
    is_same_version,
    plan_header,
    rtx_target_name,
    target_label,
    target_name,
)
from velora_edge.gpu.matching import (
    Machine,
    load_tensorrt,
    model_digest,
    network_name,
    read_engine,
    this_machine,
    why_no_fp8,
    why_not_here,
)
from velora_edge.gpu.signing import sign, why_not_trusted
from velora_edge.ort import checked_copy
from velora_export.tensorrt.tensorrt_builder import PlanBuilder, cache_path
from velora_export.tensorrt.tensorrt_layers import (
    check_dla,
    check_layers,
    judge_layers,
    parse_builder_list,
    parse_inspector,
    read_stated_types,
)
from velora_export.tensorrt.tensorrt_parity import Comparison, ProfileRunner, check_parity

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from velora_edge.bundle import Bundle, Manifest
    from velora_edge.gpu.kinds import Kind
    from velora_edge.manifest import CompiledLayers
    from velora_export.tensorrt.tensorrt_builder import BuildOptions, BuildProgress
    from velora_export.tensorrt.tensorrt_parity import Clips


@dataclass(frozen=True)
class BuildTarget:
    """Target that an engine is built for.

    Attributes:
        kind: the library that builds it.
        version: of that library.
        name: as a part of a file name.
        machine: this machine, where it has a GPU that runs the engine, to compare it with ONNX Runtime.
        cuda: that GPU; closed with the target.
        targets: compute capabilities, for TensorRT for RTX.
    """

    kind: Kind
    version: str
    name: str
    machine: Machine | None
    cuda: Cuda | None = field(default=None, compare=False)
    targets: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.kind is TENSORRT:
            return str(self.machine)
        return f"{self.kind.title} {self.version} for {', '.join(map(target_label, self.targets))}"

    @property
    def gpus(self) -> dict[str, str]:
        """Compute capabilities by the names of the GPUs that are built for."""
        if self.kind is TENSORRT and self.machine is not None:
            return {self.machine.gpu: self.machine.compute_capability}
        return {target_label(capability): capability for capability in self.targets}

    def facts(self) -> dict[str, Any]:
        """The manifest's fields that say what an engine was built for."""
        if self.kind is TENSORRT and self.machine is not None:
            machine = self.machine
            return {"gpu": machine.gpu, "compute_capability": machine.compute_capability}
        return {"kind": self.kind.name, "targets": self.targets}

    def close(self) -> None:
        """Give the GPU's memory back."""
        if self.cuda is not None:
            self.cuda.close()


def this_gpu(device: int = 0) -> BuildTarget:
    """TensorRT on one of this machine's GPUs.

    Raises:
        EngineError: if there is no GPU or no TensorRT.
    """
    reason = why_no_cuda(device)
    if reason is not None:
        raise EngineError(
            f"TensorRT builds engines on the GPU that runs them: {reason}; velora doctor tells more. "
            "velora build --for rtx builds for GeForce and RTX cards without one"
        )
    with contextlib.ExitStack() as undo:
        cuda = Cuda(device)
        undo.callback(cuda.close)
        machine = this_machine(cuda.describe())
        name = target_name(machine.tensorrt, machine.gpu, machine.compute_capability)
        undo.pop_all()
    return BuildTarget(TENSORRT, machine.tensorrt, name, machine, cuda)


def rtx_gpus(targets: Sequence[str], device: int = 0) -> BuildTarget:
    """TensorRT for RTX, for compute capabilities such as "8.9", on any machine.

    Raises:
        MissingExtraError: if it is not installed.
        EngineError: if its libraries cannot be loaded.
    """
    version = str(load_tensorrt(RTX).__version__)
    name, targets = rtx_target_name(version, targets), tuple(targets)
    elsewhere = BuildTarget(RTX, version, name, None, None, targets)
    if why_no_cuda(device) is not None:
        return elsewhere
    with contextlib.ExitStack() as undo:
        cuda = Cuda(device)
        undo.callback(cuda.close)
        machine = this_machine(cuda.describe(), RTX)
        if machine.compute_capability not in targets:
            return elsewhere
        undo.pop_all()
    return BuildTarget(RTX, version, name, machine, cuda, targets)


FOLDER = "engines"


@dataclass(frozen=True, slots=True)
class BuiltEngine:
    """Result of one graph's build.

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
        """Two lines for people: size and parity, then what the layers compute in."""
        entry, parity = self.entry, self.entry.parity
        took = f"built in {self.seconds:.0f} s" if self.is_new else "already there"
        apart = (
            f"{parity['relative']:.1e} from ONNX Runtime's output" if parity else "not run: no such GPU here"
        )
        agreement = parity.get("top1_agreement")
        same = "" if agreement is None else f", same label in {agreement:.0%}"
        layers = "" if entry.compiled is None else f"\n      {entry.compiled.describe()}"
        return f"{entry.graph:5} {took}, {self.size_bytes / 1e6:.1f} MB, {apart}{same}: {entry.file}{layers}"


class BundleBuilder:
    """Builds a bundle's engines for one target.

    Single-threaded. Use as a context manager: CUDA's memory and the log's file are let go at the end.

    Args:
        bundle: whose files were checked; engines go into its folder.
        options: how to build.
        clips: to compare on.
        target: what the engines are for; closed with the builder.

    Attributes:
        target: as given.
        log: the builder's log.

    Raises:
        EngineError: if the GPU that is built for does not know the bundle's precision.
        BundleError: if the bundle cannot be written to.
    """

    def __init__(self, bundle: Bundle, options: BuildOptions, clips: Clips, target: BuildTarget) -> None:
        self.bundle, self.options, self.target = bundle, options, target
        self.log = bundle.path / FOLDER / f"build-{target.name}.log"
        self._exit = contextlib.ExitStack()
        with contextlib.ExitStack() as undo:
            undo.callback(target.close)
            reason = why_no_fp8(
                bundle.manifest.precision, target.gpus, hardware_compatible=options.hardware_compatible
            )
            if reason is not None:
                raise EngineError(reason)
            try:
                self.log.parent.mkdir(exist_ok=True)
                self._messages = Messages(undo.enter_context(self.log.open("w")))
            except OSError as error:
                raise _unwritable(self.log, error) from error
            self._builder = PlanBuilder(
                options,
                self._messages,
                kind=target.kind,
                cuda=target.cuda,
                cache=None if target.kind is RTX else cache_path(target.name),
                targets=target.targets,
            )
            self._loader = (
                None if target.cuda is None else EngineLoader(target.cuda, self._messages, target.kind)
            )
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
            force: build anew, and keep an engine that is too far from ONNX Runtime, or computes in other
                types than its graph states.

        Raises:
            EngineError: if TensorRT cannot, or if an engine is not its graph, or not in its precision.
            KeyboardInterrupt: if the user stopped it.
        """
        for graph in graphs:
            found = None if force else self._find(graph)
            if found is not None:
                self._prefer(found.entry)
            yield found or self._build(graph, progress, force=force)

    def _find(self, graph: str) -> BuiltEngine | None:
        """An engine that is already there, whole, ours and built with the same options."""
        manifest = read_manifest(self.bundle.path)
        for entry in manifest.engines:
            traits = _traits(entry.version_compatible, entry.hardware_compatible, entry.dla_core)
            is_one = self._is_for_target(entry, manifest) and traits == self._traits(graph)
            if entry.graph != graph or not is_one or why_not_trusted(entry) is not None:
                continue
            with contextlib.suppress(EngineError, BundleError):
                return BuiltEngine(entry, 0.0, len(read_engine(self.bundle.path, entry)), is_new=False)
        return None

    def _is_for_target(self, entry: EngineFile, manifest: Manifest) -> bool:
        target = self.target
        if target.kind is not RTX:
            return target.machine is not None and why_not_here(entry, manifest, target.machine) is None
        built, wanted = (entry.kind, entry.targets, entry.model), (RTX.name, target.targets)
        return built == (*wanted, model_digest(manifest, entry.graph)) and is_same_version(
            entry.tensorrt, target.version
        )

    def _build(self, graph: str, progress: BuildProgress, *, force: bool) -> BuiltEngine:
        manifest, target = self.bundle.manifest, self.target
        digest = model_digest(manifest, graph)
        name = network_name(graph, manifest.precision, digest)
        start = time.perf_counter()
        with checked_copy(self.bundle, graph) as path:
            core = self.options.dla_core(graph)
            plan = self._builder.build(
                path, name, manifest.precision, progress, dla_core=core, lengths=_lengths(manifest)
            )
        seconds = time.perf_counter() - start
        parity, listed = self._try(graph, plan, name, force=force)
        compiled = self._read_layers(graph, listed, force=force)
        parts = (graph, target.name, manifest.precision, digest[:12], *self._traits(graph))
        file = Path(FOLDER) / f"{'-'.join(parts)}.engine"
        self._write(self.bundle.path / file, plan)
        entry = EngineFile(
            graph=graph,
            file=file.as_posix(),
            sha256=hashlib.sha256(plan).hexdigest(),
            model=digest,
            precision=manifest.precision,
            tensorrt=plan_header(plan, file)[1],
            **target.facts(),
            version_compatible=self.options.version_compatible,
            hardware_compatible=self.options.hardware_compatible,
            dla_core=core,
            parity=parity,
            compiled=compiled,
        )
        signed = sign(entry)
        self._enter(signed)
        return BuiltEngine(signed, seconds, len(plan), is_new=True)

    def _try(self, graph: str, plan: bytes, name: str, *, force: bool) -> tuple[dict[str, object], str]:
        """Parity of an engine and the inspector's list of its layers; both empty where it cannot run here."""
        if self._loader is None or self.target.cuda is None:
            return {}, ""
        cuda = Cuda(self.target.cuda.device)
        try:
            host_code, core = self.options.version_compatible, self.options.dla_core(graph)
            engine = self._loader.load(plan, name, host_code=host_code, dla_core=core)
            runner = ProfileRunner(cuda, engine)
            try:
                parity = self._comparison.compare(graph, runner)
                listed = engine.describe_layers()
            finally:
                runner.close()
        finally:
            cuda.close()
        if not force:
            check_parity(graph, parity)
        return parity.as_dict(), listed

    def _read_layers(self, graph: str, listed: str, *, force: bool) -> CompiledLayers | None:
        """What the engine's layers compute in: by the builder's own list, else the inspector's."""
        printed = self._messages.take_layers()
        layers = parse_builder_list(printed) or (parse_inspector(listed) if listed else [])
        if self.options.dla_core(graph) is not None and not force:
            check_dla(graph, layers)
        if not layers:
            return None
        compiled = judge_layers(layers, read_stated_types(self.bundle.graph(graph)))
        if not force:
            check_layers(graph, compiled)
        return compiled

    def _write(self, path: Path, plan: bytes) -> None:
        try:
            replace_file(path, plan, mode=0o644)
        except OSError as error:
            raise _unwritable(path, error) from error

    def _traits(self, graph: str) -> tuple[str, ...]:
        asked = self.options
        return _traits(asked.version_compatible, asked.hardware_compatible, asked.dla_core(graph))

    def _prefer(self, entry: EngineFile) -> None:
        """Let an engine that is there be its graph's newest, which is the one that runs."""
        mine = [other for other in read_manifest(self.bundle.path).engines if other.graph == entry.graph]
        if mine[-1].file != entry.file:
            self._enter(entry)

    def _enter(self, entry: EngineFile) -> None:
        """Put the entry into the manifest as it is now, in place of one for the same file."""
        manifest = read_manifest(self.bundle.path)
        others = tuple(other for other in manifest.engines if other.file != entry.file)
        write_manifest(self.bundle.path, manifest.model_copy(update={"engines": (*others, entry)}))


def _lengths(manifest: Manifest) -> tuple[int, ...]:
    """Lengths of lists of patches that engines are built for; none where the model computes all patches."""
    form = manifest.active_patches
    return () if form is None else list_lengths(form.count)


def _traits(version_compatible: bool, hardware_compatible: bool, dla_core: int | None) -> tuple[str, ...]:
    """What sets engines for one target apart, as parts of a file name."""
    traits = (
        ("vc", version_compatible),
        ("hc", hardware_compatible),
        (f"dla{dla_core}", dla_core is not None),
    )
    return tuple(name for name, has in traits if has)


def _unwritable(path: Path, error: OSError) -> BundleError:
    return BundleError(
        f"cannot be written: {error.strerror}", path=path, remedy="copy the bundle to where you may write"
    )
