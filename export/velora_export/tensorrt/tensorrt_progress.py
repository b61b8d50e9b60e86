"""How far a TensorRT build is, and how to stop it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.progress import TaskID

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
    """What `work` returns, computed in a thread so that Ctrl-C is heard while TensorRT holds on.

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
