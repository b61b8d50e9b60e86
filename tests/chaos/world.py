"""What a live run depends on and what can fail: cameras behind gateways, a broker, a small disk, the page."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from tests.peers import ROOT, free_port

if TYPE_CHECKING:
    from pathlib import Path

USER, PASSWORD = "chaos", "hunter2"
DISK_MB = 64
TOKEN = "t0ken-of-the-chaos-run"


class Camera:
    """One camera as a process; it may be killed, and comes back at another port.

    Args:
        kind: `events` or `pictures`.
        rate_hz: events a second.
    """

    def __init__(self, kind: str, rate_hz: float) -> None:
        self.kind, self._rate_hz = kind, rate_hz
        self.port: int | None = None
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it, and wait until it listens."""
        assets = ROOT / "velora_edge" / "assets"
        command = [sys.executable, "-m", "velora_runtime.bench.cameras", "--events", assets / "demo.raw"]
        command += ["--video", assets / "demo.mp4", "--rate", self._rate_hz, "--fps", 30, "--size", "320x240"]
        self._process = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.port = int(json.loads(self._process.stdout.readline())[self.kind])

    def kill(self) -> None:
        """End it without a goodbye."""
        process, self._process, self.port = self._process, None, None
        if process is not None:
            process.kill()
            process.communicate()


class Gateway:
    """A port that does not change, in front of a camera; it can also do what a bad network does.

    Attributes:
        mode: `pass` bytes on, `cut` every connection after 50 ms, say nothing (`silent`), or give one byte
            after the other (`drip`).
        spoil: bytes to put into the stream once, whatever stands there.
    """

    def __init__(self, camera: Camera) -> None:
        self.mode, self.spoil = "pass", b""
        self._camera = camera
        self._server = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._server.getsockname()[1]
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def drop(self) -> None:
        """Cut all connections."""
        for connection in tuple(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            client, _ = self._server.accept()
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self._open.add(client)
        try:
            with client, contextlib.suppress(OSError):
                if self.mode == "silent":
                    time.sleep(20)
                elif self.mode == "drip":
                    self._drip(client)
                elif self._camera.port is not None:
                    self._relay(client, self._camera.port)
        finally:
            self._open.discard(client)

    def _relay(self, client: socket.socket, port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), 5) as camera:
            if self._camera.kind == "pictures":
                camera.sendall(client.recv(1 << 16))
            began_s, mode = time.monotonic(), self.mode
            while data := camera.recv(1 << 16):
                spoil, self.spoil = self.spoil, b""
                client.sendall(spoil + data)
                if mode == "cut" and time.monotonic() - began_s > 0.05:
                    return
                if self.mode == "silent":
                    time.sleep(20)
                    return

    def _drip(self, client: socket.socket) -> None:
        for _ in range(200):
            client.sendall(b"% x")
            time.sleep(0.1)


class Broker:
    """A mosquitto that asks for a password; none where it is not installed."""

    def __init__(self, folder: Path) -> None:
        places = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"
        self._program = shutil.which("mosquitto", path=places)
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        if self._program is None:
            return
        passwords, self._config = folder / "passwords", folder / "mosquitto.conf"
        subprocess.run(["mosquitto_passwd", "-b", "-c", passwords, USER, PASSWORD], check=True)
        self._config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous false\npassword_file {passwords}\nuser root\n"
        )

    @property
    def is_there(self) -> bool:
        """There is a broker on this machine."""
        return self._program is not None

    @property
    def address(self) -> str:
        """Of a topic, with the password."""
        return f"mqtt://{USER}:{PASSWORD}@127.0.0.1:{self.port}/chaos"

    def start(self) -> None:
        """Start it."""
        if self._program is not None:
            self._process = subprocess.Popen([self._program, "-c", self._config], stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        """End it without a goodbye."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class Disk:
    """A small disk that can be filled: a tmpfs, where this process may mount one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "disk"
        self.folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(self.folder)]
        self.is_small = subprocess.run(mount, capture_output=True, check=False).returncode == 0

    def fill(self) -> None:
        """Leave no room."""
        if self.is_small:
            with contextlib.suppress(OSError), (self.folder / "ballast").open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(1 << 16))

    def empty(self) -> None:
        """Take away what filled it."""
        (self.folder / "ballast").unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount it."""
        if self.is_small:
            subprocess.run(["umount", "-l", str(self.folder)], check=False)


class Page:
    """The page of the run, as whoever watches it."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
        """Status and answer; 0 where there is none."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, headers={"Authorization": f"Bearer {TOKEN}", **headers})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except OSError:
            return 0, b""
        finally:
            connection.close()

    def order(self, path: str) -> dict[str, Any]:
        """Have the recorder do something."""
        status, body = self.ask(path, "POST")
        return json.loads(body) if status in (200, 409) else {"error": f"status {status}"}

    def flood(self, seconds: float) -> list[str]:
        """Silent connections, viewers who never read, garbage, strangers; what was wrong with the answers."""
        opened = [self._open(b"") for _ in range(300)]
        opened += [
            self._open(f"GET /frames/rgb.mjpeg?token={TOKEN} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            for _ in range(40)
        ]
        opened += [self._open(os.urandom(2000)) for _ in range(20)]
        wrong = []
        for path, headers, wanted in (
            ("/api/snapshot", {"Authorization": "Bearer wrong"}, 401),
            ("/healthz", {"Host": "evil.example"}, 403),
            ("/../../etc/passwd", {}, 404),
        ):
            status, body = self.ask(path, **headers)
            if status != wanted or body.count(b"\n") > 1:
                wrong.append(f"{path} with {headers}: {status} {body[:100]!r}")
        time.sleep(seconds)
        for connection in opened:
            if connection is not None:
                connection.close()
        return wrong

    def _open(self, data: bytes) -> socket.socket | None:
        with contextlib.suppress(OSError):
            connection = socket.create_connection(("127.0.0.1", self.port), 0.2)
            if data:
                connection.sendall(data)
            return connection
        return None


def stop_for(pid: int, seconds: float) -> None:
    """Stop a process for some time, as a laptop's lid or a debugger does."""
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        os.kill(pid, signal.SIGCONT)
