"""What recording and watching cost the recognition: the packaged demo in real time, alone and beside both.

Run it on a machine that does nothing else:
    python benchmarks/watching.py [--rounds 3]

Four viewers take all pictures, four more never read; the recording goes to a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

ASSETS = Path(__file__).parents[1] / "velora_edge" / "assets"
LIVE = "import sys; from velora_cli.main import live; sys.argv[0] = 'velora-live'; live()"
CASES = ("alone", "recorded", "watched", "recorded and watched")


def watch(port: int, *, reads: bool) -> socket.socket:
    """A viewer of the RGB pictures."""
    viewer = socket.create_connection(("127.0.0.1", port))
    viewer.sendall(b"GET /frames/rgb.mjpeg HTTP/1.1\r\nHost: localhost\r\n\r\n")

    def read_all() -> None:
        try:
            while viewer.recv(1 << 16):
                pass
        except OSError:
            pass

    if reads:
        threading.Thread(target=read_all, daemon=True).start()
    return viewer


def run(case: str, folder: Path) -> dict[str, float]:
    """One run; milliseconds and counts of its summary."""
    summary = folder / "summary.json"
    options = ["--events", str(ASSETS / "demo.raw"), "--rgb", str(ASSETS / "demo.mp4"), "--quiet"]
    options += ["--threads", "2", "--summary", str(summary), "--recordings", str(folder)]
    if "recorded" in case:
        options += ["--record", str(folder / "recording")]
    if "watched" in case:
        options += ["--serve", "127.0.0.1:0"]
    command = [sys.executable, "-c", LIVE, "demo", *options]
    viewers: list[socket.socket] = []
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.search(r"watch at http://127.0.0.1:(\d+)", line):
                viewers = [watch(int(found[1]), reads=k < 4) for k in range(8)]
    for viewer in viewers:
        viewer.close()
    said = json.loads(summary.read_text())
    total, pack = said["latency_ms"]["total"], said["latency_ms"]["pack"]
    return {
        "total p50": total["p50"],
        "total p99": total["p99"],
        "pack p50": pack["p50"],
        "dropped": said["dropped"]["pairs"] + said["dropped"]["rgb"],
        "lost": sum(sum(r["dropped"].values()) for r in said.get("recordings", [])),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    found: dict[str, list[dict[str, float]]] = {case: [] for case in CASES}
    for _ in range(rounds):
        for case in CASES:
            with tempfile.TemporaryDirectory() as folder:
                found[case].append(run(case, Path(folder)))
    print("| medians, ms | " + " | ".join(found["alone"][0]) + " |")
    print("|---" * (1 + len(found["alone"][0])) + "|")
    for case, runs in found.items():
        values = (statistics.median(one[key] for one in runs) for key in runs[0])
        print(f"| {case} | " + " | ".join(f"{value:.2f}" for value in values) + " |")


if __name__ == "__main__":
    main()
