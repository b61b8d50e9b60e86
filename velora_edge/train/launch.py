"""Starting a run's processes: torch's launcher for several on a host, or over several hosts."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from velora_edge.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Launch:
    """Processes of a run.

    Attributes:
        processes: on this host; None: one for each GPU, or one.
        hosts: how many take part.
        host: this one's number, from 0; host 0 is the main one.
        main: the main host's address and a free port there, HOST:PORT; needed where there are several hosts.
    """

    processes: int | None = None
    hosts: int = 1
    host: int = 0
    main: str | None = None

    def check(self) -> None:
        """Raise InputError if the numbers do not go together."""
        address, _, port = (self.main or "").rpartition(":")
        if self.hosts > 1 and not (address and port.isdigit()):
            raise InputError(
                "several hosts need to know where to meet",
                place="--main",
                remedy="give every host the same --main HOST:PORT, the address of host 0",
            )
        if not 0 <= self.host < self.hosts:
            raise InputError(f"expected 0 to {self.hosts - 1}, got {self.host}", place="--host")


def is_launched() -> bool:
    """Whether this process was started by a launcher (ours, torchrun, accelerate launch)."""
    return "LOCAL_RANK" in os.environ


def count_processes(launch: Launch, *, on_cpu: bool) -> int:
    """How many processes this host is to start."""
    if launch.processes is not None:
        return launch.processes
    import torch

    return 1 if on_cpu else max(1, torch.cuda.device_count())


def start(launch: Launch, processes: int, worker: str, arguments: Sequence[str]) -> int:
    """Start the processes and wait for them; returns the exit code.

    Args:
        launch: where they run.
        processes: how many, on this host.
        worker: the module that each of them runs (`python -m`).
        arguments: the command's own.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    if launch.hosts > 1:
        command += ["--nnodes", str(launch.hosts), "--node-rank", str(launch.host)]
        address, _, port = (launch.main or "").rpartition(":")
        command += ["--master-addr", address, "--master-port", port]
    else:
        command += ["--standalone"]
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    environment = {"OMP_NUM_THREADS": threads, **os.environ}
    return subprocess.run([*command, "-m", worker, *arguments], env=environment, check=False).returncode
