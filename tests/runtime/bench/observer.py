"""Somebody else with a watch: stands between the event camera and the runtime, and reads its decisions.

    python observer.py CAMERA_PORT DECISIONS.jsonl RESULT.json

A process of its own. It forwards the camera's bytes and takes the time at which each block of events passed;
it follows the file of decisions and takes the time at which each line came. It knows no benchmark.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
import time
from pathlib import Path

import numpy as np

BLOCK_US, TIME_HIGH = 4096, 8


class Proxy:
    """Forwards a camera to one client after the other; keeps how late each block passed, at the earliest."""

    def __init__(self, camera: int) -> None:
        self._camera = camera
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.zero_ns: int | None = None
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            client, _ = self._server.accept()
            camera = socket.create_connection(("127.0.0.1", self._camera))
            with client, camera, contextlib.suppress(OSError):  # the client leaves when it has seen enough
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.zero_ns, self._block, rest, in_header = None, -1, b"", True
                while data := camera.recv(1 << 16):
                    now_ns = time.monotonic_ns()
                    client.sendall(data)
                    rest += data
                    if in_header:
                        end = rest.find(b"% end\n")
                        if end < 0:
                            continue
                        rest, in_header = rest[end + len(b"% end\n") :], False
                    even = len(rest) // 2 * 2
                    self._look(np.frombuffer(rest[:even], "<u2"), now_ns)
                    rest = rest[even:]

    def _look(self, words: np.ndarray, now_ns: int) -> None:
        """A block has passed whole once the next one's time word has; what came before it is that old."""
        for low in (words[words >> 12 == TIME_HIGH] & 0xFFF).tolist():
            if self._block >= 0 and low == self._block & 0xFFF:
                continue
            self._block = low if self._block < 0 else self._block + ((low - self._block) & 0xFFF)
            # The block whose word this is leaves at its end: its last events are as old as its end.
            zero_ns = now_ns - (self._block + 1) * BLOCK_US * 1000
            self.zero_ns = zero_ns if self.zero_ns is None else min(self.zero_ns, zero_ns)


def follow(path: Path, rows: list[tuple[int, int]], stop: threading.Event) -> None:
    """Times of lines as they come: (monotonic ns, the decision's t_us)."""
    while not path.exists() and not stop.is_set():
        time.sleep(0.001)
    with path.open("rb", buffering=0) as file:
        rest = b""
        while not stop.is_set():
            data = file.read(1 << 16)
            if not data:
                time.sleep(0.0005)
                continue
            now_ns = time.monotonic_ns()
            *lines, rest = (rest + data).split(b"\n")
            rows.extend((now_ns, json.loads(line)["t_us"]) for line in lines)


def main() -> None:
    proxy, rows, stop = Proxy(int(sys.argv[1])), [], threading.Event()
    thread = threading.Thread(target=follow, args=(Path(sys.argv[2]), rows, stop))
    thread.start()
    print(proxy.port, flush=True)
    sys.stdin.read()
    stop.set()
    thread.join()
    Path(sys.argv[3]).write_text(json.dumps({"zero_ns": proxy.zero_ns, "rows": rows}))


if __name__ == "__main__":
    main()
