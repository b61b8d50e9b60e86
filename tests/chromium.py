"""A headless Chromium, driven by its DevTools protocol over a pair of pipes; needs no library."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe"),
)


def find_chromium() -> str:
    """The browser's path; skips the test where there is none."""
    for name in PROGRAMS:
        if found := shutil.which(name):
            return found
    return pytest.skip(f"needs a browser: one of {', '.join(PROGRAMS)} (Debian: apt-get install chromium)")


@contextlib.contextmanager
def page_of(verb: str, *args: object) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of the page to `verb` at, of a command in a process of its own, which SIGINT ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "velora_cli.main", *map(str, args)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
    )
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if found := re.search(rf"{verb} at (http://\S+)", line):
            break
    else:
        raise AssertionError(f"it ended before it served: {said}")
    try:
        yield found[1], process
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


class Chromium:
    """One browser with one page.

    Args:
        folder: for its profile; new.
        size: width and height of the page, pixels.
    """

    def __init__(self, folder: Path, size: tuple[int, int] = (1440, 900)) -> None:
        program = find_chromium()
        read_theirs, self._write = os.pipe()
        self._read, write_theirs = os.pipe()
        # Chromium reads from descriptor 3 and writes to 4.
        shell = f'exec "$0" "$@" 3<&{read_theirs} 4>&{write_theirs}'
        options = (*OPTIONS, f"--user-data-dir={folder}", f"--window-size={size[0]},{size[1]}")
        self._process = subprocess.Popen(
            ["bash", "-c", shell, program, *options, "about:blank"],
            pass_fds=(read_theirs, write_theirs),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_theirs)
        os.close(write_theirs)
        self._number, self._buffer, self._session = 0, b"", ""
        try:
            target = self.call("Target.createTarget", url="about:blank")
            attached = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
            self._session = attached["sessionId"]
            width, height = size
            metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
            self.call("Emulation.setDeviceMetricsOverride", **metrics)
        except BaseException:
            self.close()
            raise

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Have the browser do something; return its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return dict(answer["result"])

    def open(self, url: str) -> None:
        """Go to a page."""
        self.call("Page.navigate", url=url)

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, script: str, what: str, seconds: float = 30) -> Any:
        """The expression's value, once it is true and raises no error any more."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if value := self.evaluate(f"(() => {{ try {{ return {script} }} catch {{ return null }} }})()"):
                return value
            time.sleep(0.05)
        raise AssertionError(f"{what} did not come to be within {seconds} s")

    def save_screenshot(self, path: Path) -> None:
        """The page as a PNG."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self) -> None:
        """End the browser."""
        self._process.terminate()
        self._process.wait(20)
        os.close(self._read)
        os.close(self._write)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            data = os.read(self._read, 1 << 16)
            assert data, "the browser has ended"
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(message))
