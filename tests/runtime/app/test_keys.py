"""Keys on a terminal, which a pair of pseudo-terminals stands in for."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

from velora_runtime.app.run_services import KeyReader

# A session's first terminal is its own, and the session's process is in the foreground there.
IN_A_SESSION = """
import os, sys, termios, threading
from velora_runtime.app.run_services import KeyReader
fd = os.open(sys.argv[1], os.O_RDWR)
before, pressed = termios.tcgetattr(fd), threading.Event()
keys = KeyReader({"r": pressed.set}, fd)
assert keys.is_listening
assert termios.tcgetattr(fd) != before
os.write(fd, b"ready")
assert pressed.wait(20)
keys.close()
keys.close()
assert termios.tcgetattr(fd) == before
"""


def test_a_key_does_what_it_is_for_and_the_terminal_is_left_as_it_was() -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", IN_A_SESSION, os.ttyname(theirs)]
    with subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True) as process:
        said = b""
        while b"ready" not in said:
            said += os.read(ours, 100)
        os.write(ours, b"qr")
        _, told = process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == 0, told


def test_without_a_terminal_nothing_happens() -> None:
    reading, writing = os.pipe()
    keys = KeyReader({"r": lambda: None}, reading)
    assert not keys.is_listening
    keys.close()
    os.close(reading)
    os.close(writing)
