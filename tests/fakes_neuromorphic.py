"""A stand-in for the compiled part of neuromorphic-drivers 0.18.2, below the package's own Python code.

The package itself is imported anew on top of it: its configurations, their bytes, its status and packet types
and its `open` are the real ones. As there, `__next__` joins the packets that wait, its status tells how many
are left and how old the first is, errors of USB are a RuntimeError, and closed devices refuse everything.
"""

from __future__ import annotations

import importlib
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PACKAGE = "neuromorphic_drivers"
EXTENSION = f"{PACKAGE}.{PACKAGE}"
EPOCH_S = 1_700_000_000.0
"""What the package's wall clock says where ours says 0."""


@dataclass
class LinkPacket:
    """What comes over the link at once.

    Attributes:
        data: raw words, or one of the package's packets where it decodes.
        due_s: when it comes, on the camera's clock.
        reached_us: time of the camera that a decoded packet reaches.
        lost: packets that the package let go of before it, as its ring was full.
    """

    data: Any
    due_s: float = 0.0
    reached_us: int = 0
    lost: int = 0


@dataclass
class FakeCamera:
    """What is plugged in, and what was set on it.

    `packets` may hold errors, which are raised; `begin` may set them and the clock when it is opened. `more`
    gives the next ones when all have come, none at the end. `stops`: when the host stops for 1 s. `given`:
    how many packets each read was given.
    """

    name: str = "Prophesee EVK4"
    serial: str = "00051234"
    packets: list[LinkPacket | Exception] = field(default_factory=list)
    connection: str = "USB 3.0 SuperSpeed (5.0 Gb/s)"
    error: str | None = None
    bounds: tuple[int, int] = (-85, 140)
    is_there: bool = True
    now_s: Callable[[], float] = lambda: 0.0
    begin: Callable[[FakeCamera], None] = lambda camera: None
    more: Callable[[], list[LinkPacket]] = list
    stops: list[float] = field(default_factory=list)
    opened: list[dict[str, Any]] = field(default_factory=list)
    given: list[int] = field(default_factory=list)
    closed: int = 0

    def arrived(self) -> int:
        """Packets that wait."""
        now_s, n = self.now_s(), 0
        while not self.packets or getattr(self.packets[-1], "due_s", now_s) <= now_s:
            if not (more := self.more()):
                break
            self.packets += more
        for packet in self.packets:
            if isinstance(packet, LinkPacket) and packet.due_s > now_s:
                break
            n += 1
        return n


@contextmanager
def plug_in(*cameras: FakeCamera, has_usb: bool = True) -> Iterator[Any]:
    """The package as it is with these cameras attached."""
    kept = {name: sys.modules.pop(name) for name in _modules()}
    sys.modules[EXTENSION] = _make_extension(cameras, has_usb=has_usb)
    try:
        yield importlib.import_module(PACKAGE)
    finally:
        for name in _modules():
            del sys.modules[name]
        sys.modules.update(kept)


def _modules() -> list[str]:
    return [name for name in sys.modules if name.partition(".")[0] == PACKAGE]


def _make_extension(cameras: tuple[FakeCamera, ...], *, has_usb: bool) -> ModuleType:
    extension: Any = ModuleType(EXTENSION)

    def list_devices() -> list[tuple[str, str, str, str | None, str | None]]:
        if not has_usb:
            raise RuntimeError("Other error")
        return [
            (one.name, one.connection, "", None if one.error else one.serial, one.error)
            for one in cameras
            if one.is_there
        ]

    class Device(ExtensionDevice):
        attached = cameras

    extension.Device, extension.list_devices = Device, list_devices
    return extension


class ExtensionDevice:
    """The compiled class; its methods have the same names and arguments."""

    attached: tuple[FakeCamera, ...] = ()

    def __new__(
        cls,
        raw: bool,
        iterator_maximum_raw_packets: int,
        device_type: str | None,
        configuration: bytes | None,
        serial: str | None,
        address: str | None,
        ring_configuration: bytes | None,
        iterator_timeout: float | None,
    ) -> Any:
        found = [one for one in cls.attached if one.is_there and serial in (None, one.serial)]
        if not found:
            raise RuntimeError(f'serial "{serial}" not found' if serial else "no device found")
        self = super().__new__(cls)
        self.camera, self._raw, self._most = found[0], raw, iterator_maximum_raw_packets
        self._timeout_s, self._is_open, self._dropped = iterator_timeout, True, 0
        self.camera.opened.append({"type": device_type, "configuration": configuration, "raw": raw})
        self.camera.begin(self.camera)
        return self

    def __enter__(self) -> Any:
        return self

    def __exit__(self, _exception_type: Any, _value: Any, _traceback: Any) -> None:
        self.camera.closed += self._is_open
        self._is_open = False

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        self._check("__next__")
        self._await()
        if self.camera.stops and self.camera.now_s() >= self.camera.stops[0]:
            self.camera.stops.pop(0)
            threading.Event().wait(1.0)
        now_s = self.camera.now_s()
        waiting = self.camera.arrived()
        taken = self._take(min(waiting, (self._most or sys.maxsize) if self._raw else 1))
        if not taken:
            return EPOCH_S + now_s, None, None
        self._dropped += sum(one.lost for one in taken)
        at_s, backlog = EPOCH_S + taken[0].due_s, waiting - len(taken)
        ring = at_s, backlog, len(taken), bool(taken[-1].lost)
        if not self._raw:
            return EPOCH_S + now_s, (*ring, [], taken[0].reached_us, self._dropped), taken[0].data
        places, n = [], 0
        for one in taken:
            places += [n] if one.lost else []
            n += len(one.data)
        data = b"".join(one.data for one in taken)
        return EPOCH_S + now_s, (*ring, places, None, self._dropped), data

    def address(self) -> str | None:
        return None

    def backlog(self) -> int:
        self._check("backlog")
        return self.camera.arrived()

    def biases_bounds(self) -> bytes:
        nd = sys.modules[PACKAGE]
        kind = getattr(nd, nd.Name(self.camera.name).name.lower()).BiasesBounds
        bound = type(next(iter(vars(kind()).values())))
        return bytes(
            nd.serde.bincode.serialize(kind(**dict.fromkeys(vars(kind()), bound(*self.camera.bounds))), kind)
        )

    def clear_backlog(self, until: int) -> None:
        self._check("__next__")
        waiting = self.camera.arrived()
        self._take(min(waiting, max(1, waiting - until + 1)))

    def connection(self) -> str:
        return self.camera.connection

    def illuminance(self) -> int:
        return 100

    def imu_type(self) -> None:
        return None

    def name(self) -> str:
        self._check("name")
        return self.camera.name

    def orientation(self) -> Any:
        return None

    def overflow(self) -> bool:
        return bool(self._dropped)

    def serial(self) -> str:
        self._check("serial")
        return self.camera.serial

    def temperature_celsius(self) -> float:
        return 40.0

    def update_configuration(self, device_type: str, configuration: bytes) -> None:
        self._check("update_configuration")

    def _check(self, method: str) -> None:
        if not self._is_open:
            raise RuntimeError(f"{method} called after __exit__")
        if not self.camera.is_there:
            raise RuntimeError("Usb(Rusb(NoDevice))")

    def _await(self) -> None:
        """Wait for a packet, or for as long as was asked for."""
        waiting = [one for one in self.camera.packets[:1] if isinstance(one, LinkPacket)]
        if waiting and self._timeout_s is not None:
            left_s = min(waiting[0].due_s - self.camera.now_s(), self._timeout_s)
            if left_s > 0:
                threading.Event().wait(left_s)

    def _take(self, n: int) -> list[LinkPacket]:
        """The next packets, of those that wait; an error only where it is the first."""
        packets = self.camera.packets
        taken: list[LinkPacket] = []
        for packet in packets[:n]:
            if isinstance(packet, Exception):
                if not taken:
                    del packets[0]
                    raise packet
                break
            taken.append(packet)
        del packets[: len(taken)]
        self.camera.given.append(len(taken))
        return taken
