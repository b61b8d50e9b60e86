"""Workers of an archive: processes of this machine, or a Ray cluster; and the report that they fill.

A recording that ends its worker (a crash in a library, the kernel's memory killer) costs a line of the
report; another worker takes its place.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import logging
import multiprocessing
import os
import signal
import socket
from collections import deque
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from velora_edge.errors import EngineError, MissingExtraError, VeloraError
from velora_runtime.app.archive import ArchivedRecording, ArchivePredictor
from velora_runtime.app.parts import Outcome, Report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from multiprocessing.connection import Connection

    from velora_runtime.app.archive import ArchivePlan


@dataclass(slots=True)
class ArchiveCounts:
    """What became of an archive.

    Attributes:
        done: recordings that were predicted.
        kept: whose parts were there already.
        failed: which the report tells of.
        rows: that were written.
    """

    done: int = 0
    kept: int = 0
    failed: int = 0
    rows: int = 0


def predict_archive(
    plan: ArchivePlan,
    recordings: Sequence[ArchivedRecording],
    work: Callable[[Sequence[ArchivedRecording]], Iterable[Outcome]],
    advance: Callable[[Outcome], None],
) -> ArchiveCounts:
    """Predict what has no part yet, and keep the report.

    Args:
        plan: the same for all.
        recordings: the archive's.
        work: predicts recordings, in any order; an outcome for each.
        advance: called for each recording, those that need no work first.

    Raises:
        InputError: if the folder cannot be written to.
        EngineError: if no worker can run the model.
    """
    counts = ArchiveCounts()
    with Report(plan.folder, plan.about) as report:
        todo = []
        for recording in recordings:
            known = report.known.get(recording.name)
            if known is not None and _is_unchanged(recording, known):
                counts.kept += 1
                advance(replace(known, state="kept"))
            else:
                todo.append(recording)
        for outcome in work(todo) if todo else ():
            report.add(outcome)
            counts.done += outcome.state == "done"
            counts.kept += outcome.state == "kept"
            counts.failed += outcome.state == "failed"
            counts.rows += (outcome.rows or 0) if outcome.state == "done" else 0
            advance(outcome)
    return counts


def _is_unchanged(recording: ArchivedRecording, known: Outcome) -> bool:
    try:
        return recording.stamp() == known.stamp
    except OSError:
        return False


_SPAWN = multiprocessing.get_context("spawn")
"""A fork would copy locks that threads of ours hold, and no CUDA context survives one."""


ENDING_S = 10.0
"""What a worker without work may take to end."""


class _Worker:
    """A process with an engine of its own. Single-threaded: the main thread.

    Args:
        plan: what it does.
        gpu: the GPU that it sees alone, as CUDA counts them; None: what this process sees.
    """

    def __init__(self, plan: ArchivePlan, gpu: str | None) -> None:
        self.gpu = gpu
        self.recording: ArchivedRecording | None = None
        self.connection, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_work, args=(plan, theirs, gpu), daemon=True)
        self._process.start()
        theirs.close()

    def give(self, recording: ArchivedRecording) -> None:
        """Let it predict; what it says is at `connection` some time later."""
        self.recording = recording
        with contextlib.suppress(OSError):  # it is dead: `take` tells
            self.connection.send(recording)

    def take(self) -> Outcome | None:
        """What it says; None where it has only begun.

        Raises:
            EngineError: if it cannot run the model.
        """
        try:
            said = self.connection.recv()
        except (EOFError, OSError):
            return self._ended()
        if isinstance(said, str):
            raise EngineError(said)
        return said if isinstance(said, Outcome) else None

    @property
    def has_ended(self) -> bool:
        """Whether it must be replaced."""
        return self._process.exitcode is not None

    def end(self, patience_s: float) -> None:
        """End it: without work at once, else after `patience_s` in the middle of it, which leaves no part."""
        self.connection.close()
        self._process.join(patience_s)
        if not self.has_ended:
            self._process.terminate()
            self._process.join(patience_s)
        if not self.has_ended:
            self._process.kill()
            self._process.join()

    def _ended(self) -> Outcome:
        self._process.join()
        code = self._process.exitcode or 0
        why = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        if self.recording is None:
            raise EngineError(f"a worker ended before its first recording: {why}")
        return Outcome(self.recording.name, "failed", error=f"its worker ended: {why}")


def _work(plan: ArchivePlan, connection: Connection, gpu: str | None) -> None:
    """A worker's life: open the engine, then a recording at a time, until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which ends this one
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    with contextlib.suppress(EOFError, OSError):  # the main process is gone
        try:
            predictor = ArchivePredictor(plan)
        except VeloraError as error:
            connection.send(str(error))
            return
        connection.send(None)
        while True:
            connection.send(predictor.predict(connection.recv()))


def predict_on_processes(
    plan: ArchivePlan, recordings: Sequence[ArchivedRecording], workers: int, gpus: Sequence[str] = ()
) -> Iterator[Outcome]:
    """Predict on processes of this machine; outcomes in the order in which they come.

    Args:
        plan: what they do.
        recordings: to predict.
        workers: how many processes; no more than there are recordings.
        gpus: GPUs that they share out among themselves, as CUDA counts them; empty: all see all.

    Raises:
        EngineError: if a worker cannot run the model.
    """
    waiting = deque(recordings)
    shares = itertools.cycle(gpus) if gpus else itertools.repeat(None)
    pool = [_Worker(plan, next(shares)) for _ in range(min(workers, len(recordings)))]
    try:
        while pool:
            for ready in wait([worker.connection for worker in pool]):
                worker = next(one for one in pool if one.connection is ready)
                outcome = worker.take()
                if outcome is not None:
                    yield outcome
                if not waiting:
                    pool.remove(worker)
                    worker.end(ENDING_S)
                    continue
                if worker.has_ended:
                    pool[pool.index(worker)] = worker = _Worker(plan, worker.gpu)
                else:
                    worker.give(waiting.popleft())
    finally:
        for worker in pool:
            worker.end(0.5)


def list_gpus() -> list[str]:
    """NVIDIA GPUs of this machine, as `CUDA_VISIBLE_DEVICES` names them; their driver is not loaded."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in visible.split(",") if name]
    cards = Path("/proc/driver/nvidia/gpus")
    return [str(number) for number, _ in enumerate(cards.iterdir())] if cards.is_dir() else []


def predict_on_ray(
    plan: ArchivePlan, recordings: Sequence[ArchivedRecording], address: str, workers: int | None = None
) -> Iterator[Outcome]:
    """Predict on a Ray cluster, by actors of Ray Data; outcomes in the order in which they come.

    Archive, model and output lie where all nodes have them, at the same paths.

    Args:
        plan: what the actors do.
        recordings: to predict.
        address: of the cluster: auto, or HOST:PORT.
        workers: actors; None: one for each GPU, or without any for each processor.

    Raises:
        MissingExtraError: if Ray is not installed.
        EngineError: if the cluster is not there.
    """
    ray = _connect(address)
    _forget_tries(plan.folder)
    try:
        missing = {recording.name: recording for recording in recordings}
        data = _distribute(ray, plan, recordings, workers)
        for row in data.iter_rows():
            outcome = Outcome.from_json(row["outcome"])
            if missing.pop(outcome.recording, None) is not None:
                yield outcome
        for name in missing:
            yield Outcome(name, "failed", error="its worker ended, and Ray gave it to no other")
    finally:
        ray.shutdown()
        _forget_tries(plan.folder)


def _connect(address: str) -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtraError(error.name or "ray", "ray", "--ray") from error
    host, colon, port = address.rpartition(":")
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        if colon and port.isdigit() and "//" not in host:
            socket.create_connection((host, int(port)), CONNECT_S).close()  # Ray would try for minutes
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise EngineError(
            f"no Ray cluster at {address}: {reason}; start one with ray start --head"
        ) from error
    return ray


CONNECT_S = 5.0
MOST_BLOCKS = 2000
"""Of Ray Data: what is given to an actor at once, and given again where it dies."""
MOST_TRIES = 2
"""Ray gives the work of an actor that ended to another one, without end: no recording is tried more often."""
_TRIES = ".tries-"


def _forget_tries(folder: Path) -> None:
    for tries in folder.glob(f"{_TRIES}*"):
        tries.unlink(missing_ok=True)


def _distribute(
    ray: Any, plan: ArchivePlan, recordings: Sequence[ArchivedRecording], workers: int | None
) -> Any:
    """A data set of outcomes, computed as it is read."""
    has = ray.cluster_resources()
    gpus = 0.0 if plan.options.engine.device == "cpu" else has.get("GPU", 0.0)
    cpus_each = max(1, plan.options.engine.threads)
    count = workers or int(gpus) or max(1, int(has.get("CPU", 1)) // cpus_each)
    count = min(count, len(recordings))
    context = ray.data.DataContext.get_current()
    context.max_errored_blocks = -1
    context.enable_progress_bars = False
    items = [{"recording": json.dumps(asdict(recording))} for recording in recordings]
    return ray.data.from_items(items, override_num_blocks=min(len(items), MOST_BLOCKS)).map(
        _RayPredictor,
        fn_constructor_args=(plan,),
        compute=ray.data.ActorPoolStrategy(size=count),
        num_cpus=cpus_each,
        num_gpus=min(1.0, gpus / count) or None,
    )


class _RayPredictor:
    """An actor's state: the plan's predictor, called with a row and giving one."""

    def __init__(self, plan: ArchivePlan) -> None:
        self._folder, self._predictor = plan.folder, ArchivePredictor(plan)

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        """Predict the row's recording, unless it has ended two actors."""
        recording = ArchivedRecording(**json.loads(row["recording"]))
        tries = self._folder / f"{_TRIES}{hashlib.sha256(recording.name.encode()).hexdigest()[:16]}"
        with tries.open("ab") as file:
            file.write(b".")
            count = file.tell()
        if count > MOST_TRIES:
            outcome = Outcome(recording.name, "failed", error=f"it ended its worker, {MOST_TRIES} times")
        else:
            outcome = self._predictor.predict(recording)
        tries.unlink(missing_ok=True)
        return {"outcome": outcome.to_json()}
