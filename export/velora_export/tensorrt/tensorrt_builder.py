"""Builder of an engine from an ONNX graph: one code path for TensorRT 10.3 to 11 and TensorRT for RTX.

Networks are strongly typed: every tensor has the type that the ONNX graph gives it, which is all that
TensorRT 11 offers and what keeps a precision what it says it is. So nothing here chooses a precision.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from velora_edge.errors import EngineError
from velora_edge.events.accumulate.active_patches import PATCHES
from velora_edge.files import cache_home, replace_file
from velora_edge.gpu.kinds import RTX, TENSORRT, Messages, create_logger, target_label, version_numbers
from velora_edge.gpu.matching import load_tensorrt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rich.progress import TaskID

    from velora_edge.gpu.cuda import Cuda
    from velora_edge.gpu.kinds import Kind


Result = TypeVar("Result")


class BuildProgress:
    """The phases that TensorRT is in, one bar each on standard error; drawn on a terminal only.

    Callable from any thread: TensorRT reports from several. Use as a context manager.

    Attributes:
        is_cancelled: the build has been asked to stop; TensorRT does so at the end of its present step.
    """

    def __init__(self) -> None:
        self.is_cancelled = False
        self._lock = threading.Lock()
        self._bars: dict[str, TaskID] = {}
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)

    def __enter__(self) -> BuildProgress:
        if self._progress.console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress.console.is_terminal:
            self._progress.stop()

    def start(self, phase: str, parent: str | None, steps: int) -> None:
        """A phase begins."""
        with self._lock:
            indent = "  " if parent else ""
            self._bars[phase] = self._progress.add_task(f"{indent}{phase}", total=steps)

    def step(self, phase: str, step: int) -> bool:
        """A phase's step is done; whether TensorRT is to go on."""
        with self._lock:
            if phase in self._bars:
                self._progress.update(self._bars[phase], completed=step + 1)
            return not self.is_cancelled

    def finish(self, phase: str) -> None:
        """A phase is over."""
        with self._lock:
            if phase in self._bars:
                self._progress.remove_task(self._bars.pop(phase))

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)


def create_monitor(trt: Any, progress: BuildProgress) -> Any:
    """A tensorrt.IProgressMonitor that reports to `progress`."""

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            progress.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return progress.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            progress.finish(phase_name)

    return Monitor()


def run_cancellable(work: Callable[[], Result], progress: BuildProgress) -> Result:
    """Return what `work` returns, computed in a thread so that Ctrl-C works while TensorRT builds.

    Python runs signal handlers in the main thread between two of its own instructions: inside a call into
    TensorRT that is never. After Ctrl-C the build is asked to stop and waited for; a second one gives up.

    Raises:
        KeyboardInterrupt: once the work has stopped.
    """
    results: list[Result] = []
    errors: list[BaseException] = []
    is_over = threading.Event()

    def target() -> None:
        try:
            results.append(work())
        except BaseException as error:  # handed to the caller below
            errors.append(error)
        finally:
            is_over.set()

    try:
        threading.Thread(target=target, name="tensorrt-build", daemon=True).start()
        _wait(is_over)
    except KeyboardInterrupt:
        progress.is_cancelled = True
        progress.say("stopping at the end of this step ...")
        _wait(is_over)
        raise
    if errors:
        raise errors[0]
    return results[0]


def _wait(is_over: threading.Event) -> None:
    # Not Thread.join: up to Python 3.12 one that Ctrl-C interrupts takes the thread for finished.
    while not is_over.wait(0.1):
        pass


MEGABYTE = 1 << 20
LOW_MEMORY_BYTES = 512 * MEGABYTE


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """Options of a build.

    Attributes:
        low_memory: for a device that shares little memory with its CPU: one builder thread, small pools, less
            search; the clip's engine is left out.
        version_compatible: engines that newer TensorRT versions of the same major version run too.
        hardware_compatible: engines that other GPUs from Ampere on run too; not on a Jetson.
        workspace_bytes: the most that a layer may use while it runs; None: by what is free.
        dla: the tower that a Deep Learning Accelerator of the board is to run, and that one's number.
    """

    low_memory: bool = False
    version_compatible: bool = False
    hardware_compatible: bool = False
    workspace_bytes: int | None = None
    dla: tuple[str, int] | None = None

    def dla_core(self, graph: str) -> int | None:
        """The accelerator that a graph is built for; None: the GPU."""
        return self.dla[1] if self.dla is not None and self.dla[0] == graph else None


DLA_SINCE = (11, 4, 1)
"""The first TensorRT that builds strongly typed networks for a DLA; 10.x takes weakly typed ones only."""
DLA_PRECISIONS = ("fp16", "int8")


def why_no_dla(kind: Kind, version: str, precision: str, cores: int, core: int) -> str | None:
    """Why a Deep Learning Accelerator cannot be built for here, for people; None if it can.

    Args:
        kind: the library.
        version: of it.
        precision: of the graph.
        cores: how many accelerators the library sees.
        core: the one asked for.
    """
    if kind is RTX or version_numbers(version) < DLA_SINCE:
        needed = "TensorRT 11.4.1 or later, on AGX Orin with JetPack 7.2.2"
        return f"a DLA needs {needed}, this is {kind.title} {version}"
    if core >= cores:
        return f"there is no DLA {core}: this board has {cores}; AGX Orin has two, Orin Nano and Thor none"
    if precision not in DLA_PRECISIONS:
        return f"a DLA computes in fp16 or int8, and the graphs are {precision}: export with --precision fp16"
    return None


class PlanBuilder:
    """Builds engines: on the thread's CUDA device, or, of TensorRT for RTX, on any machine for named GPUs.

    Single-threaded, but for TensorRT's own threads.

    Args:
        options: how to build.
        messages: where TensorRT's messages go.
        kind: TensorRT, or TensorRT for RTX.
        cuda: the device; its being there is what makes touching TensorRT's builder safe. None: no device is
            touched, as TensorRT for RTX builds.
        cache: the timing cache's file, made when missing; None: nothing is timed.
        targets: the compute capabilities to build for, by TensorRT for RTX.
    """

    def __init__(
        self,
        options: BuildOptions,
        messages: Messages,
        *,
        kind: Kind = TENSORRT,
        cuda: Cuda | None = None,
        cache: Path | None = None,
        targets: Sequence[str] = (),
    ) -> None:
        self._options, self._messages, self._kind = options, messages, kind
        self._cuda, self._cache, self._targets = cuda, cache, targets
        self._trt = load_tensorrt(kind)
        self._logger = create_logger(self._trt, messages)

    def build(
        self,
        onnx: Path,
        name: str,
        precision: str,
        progress: BuildProgress,
        *,
        dla_core: int | None = None,
        lengths: Sequence[int] = (),
    ) -> bytes:
        """The engine of a graph, batch 1.

        Args:
            onnx: the graph; its weights lie beside it.
            name: what the engine will be called; at most 128 characters.
            precision: of the graph; fp32 means that TensorRT does not shorten factors to TF32.
            progress: told of every step; its `is_cancelled` stops the build.
            dla_core: the Deep Learning Accelerator to build for; what it cannot compute goes to the GPU, and
                the caller judges what that is.
            lengths: of a list of patches, a profile each, where the graph takes one.

        Raises:
            EngineError: with TensorRT's own words, if it cannot.
            KeyboardInterrupt: if the user stopped it.
        """
        return run_cancellable(
            lambda: self._build(onnx, name, precision, progress, dla_core, lengths), progress
        )

    def _build(
        self,
        onnx: Path,
        name: str,
        precision: str,
        progress: BuildProgress,
        dla_core: int | None,
        lengths: Sequence[int],
    ) -> bytes:
        trt = self._trt
        if self._cuda is not None:
            self._cuda.use()
        self._messages.add("INFO", f"velora: building {name!r} from {onnx}")
        builder = trt.Builder(self._logger)
        if builder is None:
            raise EngineError(f"no builder of {self._kind.title} can be created{self._messages.explain()}")
        if self._options.low_memory:
            builder.max_threads = 1
        if dla_core is not None:
            reason = why_no_dla(self._kind, str(trt.__version__), precision, builder.num_DLA_cores, dla_core)
            if reason is not None:
                raise EngineError(reason)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = self._parse(network, onnx, for_dla=dla_core is not None)
        network.name = name
        config = builder.create_builder_config()
        monitor = create_monitor(trt, progress)
        config.progress_monitor = monitor
        self._configure(config, precision)
        if dla_core is not None:
            self._set_dla(config, dla_core)
        self._add_profiles(builder, network, config, lengths)
        cache = None if self._cache is None else self._read_cache(config, self._cache)
        plan = builder.build_serialized_network(network, config)
        del parser  # it owns the weights that the network refers to
        if plan is None:
            if progress.is_cancelled:
                raise KeyboardInterrupt
            raise EngineError(f"{self._kind.title} cannot build {onnx.name}{self._messages.explain()}")
        if self._cache is not None:
            self._write_cache(cache, self._cache)
        return bytes(plan)

    def _parse(self, network: Any, onnx: Path, *, for_dla: bool) -> Any:
        parser = self._trt.OnnxParser(network, self._logger)
        if for_dla:
            parser.set_flag(self._trt.OnnxParserFlag.ADJUST_FOR_DLA)
        if parser.parse_from_file(str(onnx)):
            return parser
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        words = "; ".join(f"{error.node_operator()}: {_first_lines(error.desc())}" for error in errors)
        raise EngineError(
            f"{self._kind.title} {self._trt.__version__} cannot read {onnx.name}"
            f"{f': {words}' if words else self._messages.explain()}"
        )

    def _configure(self, config: Any, precision: str) -> None:
        trt, options = self._trt, self._options
        workspace = options.workspace_bytes or self._workspace_bytes()
        if workspace:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # so that compiled layers can be read
        if self._targets:
            self._set_targets(config)
        if options.low_memory:
            config.set_memory_pool_limit(trt.MemoryPoolType.TACTIC_DRAM, max(workspace, LOW_MEMORY_BYTES))
            config.builder_optimization_level = 2
        if precision == "fp32":
            config.clear_flag(trt.BuilderFlag.TF32)
        if options.version_compatible:
            config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        if options.hardware_compatible:
            config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS

    def _set_dla(self, config: Any, core: int) -> None:
        """Build for a DLA. Falling back is allowed: it takes no uint8, so the first cast is the GPU's."""
        trt = self._trt
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = core
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)

    def _set_targets(self, config: Any) -> None:
        config.num_compute_capabilities = len(self._targets)
        for index, target in enumerate(self._targets):
            member = getattr(self._trt.ComputeCapability, target_label(target).upper())
            config.set_compute_capability(member, index)

    def _workspace_bytes(self) -> int:
        """Half of what is free; on a low-memory device a quarter, and at most 512 MB; 0 without a device."""
        if self._cuda is None:
            return 0
        free = self._cuda.free_bytes()
        return min(free // 4, LOW_MEMORY_BYTES) if self._options.low_memory else free // 2

    def _add_profiles(self, builder: Any, network: Any, config: Any, lengths: Sequence[int]) -> None:
        """Fix the batch axis, the first of every input, to 1, and a list of patches to each of `lengths`."""
        tensors = [network.get_input(index) for index in range(network.num_inputs)]
        takes_list = any(tensor.name == PATCHES for tensor in tensors)
        for length in lengths if takes_list else (0,):
            profile = builder.create_optimization_profile()
            for tensor in tensors:
                shape = (1, length) if tensor.name == PATCHES else (1, *tuple(tensor.shape)[1:])
                if min(shape) < 1:
                    problem = f"expected only the batch of {tensor.name} to be open, got {tensor.shape}"
                    raise EngineError(problem)
                profile.set_shape(tensor.name, shape, shape, shape)
            config.add_optimization_profile(profile)

    def _read_cache(self, config: Any, path: Path) -> Any:
        """The timing cache, attached; an empty one where the file is of another GPU or damaged."""
        with contextlib.suppress(OSError):
            cache = config.create_timing_cache(path.read_bytes())
            if cache is not None and config.set_timing_cache(cache, False):
                return cache
            self._messages.add("WARNING", f"velora: the timing cache {path} is of no use here")
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
        return cache

    def _write_cache(self, cache: Any, path: Path) -> None:
        """Keep what was timed; a cache that cannot be written costs time at the next build, nothing else."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, bytes(cache.serialize()))
        except OSError as error:
            self._messages.add("WARNING", f"velora: the timing cache was not kept: {error}")


def _first_lines(words: str, most: int = 2) -> str:
    """What the parser says of a node, then why, in one line; its log has the rest."""
    return ": ".join(line.strip() for line in words.splitlines()[:most])


def cache_path(target: str) -> Path:
    """Return the path of a target's timing cache: under `$XDG_CACHE_HOME/velora`."""
    return cache_home() / "velora" / "tensorrt" / f"timing-{target}.cache"
