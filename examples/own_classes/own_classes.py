"""From nothing to live recognition of four classes of your own, with rendered cameras in the place of yours.

python examples/own_classes/own_classes.py              # 25 minutes on 2 busy cores; extras cpu and train
python examples/own_classes/own_classes.py --quick      # the same steps, too short for a good model

Each step prints the command that you would type. What a step has made is kept in --work and not made again,
so that the script goes on where it was ended. docs/tutorials/own-classes.md tells it to a person.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scenes import HELD_OUT, LABELS, SIDE_PX, TRAINED, Place, render

from velora_edge.events.writers import open_writer

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
VELORA = [sys.executable, "-m", "velora_cli.main"]
FIRST_HELD_OUT = 100
"""Seed of the first place that is held out."""
LEAST_RIGHT = 0.9


@dataclass(frozen=True)
class Plan:
    """How much is recorded and trained.

    Attributes:
        trained: places to train at.
        held_out: places to judge at.
        seconds: of a take.
        settings: of the training, beside those that `velora init` chose.
    """

    trained: int
    held_out: int
    seconds: float
    settings: tuple[str, ...]


SETTINGS = (
    "model.clip_length=4",  # these motions are told in less than a second
    "data.augment.flip=true",
    "data.augment.rotate_deg=30",
    "data.augment.shift=0.1",
    "data.augment.brightness=0.2",
    "train.lr=1e-3",
)
FULL = Plan(12, 3, 4.0, (*SETTINGS, "train.epochs=70"))
QUICK = Plan(2, 1, 2.0, (*SETTINGS, "train.epochs=2", "train.choose=last", "data.split.val=0"))


@dataclass(frozen=True)
class Session:
    """One class at one place."""

    part: str
    place: int
    label: str

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.part}-{self.place}-{self.label}"

    @property
    def seed(self) -> int:
        """Of its motion and noise."""
        return 1000 * self.place + LABELS.index(self.label)


def sessions_of(plan: Plan) -> list[Session]:
    """All sessions, place by place."""
    places = [("train", seed) for seed in range(plan.trained)]
    places += [("test", FIRST_HELD_OUT + seed) for seed in range(plan.held_out)]
    return [Session(part, seed, label) for part, seed in places for label in LABELS]


class Work:
    """Folder of the results, and the seconds that each step took, kept for a script that is started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / "steps.json"
        self.steps: dict[str, float] = json.loads(self._file.read_text()) if self._file.is_file() else {}

    @contextmanager
    def step(self, name: str) -> Iterator[bool]:
        """Time a step; gives whether it still has to be done."""
        begin = time.monotonic()
        print(f"\n== {name}" + (": done before" if name in self.steps else ""), flush=True)
        yield name not in self.steps
        self.steps.setdefault(name, time.monotonic() - begin)
        self._file.write_text(json.dumps(self.steps, indent=1))

    def path(self, name: str) -> str:
        """Of one of the results."""
        return str(self.folder / name)


def velora(*arguments: str, quiet: bool = False) -> None:
    """Run a command as a person would; `quiet` leaves out what it prints."""
    print(f"$ velora {shlex.join(arguments)}", flush=True)
    stdout = subprocess.DEVNULL if quiet else None
    code = subprocess.run([*VELORA, *arguments], stdout=stdout, check=False).returncode
    if code:
        sys.exit(f"velora {arguments[0]} ended with {code}")


def draw(session: Session, folder: Path) -> None:
    """Render a session's scene to `NAME.raw` and `NAME.npz`."""
    target = folder / f"{session.name}.npz"
    if target.is_file():  # it is written last
        return
    place = Place(session.place, TRAINED if session.part == "train" else HELD_OUT)
    pictures, events = render(place, session.label, session.seed)
    with open_writer(folder / f"{session.name}.raw", width=SIDE_PX, height=SIDE_PX) as writer:
        writer.write(events)
    np.savez(target, pictures=pictures, events=len(events))


@contextmanager
def cameras_of(session: Session, scenes: Path) -> Iterator[list[str]]:
    """Both cameras before a session's scene; gives the options that name them."""
    files = [str(scenes / f"{session.name}.{ending}") for ending in ("raw", "npz")]
    command = [sys.executable, str(HERE / "cameras.py"), *files]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        line = child.stdout.readline()
        if not line:
            sys.exit(f"{session.name}: the cameras did not start")
        addresses = json.loads(line)
        try:
            yield ["--events", addresses["events"], "--rgb", addresses["rgb"]]
        finally:
            child.communicate()


def record(session: Session, work: Work, seconds: float) -> None:
    """Record one take of a session; its folder is named by the time."""
    label = work.folder / "set" / session.part / session.label
    marks = work.folder / "recorded"
    if (marks / session.name).exists():
        return
    options = ["--label", session.label, "--takes", "1", "--seconds", f"{seconds:g}", "--countdown", "1"]
    with cameras_of(session, work.folder / "scenes") as cameras:
        arguments = ["record", str(label.parent), *options, *cameras]
        done = subprocess.run(
            [*VELORA, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    if done.returncode:
        sys.exit(f"{session.name}: {done.stderr}")
    print(f"$ velora {shlex.join(arguments)}", flush=True)
    marks.mkdir(exist_ok=True)
    (marks / session.name).touch()


def count_drops(folder: Path) -> int:
    """What the recordings say that they lost."""
    facts = [json.loads(file.read_text()) for file in folder.glob("*/*/*/recording.json")]
    return sum(sum(one.get("dropped", {}).values()) for one in facts)


def recognise_live(session: Session, work: Work, seconds: float) -> tuple[int, int]:
    """Right predictions and all of them, while both cameras look at a place that is held out."""
    out = work.path(f"live-{session.name}.jsonl")
    with cameras_of(session, work.folder / "scenes") as cameras:
        outputs = ["--out", out, "--quiet", "--duration", f"{seconds:g}"]
        velora("live", work.path("own.velora"), *cameras, *outputs, quiet=True)
    return count_right(out, session.label)


def count_right(file: str, label: str) -> tuple[int, int]:
    """Predictions of a file that are `label`, and all of them."""
    told = [json.loads(line)["label"] for line in Path(file).read_text().splitlines()]
    return told.count(label), len(told)


def replay(recording: Path, work: Work) -> tuple[int, int]:
    """Right predictions and all of them of a recording that was held out."""
    label, out = recording.parent.name, work.path(f"replay-{recording.parent.name}-{recording.name}.jsonl")
    velora(
        "live", work.path("own.velora"), str(recording), "--pace", "max", "--quiet", "--out", out, quiet=True
    )
    return count_right(out, label)


def make_recordings(plan: Plan, work: Work) -> None:
    """Scenes, and their recordings."""
    sessions, scenes = sessions_of(plan), work.folder / "scenes"
    with work.step("render the scenes") as is_due:
        if is_due:
            scenes.mkdir(exist_ok=True)
            with ProcessPoolExecutor(os.cpu_count()) as processes:
                list(processes.map(draw, sessions, [scenes] * len(sessions)))
    with work.step("record, two sessions at a time") as is_due, ThreadPoolExecutor(2) as pool:
        if is_due:
            list(pool.map(lambda session: record(session, work, plan.seconds), sessions))
            print(f"dropped while recording: {count_drops(work.folder / 'set')}")
    with work.step("check the set") as is_due:
        if is_due:
            velora("dataset", "check", work.path("set"))


def make_model(plan: Plan, work: Work) -> None:
    """Configuration, training, evaluation, bundle."""
    recordings, config, tower = work.path("set"), work.path("own.yaml"), work.path("tower.safetensors")
    with work.step("write a configuration") as is_due:
        if is_due:
            velora("weights", "demo", tower, "--overwrite")
            velora("init", recordings, config, "--weights", tower, "--for", "cpu", "--overwrite")
    with work.step("train") as is_due:
        if is_due:
            folder = f"run.folder={work.path('runs')}"
            velora("train", config, folder, *plan.settings, "--overwrite")
    run, report = work.path("runs/own"), work.path("eval.json")
    with work.step("evaluate all windows") as is_due:
        if is_due:
            velora(
                "eval",
                run,
                "--data",
                recordings,
                "--windows",
                "--ablate",
                "--decide",
                "default",
                "--json",
                report,
            )
    with work.step("export") as is_due:
        if is_due:
            velora("export", f"{run}/best", work.path("own.velora"), "--overwrite")


def judge(plan: Plan, work: Work) -> dict[str, Any]:
    """Shares of right windows: by `velora eval`, of recordings that are replayed, and before live cameras."""
    recordings = sorted((work.folder / "set" / "test").glob("*/*/"))
    with work.step("replay what was held out") as is_due:
        if is_due:
            counts = np.array([replay(recording, work) for recording in recordings]).sum(axis=0)
            (work.folder / "replay.json").write_text(json.dumps(counts.tolist()))
    with work.step("recognise live, one place that was held out") as is_due:
        if is_due:
            sessions = [one for one in sessions_of(plan) if one.place == FIRST_HELD_OUT]
            counts = np.array([recognise_live(one, work, plan.seconds + 3) for one in sessions]).sum(axis=0)
            (work.folder / "live.json").write_text(json.dumps(counts.tolist()))
    right = {name: json.loads((work.folder / f"{name}.json").read_text()) for name in ("replay", "live")}
    found = json.loads((work.folder / "eval.json").read_text())
    alone = {mode: figures["top1"] for mode, figures in found["ablation"].items()}
    return {"eval": found, "alone": alone, **{name: hits / count for name, (hits, count) in right.items()}}


def show(work: Work, figures: dict[str, Any]) -> None:
    """Print what each step took, and what came of it."""
    table = Table("step", "seconds")
    for name, seconds in work.steps.items():
        table.add_row(name, f"{seconds:.0f}")
    table.add_row("all", f"{sum(work.steps.values()):.0f}")
    interval, alone = figures["eval"]["top1_interval"], figures["alone"]
    ends = f"{interval['low']:.1%} to {interval['high']:.1%}, {interval['method']}"
    results = Table("windows of places that were held out", "right")
    results.add_row("velora eval, both cameras", f"{alone['both']:.1%} ({ends})")
    results.add_row("velora eval, pictures alone", f"{alone['rgb']:.1%}")
    results.add_row("velora eval, events alone", f"{alone['event']:.1%}")
    results.add_row("velora-live, recordings", f"{figures['replay']:.1%}")
    results.add_row("velora-live, cameras", f"{figures['live']:.1%}")
    for one in (table, results):
        Console().print(one)


def require(figures: dict[str, Any]) -> None:
    """End with an error if the model is not what the tutorial says."""
    alone = figures["alone"]
    problems = [
        f"{name}: {figures[name]:.1%} of the windows are right, expected {LEAST_RIGHT:.0%}"
        for name in ("replay", "live")
        if figures[name] < LEAST_RIGHT
    ]
    problems += [
        f"both cameras are right in {alone['both']:.1%}, {mode} alone in {alone[mode]:.1%}"
        for mode in ("rgb", "event")
        if alone["both"] <= alone[mode]
    ]
    if problems:
        sys.exit("\n".join(problems))


def main() -> None:
    """Run all steps."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, help="where all results go (default: runs/own_classes[_quick])")
    parser.add_argument(
        "--quick", action="store_true", help="a few short takes, two epochs, no figure required"
    )
    given = parser.parse_args()
    plan = QUICK if given.quick else FULL
    work = Work(given.work or Path("runs", "own_classes_quick" if given.quick else "own_classes"))
    make_recordings(plan, work)
    make_model(plan, work)
    figures = judge(plan, work)
    show(work, figures)
    if not given.quick:
        require(figures)


if __name__ == "__main__":
    main()
