"""Six minutes on a GPU: every backend side by side, what they compiled, how near they are to fp32, the tests.

    make gpu-check                                            # sets itself up; see the Makefile
    python benchmarks/gpu_check.py --prepare DIR              # before, on any CPU: all that needs no GPU
    python benchmarks/gpu_check.py --graphs DIR --minutes 6   # on the machine with the GPU
    python benchmarks/gpu_check.py --graphs DIR --fake --out /tmp/gpu.md   # up to the first CUDA call

The packaged demo, ViT-S/16 and ViT-B/16 (random weights, the published fusion), in fp32, fp16, bf16, int8 and
fp8, on TensorRT, TensorRT for RTX, ONNX Runtime and, to compare, torch and torch.compile. The most valuable
parts come first; what the time does not allow is told. Each part has a process: one that dies is a row.

Writes `--out` (benchmarks/results/gpu.md), the same as JSON beside it, and, row by row while it runs,
`gpu.jsonl`, from which `--resume` goes on. DIR is trusted: engines in it are run. Without `--graphs` what is
missing is prepared on the spot, in the same time. Without a GPU nothing is written, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpu_plan import CARD, Deadline, Outcome, Part, plan, run_parts
from gpu_prepare import MODELS, PRECISIONS, is_ready, prepare
from gpu_report import merge_rows, table, write

from velora_edge.gpu.cuda import why_no_cuda

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HERE = Path(__file__).parent
ROOT = HERE.parent
RESULT = HERE / "results" / "gpu.md"
MOST_TURNS_S = 9.0
"""In which the backends of a part take turns, where so much is left."""


class Processes:
    """Runs each part in a process of its own.

    Args:
        graphs: the preparation's folder; what is missing is made there.
        log: takes what the processes say on standard error.
        fake: let CUDA itself say that there is no GPU.

    Attributes:
        rate: the card's bf16 rate; 0 until it is known.
    """

    def __init__(self, graphs: Path, log: Path, *, fake: bool = False) -> None:
        self._graphs, self._log, self._fake = graphs, log, fake
        self.rate = 0.0

    def __call__(
        self, part: Part, skipped: Sequence[str], seconds: float
    ) -> Iterator[dict[str, Any] | Outcome]:
        """Messages of the part, then how it ended."""
        deadline = Deadline(seconds)
        if part is not CARD and not is_ready(self._graphs / part.model, [part.precision]):
            words = ("--prepare", self._graphs, "--models", part.model, "--precisions", part.precision)
            code, said = self._wait((HERE / "gpu_check.py", *words, "--no-engines"), deadline.left())
            if code != 0:
                yield Outcome(f"it could not be prepared: {said}")
                return
        yield from self._measure(part, skipped, deadline.left())

    def _measure(
        self, part: Part, skipped: Sequence[str], seconds: float
    ) -> Iterator[dict[str, Any] | Outcome]:
        turns = min(MOST_TURNS_S, seconds / 3)
        words = ("--kind", part.kind, "--model", part.model, "--precision", part.precision)
        figures = ("--seconds", turns, "--rate", self.rate, "--skip", ",".join(skipped))
        command = (HERE / "gpu_part.py", self._graphs, *words, *figures, *(("--fake",) if self._fake else ()))
        at, is_late = "", threading.Event()
        begun = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("a") as log, _start(command, log) as process:
            timer = threading.Timer(max(seconds, 0), lambda: (is_late.set(), process.kill()))
            timer.start()
            for line in process.stdout or ():
                message = _message(line)
                at = str(message.pop("at", at))
                if message:
                    yield message
            code = process.wait()
            timer.cancel()
        if is_late.is_set():
            yield Outcome(f"stopped after {seconds:.0f} s, the most that it was given", at)
        elif code != 0:
            yield Outcome(f"the process ended with {code}: {_last_line(self._log, begun)}", at)

    def _wait(self, command: Sequence[object], seconds: float) -> tuple[int, str]:
        begun = self._log.stat().st_size if self._log.exists() else 0
        try:
            with self._log.open("a") as log:
                given = [sys.executable, *map(str, command)]
                done = subprocess.run(given, stdout=log, stderr=log, timeout=max(seconds, 0), check=False)
        except subprocess.TimeoutExpired:
            return 124, "the time was up; prepare before, with --prepare"
        return done.returncode, _last_line(self._log, begun)


def _start(command: Sequence[object], log: Any) -> subprocess.Popen[str]:
    given = [sys.executable, *map(str, command)]
    return subprocess.Popen(given, stdout=subprocess.PIPE, stderr=log, text=True)


def _message(line: str) -> dict[str, Any]:
    """A line of JSON; nothing where a library has printed something."""
    with contextlib.suppress(ValueError):
        found = json.loads(line)
        if isinstance(found, dict):
            return found
    return {}


def _last_line(log: Path, begun: int) -> str:
    with log.open("rb") as file:
        file.seek(begun)
        lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1].strip()[:300] if lines else "it said nothing"


class Results:
    """Facts and rows as they come, kept in a file line by line.

    Attributes:
        facts: of the card.
        rows: so far.
        done: names of the parts that are done.
    """

    def __init__(self, path: Path, *, resume: bool) -> None:
        self._path = path
        self.facts: dict[str, Any] = {}
        self.rows: list[dict[str, Any]] = []
        self.done: list[str] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        if not resume:
            path.unlink(missing_ok=True)
        for line in path.read_text().splitlines() if path.exists() else ():
            self._take(json.loads(line))

    def add(self, message: dict[str, Any]) -> None:
        """Take a message, and keep it at once."""
        with self._path.open("a") as file:
            file.write(json.dumps(message) + "\n")
        self._take(message)

    def _take(self, message: dict[str, Any]) -> None:
        self.facts.update(message.get("facts", {}))
        self.rows += [message["row"]] if "row" in message else []
        self.done += [message["done"]] if "done" in message else []


def run_tests(seconds: float) -> str:
    """The last line of every test that is marked `gpu`, or why there is none."""
    if seconds < 5:
        return "not reached: the time was up"
    files = [file for file in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in file.read_text()]
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", *map(str, files)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return f"stopped after {seconds:.0f} s"
    lines = (done.stdout.strip() or done.stderr.strip() or "it said nothing").splitlines()
    return lines[-1].strip("= ")


def check(given: argparse.Namespace, graphs: Path) -> None:
    """Run the parts, then the tests, then write and print."""
    deadline = Deadline(given.minutes * 60)
    results = Results(given.out.with_suffix(".jsonl"), resume=given.resume)
    launch = Processes(graphs, given.out.with_suffix(".log"), fake=given.fake)
    launch.rate = results.facts.get("bf16_rate", 0.0)
    for message in run_parts(plan(given.models, given.precisions), launch, deadline, results.done):
        results.add(message)
        launch.rate = results.facts.get("bf16_rate", 0.0)
        _tell(message)
    tests = "left out" if given.fake else run_tests(deadline.left())
    rows = merge_rows(results.rows)
    write(given.out, results.facts, rows, tests, "make gpu-check")
    print(f"\n{table(rows)}\n\npytest -m gpu: {tests}\nwritten to {given.out}")


def _tell(message: dict[str, Any]) -> None:
    if "row" not in message:
        return
    row = message["row"]
    told = row["reason"] if row["p50_ms"] is None else f"{row['p50_ms']:.2f} ms"
    words = (row["model"], row["precision"], row["backend"], row["graph"])
    print(f"{' '.join(word for word in words if word)}: {told}", flush=True)


def main() -> int:
    given = parse_arguments()
    if given.prepare is not None:
        for name in given.models:
            prepare(given.prepare, name, given.precisions, engines=not given.no_engines)
        return 0
    reason = None if given.fake else why_no_cuda()
    if reason is not None:
        print(f"gpu-check needs an NVIDIA GPU: {reason}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as temporary:
        check(given, given.graphs or Path(temporary))
    return 0


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = {"type": lambda text: text.split(",")}
    parser.add_argument("--prepare", type=Path, metavar="DIR", help="make all that needs no GPU, and stop")
    parser.add_argument("--no-engines", action="store_true", help="prepare no engines of TensorRT for RTX")
    parser.add_argument("--graphs", type=Path, metavar="DIR", help="what --prepare made")
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--models", default=list(MODELS), help=",".join(MODELS), **names)
    parser.add_argument("--precisions", default=list(PRECISIONS), help=",".join(PRECISIONS), **names)
    parser.add_argument("--out", type=Path, help=f"the page to write; {RESULT.relative_to(ROOT)}")
    parser.add_argument("--resume", action="store_true", help="go on where the last run stopped")
    parser.add_argument("--fake", action="store_true", help="go on without a GPU; needs --out")
    given = parser.parse_args(words)
    if given.fake and given.out is None:
        parser.error("--fake needs --out: figures of a card are not to be overwritten")
    given.out = given.out or RESULT
    return given


if __name__ == "__main__":
    sys.exit(main())
