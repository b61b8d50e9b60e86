"""What systemd hears of a run."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from velora_runtime.pipeline.supervisor import ServiceManager, Supervisor
from velora_runtime.report import RunReport

from tests.fakes import write_tiny_bundle
from tests.recordings import write_events
from velora_edge.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Systemd:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(path)
        self._socket.settimeout(60)

    def heard(self) -> str:
        return self._socket.recv(4096).decode()

    def messages(self) -> Iterator[str]:
        self._socket.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                yield self.heard()

    def close(self) -> None:
        self._socket.close()


def test_it_is_told_of_readiness_life_and_the_end(tmp_path: Path) -> None:
    systemd = Systemd(str(tmp_path / "notify"))
    manager = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "30000000"})
    manager.ready()
    for now_us in (0, 14_999_999, 15_000_000, 20_000_000, 30_000_000):
        manager.alive(now_us, f"at {now_us}")
    manager.stopping()
    lives = [f"WATCHDOG=1\nSTATUS=at {now_us}" for now_us in (0, 15_000_000, 30_000_000)]
    assert list(systemd.messages()) == ["READY=1", *lives, "STOPPING=1"]
    systemd.close()


def test_an_abstract_socket_is_found() -> None:
    name = f"velora-test-{os.getpid()}"
    systemd = Systemd(f"\0{name}")
    ServiceManager({"NOTIFY_SOCKET": f"@{name}"}).ready()
    assert list(systemd.messages()) == ["READY=1"]
    systemd.close()


def test_without_systemd_nothing_is_said_and_nothing_fails(tmp_path: Path) -> None:
    ServiceManager({}).ready()
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).ready()


def test_a_run_under_systemd_is_ready_alive_and_ends_on_sigterm(tmp_path: Path) -> None:
    model = write_tiny_bundle(tmp_path / "tiny.velora", clip_length=3).path
    write_events(tmp_path / "e.raw", duration_us=60_000_000, count=60_000)
    systemd = Systemd(str(tmp_path / "notify"))
    code = "import sys; from velora_cli.main import live; sys.argv[0] = 'velora-live'; live()"
    notify = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(model), "--events", str(tmp_path / "e.raw"), "--quiet"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, **notify},
    )
    assert systemd.heard() == "READY=1"
    ready_s = time.monotonic()
    assert [systemd.heard().splitlines()[0] for _ in range(3)] == ["WATCHDOG=1"] * 3
    assert time.monotonic() - ready_s < 30
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert list(systemd.messages())[-1] == "STOPPING=1"
    systemd.close()
    assert process.stderr is not None
    process.stderr.close()


def test_a_stop_is_told_once_also_where_no_turn_comes_after_it(tmp_path: Path) -> None:
    systemd = Systemd(str(tmp_path / "notify"))
    supervisor = Supervisor(
        SystemClock(), service=ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "notify")})
    )
    supervisor.tell_stop()
    supervisor.stop.set()
    supervisor.tell_stop()
    supervisor.poll(RunReport())
    assert list(systemd.messages()) == ["STOPPING=1"]
    systemd.close()
