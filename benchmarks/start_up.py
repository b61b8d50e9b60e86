"""How long a user waits: from the command to the help, to the first decision, and what the parts of it take.

    python benchmarks/start_up.py                   # five rounds, in turn; kernels and models are cached
    python benchmarks/start_up.py --rounds 9 --json start_up.json

Each is a process of its own. `velora-live` replays the packaged recording as fast as it goes and is timed
until its first line of JSON lies in the file; a decision needs a whole clip, eight pairs of it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ASSETS = Path(__file__).parents[1] / "velora_edge" / "assets"
LIVE = "import sys; sys.argv[0] = 'velora-live'; from velora_cli.main import live; live()"
HELP = "import sys; sys.argv[1:] = ['--help']; from velora_cli.main import velora; velora()"
POLL_S = 0.001


def until_end(code: str) -> float:
    """Seconds of a Python process that runs some code."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def until_decision() -> float:
    """Seconds from the start of velora-live to its first decision in a file."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.jsonl"
        given = ["--events", str(ASSETS / "demo.raw"), "--rgb", str(ASSETS / "demo.mp4"), "--pace", "max"]
        command = [sys.executable, "-c", LIVE, "demo", *given, "--quiet", "--out", str(out)]
        start = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while not out.exists() or not out.stat().st_size:
                if process.poll() is not None:
                    raise SystemExit(f"velora-live ended with {process.returncode} and decided nothing")
                time.sleep(POLL_S)
            seconds = time.perf_counter() - start
            process.terminate()
        return seconds


TASKS = {
    "Python alone": lambda: until_end("pass"),
    "velora --help": lambda: until_end(HELP),
    "import the runtime's session": lambda: until_end("import velora_runtime.app.session"),
    "velora-live demo, to the first decision": until_decision,
}


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write all times to this file")
    given = parser.parse_args()
    taken: dict[str, list[float]] = {name: [] for name in TASKS}
    for number in range(given.rounds + 1):
        for name, task in TASKS.items():
            seconds = task()
            if number:  # the first fills the caches
                taken[name].append(seconds)
    print("| | median s | least | most |\n|---|---|---|---|")
    for name, seconds in taken.items():
        print(f"| {name} | {statistics.median(seconds):.2f} | {min(seconds):.2f} | {max(seconds):.2f} |")
    if given.json:
        given.json.write_text(json.dumps(taken, indent=1) + "\n")


if __name__ == "__main__":
    main()
