"""Decisions between pictures (`--provisional`) beside decisions at pictures alone: accuracy, latency, cost.

    python benchmarks/between_pictures.py                      # the demo model, 120 decisions a second
    python benchmarks/between_pictures.py --recordings 8 --hz 60 120 240

Accuracy, at pace max: the demo's recording, and recordings of the twelve actions in random order, rendered
from other seeds, in the demo's scene and in a harder one. At any time: milliseconds of an action in which the
decision that was made last has its label. Settled: decisions a clip or more after an action's start that have
its label. Latency: the demo's recording in real time; from the end of a decision's window of events, by the
clock that the replay keeps, to the sinks.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from velora_runtime.app.session import RunOptions, run_session
from velora_runtime.engines.base import EngineOptions
from velora_runtime.sinks.base import Sink

import velora_edge
from velora_edge.bundle import open_bundle
from velora_edge.data.synthetic.demo_recording import SCENE, render_demo
from velora_edge.data.synthetic.synthetic import LABELS, SceneModel

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from velora_runtime.report import RunReport
    from velora_runtime.sinks.base import Result

    from velora_edge.datatypes import Prediction

ASSETS = Path(velora_edge.__file__).parent / "assets"
HARDER = SceneModel(noise_rate_hz=(8, 8), light_swing=(0.2, 0.2), tilt_deg=30, grain=(24, 0.6))


class Made(NamedTuple):
    """A decision, and when it was there, microseconds."""

    there_us: int
    said: Prediction


class Stamps(Sink):
    """Keeps decisions, each with the time at which it was there."""

    name = "stamps"
    takes_provisional = True

    def __init__(self) -> None:
        self.made: list[Made] = []

    def take(self, result: Result) -> None:
        """Keep the decision, where there is one."""
        if result.prediction is not None:
            self.made.append(Made(time.monotonic_ns() // 1000, result.prediction))

    def write(self, item: object) -> None:
        """Never called."""


def run(
    folder: Path, hz: Fraction | None, given: argparse.Namespace, pace: Any
) -> tuple[list[Made], RunReport]:
    """The decisions on a recording."""
    stamps, engine = Stamps(), EngineOptions(threads=given.threads)
    events, rgb = str(folder / "demo.raw"), str(folder / "demo.mp4")
    options = RunOptions(given.model, events, rgb, pace=pace, outputs=(), provisional_hz=hz, engine=engine)
    report = run_session(options, lambda line: None, sinks=[stamps])
    return stamps.made, report


def render(scene: SceneModel, seeds: Sequence[int], folder: Path) -> Iterator[Path]:
    """Folders with a recording of all actions in random order, one for each seed."""
    for seed in seeds:
        (folder / str(seed)).mkdir()
        render_demo(folder / str(seed), np.random.default_rng(seed).permutation(LABELS).tolist(), seed, scene)
        yield folder / str(seed)


def judge(folder: Path, made: list[Made], clip_us: int) -> tuple[list[bool], list[bool]]:
    """Of each millisecond of an action, and of each settled decision: whether the label is right."""
    times_us = np.array([said.t_us for _, said in made])
    labels = np.array([said.label for _, said in made])
    any_time: list[bool] = []
    settled: list[bool] = []
    for action in json.loads((folder / "demo.json").read_text())["actions"]:
        now_us = np.arange(action["start_us"], action["end_us"], 1000)
        last = np.searchsorted(times_us, now_us, side="right") - 1
        any_time += ((last >= 0) & (labels[last] == action["label"])).tolist()
        inside = (times_us >= action["start_us"] + clip_us) & (times_us < action["end_us"])
        settled += (labels[inside] == action["label"]).tolist()
    return any_time, settled


def print_accuracy(name: str, folders: list[Path], given: argparse.Namespace) -> None:
    """A row for decisions at pictures alone, and one for each rate between them."""
    manifest = open_bundle(given.model).manifest
    clip_us = manifest.clip_length * manifest.stride * manifest.event.window_us
    alone = [run(folder, None, given, "max")[0] for folder in folders]
    for hz in (None, *given.hz):
        any_time: list[bool] = []
        settled: list[bool] = []
        same = pairs = 0
        for folder, at_pairs in zip(folders, alone, strict=True):
            made = at_pairs if hz is None else run(folder, hz, given, "max")[0]
            found = judge(folder, made, clip_us)
            any_time, settled = any_time + found[0], settled + found[1]
            ours = [(said.seq, said.top) for _, said in made if not said.is_provisional]
            same += sum(a == (b.seq, b.top) for a, (_, b) in zip(ours, at_pairs, strict=True))
            pairs += len(at_pairs)
        shares = f"{np.mean(any_time):.2%} | {np.mean(settled):.2%} of {len(settled):,}"
        print(f"| {name} | {hz or 'none'} | {shares} | {same:,} of {pairs:,} |", flush=True)


def print_latency(hz: Fraction | None, given: argparse.Namespace, alone_s: float) -> float:
    """A row for decisions at pictures, and one for those between them; the run's CPU time, seconds."""
    begun_s = time.process_time()
    made, report = run(ASSETS, hz, given, "realtime")
    taken_s = time.process_time() - begun_s
    begun_us = min(there_us - said.t_us - round(1e3 * said.latency_ms["total"]) for there_us, said in made)
    gap_ms = np.percentile(np.diff([there_us for there_us, _ in made]), 99) / 1e3
    left_out = report.provisional.left_out.total()
    for name, is_provisional in (("at", False), ("between", True)):
        chosen = [one for one in made if one.said.is_provisional == is_provisional]
        if not chosen:
            continue
        p50, p99 = np.percentile([(there - said.t_us - begun_us) / 1e3 for there, said in chosen], (50, 99))
        work_ms = np.median([said.latency_ms["encode"] + said.latency_ms["head"] for _, said in chosen])
        more = f"{1e3 * (taken_s - alone_s) / len(chosen):.2f}" if is_provisional else ""
        figures = f"{p50:.2f} | {p99:.2f} | {work_ms:.2f} | {more} | {gap_ms:.1f}"
        print(f"| {hz or 'none'} | {name} | {len(chosen)} | {figures} | {left_out} |", flush=True)
    return taken_s


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--hz", nargs="+", type=Fraction, default=[Fraction(120)])
    parser.add_argument("--recordings", type=int, default=4, help="of each scene")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=["accuracy", "latency"])
    given = parser.parse_args()
    if given.only != "latency":
        print("| recordings | a second between pictures | right at any time | settled | same at pictures |")
        print("|---|---|---|---|---|")
        print_accuracy("demo", [ASSETS], given)
        for name, scene, first in (("demo's scene", SCENE, 7001), ("harder scene", HARDER, 8001)):
            with tempfile.TemporaryDirectory() as folder:
                folders = list(render(scene, range(first, first + given.recordings), Path(folder)))
                print_accuracy(f"{name}, {given.recordings}", folders, given)
    if given.only != "accuracy":
        print("\n| a second between | pictures | decisions | last event to decision, ms: p50 | p99 ", end="")
        print("| towers and head, p50 | CPU ms more for each | to the next, p99 | left out |")
        print("|---|---|---|---|---|---|---|---|---|")
        run(ASSETS, given.hz[0], given, "max")  # loads kernels, which are no decision's
        alone_s = print_latency(None, given, 0.0)
        for hz in given.hz:
            print_latency(hz, given, alone_s)


if __name__ == "__main__":
    main()
