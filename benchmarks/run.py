"""Every benchmark of this folder in one run on one machine, and all tables of results/ from it.

    python benchmarks/run.py                        # all that can run here; nothing else should run meanwhile
    python benchmarks/run.py --quick --out /tmp/r   # every script once, short: no figures to rely on
    python benchmarks/run.py --only events start_up
    python benchmarks/run.py --list                 # what would run, and why something would not
    python benchmarks/run.py --boards               # docs/boards.md from benchmarks/boards/*.json

A file of results holds, of each script, the command, when and how long it ran, how busy the machine was
with other things, and what it printed. No table is edited by hand: what is to be said of a figure stands in
the guides. A GPU has a file of its own, which `make gpu-check` writes.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from velora_runtime.bench.meters import LoadMeter
from velora_runtime.bench.report import boards_page

from velora_edge.doctor.host import python, system
from velora_edge.files import replace_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HERE = Path(__file__).parent
RESULTS, BOARDS, PAGE = HERE / "results", HERE / "boards", HERE.parent / "docs" / "boards.md"
DATA = Path(os.environ.get("VELORA_SHARED", HERE.parents[1] / "shared")) / "data" / "events"
BUSY = 0.1
"""Share of the cores that other programs may use before the table says so."""


@dataclass(frozen=True)
class Job:
    """One script, or command, of a run.

    Attributes:
        name: of the job.
        file: of results that its output goes to.
        command: what is run, `python` first; {work} stands for a folder that is kept during the run.
        quick: the same, short.
        needs: modules that must be installed.
        needs_data: it needs the real recordings.
    """

    name: str
    file: str
    command: str
    quick: str
    needs: tuple[str, ...] = ()
    needs_data: bool = False

    def why_not(self) -> str | None:
        """Why it cannot run here; None where it can."""
        missing = [name for name in self.needs if importlib.util.find_spec(name) is None]
        if missing:
            return f"needs {', '.join(missing)}"
        return f"needs real recordings in {DATA}" if self.needs_data and not DATA.is_dir() else None


ACTIVE_STEP = "python active_step.py {work}/active/vit-ti-fp32.velora {work}/active/vit-ti-active-fp32.velora"
BENCH = "python -m velora_cli.main bench"
MODELS = ("torch", "timm", "onnxruntime", "openvino")
JOBS = (
    Job("events", "events", "python events.py", "python events.py --quick", needs_data=True),
    Job("memory", "events", "python memory.py", "python memory.py --size-mb 50", needs_data=True),
    *(
        Job(
            f"streaming_step {size}",
            "models",
            f"python streaming_step.py --model {name} --rounds 8",
            f"python streaming_step.py --model vit_tiny_patch16_224 --rounds 1 --graphs {{work}}/{size}",
            MODELS,
        )
        for size, name in (
            ("ViT-B", "vit_base_patch16_clip_quickgelu_224.openai"),
            ("ViT-S", "vit_small_patch16_224"),
        )
    ),
    Job(
        "train_step",
        "models",
        "python train_step.py --clips 2 --steps 4",
        "python train_step.py --clips 1 --steps 2",
        ("torch", "timm"),
    ),
    Job(
        "vit_bundles",
        "sizes",
        "python vit_bundles.py {work}/vit",
        "python vit_bundles.py {work}/vit --sizes vit-ti",
        MODELS,
    ),
    Job(
        "sizes",
        "sizes",
        f"{BENCH} {{work}}/vit/*.velora --only parts,roofline --seconds 120",
        f"{BENCH} {{work}}/vit/*.velora --only parts,roofline --quick",
        MODELS,
    ),
    Job(
        "live",
        "live",
        f"{BENCH} demo --only live,power,saturation,sweep",
        f"{BENCH} demo --only live,power --quick",
    ),
    Job("saturation_check", "live", "python saturation_check.py", "python saturation_check.py --step 0.5"),
    Job("start_up", "live", "python start_up.py", "python start_up.py --rounds 1"),
    Job("watching", "live", "python watching.py", "python watching.py --rounds 1", ("starlette", "uvicorn")),
    Job(
        "vit_s_bundle",
        "activity",
        "python vit_bundles.py {work}/still --sizes vit-s",
        "python vit_bundles.py {work}/still --sizes vit-ti",
        MODELS,
    ),
    Job(
        "still_scene",
        "activity",
        "python still_scene.py demo {work}/still/*.velora",
        "python still_scene.py demo --turns 2",
    ),
    Job(
        "between_pictures",
        "activity",
        "python between_pictures.py",
        "python between_pictures.py --recordings 1",
    ),
    Job(
        "shared_base",
        "activity",
        "python shared_base.py --measure vit-s vit-b",
        "python shared_base.py --measure vit-s --rounds 3",
        MODELS,
    ),
    Job(
        "active_patches",
        "activity",
        "python active_patches.py",
        "python active_patches.py --quick",
        needs_data=True,
    ),
    Job(
        "all_patches_bundles",
        "activity",
        "python vit_bundles.py {work}/active --sizes vit-s vit-b --precisions fp32 int8-bf16",
        "python vit_bundles.py {work}/active --sizes vit-ti --precisions fp32",
        MODELS,
    ),
    Job(
        "active_patches_bundles",
        "activity",
        "python vit_bundles.py {work}/active --sizes vit-s vit-b --precisions fp32 int8-bf16 "
        "--active-patches",
        "python vit_bundles.py {work}/active --sizes vit-ti --precisions fp32 --active-patches",
        MODELS,
    ),
    Job(
        "active_step_vit_s",
        "activity",
        "python active_step.py {work}/active/vit-s-fp32.velora {work}/active/vit-s-active-fp32.velora",
        f"{ACTIVE_STEP} --pairs 12",
        MODELS,
        needs_data=True,
    ),
    Job(
        "active_step_vit_b",
        "activity",
        "python active_step.py {work}/active/vit-b-fp32.velora {work}/active/vit-b-active-fp32.velora",
        f"{ACTIVE_STEP} --pairs 8",
        MODELS,
        needs_data=True,
    ),
    Job(
        "active_step_int8",
        "activity",
        "python active_step.py {work}/active/vit-b-int8-bf16.velora "
        "{work}/active/vit-b-active-int8-bf16.velora --backend openvino --published",
        f"{ACTIVE_STEP} --pairs 12 --backend openvino",
        MODELS,
        needs_data=True,
    ),
    Job(
        "data_path",
        "data",
        "python data_path.py --check",
        "python data_path.py --rounds 1 --clips 10 --recordings 2 --steps 1",
        ("torch", "timm"),
    ),
    Job(
        "soak",
        "soak",
        "python soak.py --minutes 10",
        "python soak.py --minutes 0.5 --warm-up 12 --rate 1",
        ("starlette",),
    ),
)
"""In this order; `sizes` takes the bundles of `vit_bundles`, `still_scene` that of `vit_s_bundle`."""


@dataclass(frozen=True)
class Ran:
    """What became of a job.

    Attributes:
        job: the job.
        command: as it was run.
        code: its exit code.
        output: what it printed, standard error left out.
        error: the end of its standard error.
        seconds: that it took.
        others: cores that were busy with other things at its beginning and its end; None where nobody tells.
    """

    job: Job
    command: str
    code: int
    output: str
    error: str
    seconds: float
    others: float | None


def run(job: Job, work: Path, *, quick: bool) -> Ran:
    """Run a job to its end."""
    command = (job.quick if quick else job.command).format(work=work)
    shown = command.replace("python -m velora_cli.main", "velora").replace(str(work), "WORK")
    shell = command.replace("python", shlex.quote(sys.executable), 1)
    if job.needs_data:
        shell += f" --data {shlex.quote(str(DATA))}"
    before = idle_load()
    begun = time.monotonic()
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "COLUMNS": "120"}
    done = subprocess.run(
        shell, shell=True, cwd=HERE, capture_output=True, text=True, env=environment, check=False
    )
    seconds = time.monotonic() - begun
    found = [load for load in (before, idle_load()) if load is not None]
    error = "\n".join(done.stderr.strip().splitlines()[-5:])
    return Ran(job, shown, done.returncode, done.stdout.strip(), error, seconds, max(found, default=None))


def idle_load(seconds: float = 0.5) -> float | None:
    """Cores that are busy while this run does nothing."""
    with LoadMeter({}) as meter:
        begun_ns = time.monotonic_ns()
        time.sleep(seconds)
    return meter.between(begun_ns, time.monotonic_ns()).others


def page(file: str, ran: Sequence[Ran], *, quick: bool) -> str:
    """A file of results."""
    return "\n".join(_page(file, ran, quick=quick)) + "\n"


def _page(file: str, ran: Sequence[Ran], *, quick: bool) -> Iterator[str]:
    host, software = system(), python()
    yield f"# Results: {file}"
    yield ""
    now = f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC"
    yield f"Written by `python benchmarks/run.py`, {now}; not to be edited."
    yield ""
    kernel = f"{host['os']}, kernel {host['kernel']}"
    yield f"{host['cpu']}, {host['cores']} cores, {host['memory_gb']} GB, {kernel}; Python "
    yield f"{software['python']}, " + ", ".join(f"{k} {v}" for k, v in software["packages"].items()) + "."
    if quick:
        yield from ("", "**A quick run: that every script runs, and nothing else, is what it shows.**")
    for one in ran:
        yield from ("", f"## `{one.command}`", "", f"{one.seconds:.0f} s.{_disturbed(one)}", "")
        yield from _output(one)


def _disturbed(one: Ran) -> str:
    cores = os.cpu_count() or 1
    if one.others is not None and one.others > BUSY * cores:
        return f" **Other programs used {one.others:.2f} cores: not to be relied on.**"
    return ""


def _output(one: Ran) -> Iterator[str]:
    """Tables as they are, other lines as a block."""
    if one.code:
        yield from (f"Exit code {one.code}.", "")
    block: list[str] = []
    for line in [*one.output.splitlines(), "|"]:
        if not line.startswith("|"):
            block.append(line)
            continue
        if any(text.strip() for text in block):
            yield from ("```", *block, "```", "")
        block = []
        if line != "|":
            yield line
    if one.code and one.error:
        yield from ("```", one.error, "```")


def tell(text: str) -> None:
    """A line for people."""
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--quick", action="store_true", help="every script once, short")
    parser.add_argument(
        "--only", nargs="+", metavar="JOB", help="these jobs, or all of these files of results"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the tables")
    parser.add_argument("--list", action="store_true", help="tell what would run")
    parser.add_argument("--boards", action="store_true", help="write docs/boards.md and run nothing")
    given = parser.parse_args(arguments)
    if given.boards:
        replace_file(PAGE, boards_page(BOARDS).encode(), mode=0o644)
        return 0
    known = {name for job in JOBS for name in (job.name, job.file)}
    if unknown := set(given.only or ()) - known:
        parser.error(f"--only: expected some of {', '.join(sorted(known))}, got {', '.join(sorted(unknown))}")
    jobs = [job for job in JOBS if not given.only or {job.name, job.file} & set(given.only)]
    if given.list:
        for job in jobs:
            told = job.why_not() or (job.quick if given.quick else job.command)
            print(f"{job.name:<22} {job.file + '.md':<12} {told}")
        return 0
    if given.quick and given.out == RESULTS:
        parser.error("--quick: its figures are not to be relied on; give --out another folder")
    given.out.mkdir(parents=True, exist_ok=True)
    ran: list[Ran] = []
    with tempfile.TemporaryDirectory() as work:
        for job in jobs:
            if reason := job.why_not():
                tell(f"{job.name}: left out, {reason}")
                continue
            tell(f"{job.name} ...")
            with contextlib.suppress(KeyboardInterrupt):
                ran.append(run(job, Path(work), quick=given.quick))
                tell(f"{job.name}: exit code {ran[-1].code}, {ran[-1].seconds:.0f} s")
            # After each, so that an end in between loses nothing.
            of_file = [one for one in ran if one.job.file == job.file]
            if of_file:
                text = page(job.file, of_file, quick=given.quick)
                replace_file(given.out / f"{job.file}.md", text.encode(), mode=0o644)
    return 1 if any(one.code not in (0, 3) for one in ran) else 0


if __name__ == "__main__":
    sys.exit(main())
