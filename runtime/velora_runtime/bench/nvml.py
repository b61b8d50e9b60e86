"""NVIDIA's management library, by ctypes: power, clocks, temperature and throttling of one card.

Functions and constants are those of nvml.h; what a card does not support is left out (Orin with JetPack 7 has
the library, and answers little).
"""

from __future__ import annotations

import contextlib
import ctypes
from typing import Any

from velora_runtime.bench.result import Clock

LIBRARY = "libnvidia-ml.so.1"
CLOCKS = {"nvml sm": 1, "nvml memory": 2}
"""NVML_CLOCK_SM and NVML_CLOCK_MEM."""
SLOWED = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}
"""Bits of the reasons for a clock below its highest that are no choice of the user's."""


class Nvml:
    """The first card. Callable from any thread, one at a time.

    Args:
        library: as ctypes loads it.

    Attributes:
        name: of the card.
    """

    def __init__(self, library: Any) -> None:
        self._library = library
        self._card = ctypes.c_void_p()
        self._check(library.nvmlInit_v2())
        self._check(library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(0), ctypes.byref(self._card)))
        text = ctypes.create_string_buffer(96)
        self._check(library.nvmlDeviceGetName(self._card, text, ctypes.c_uint(len(text))))
        self.name = text.value.decode(errors="replace")

    def watts(self) -> float | None:
        """Power of the card now; None where it does not tell."""
        milliwatts = self._ask("nvmlDeviceGetPowerUsage", ctypes.c_uint())
        return None if milliwatts is None else milliwatts / 1e3

    def joules(self) -> float | None:
        """Energy since the driver was loaded; None where it does not tell."""
        millijoules = self._ask("nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong())
        return None if millijoules is None else millijoules / 1e3

    def clocks(self) -> list[Clock]:
        """Present and highest clock of the processors and of the memory."""
        found = []
        for name, kind in CLOCKS.items():
            now = self._ask("nvmlDeviceGetClockInfo", ctypes.c_uint(), ctypes.c_uint(kind))
            highest = self._ask("nvmlDeviceGetMaxClockInfo", ctypes.c_uint(), ctypes.c_uint(kind))
            if now is not None:
                found.append(Clock(name=name, min_mhz=None, now_mhz=now, max_mhz=highest))
        return found

    def temperatures(self) -> dict[str, float]:
        """Of the chip."""
        degrees = self._ask("nvmlDeviceGetTemperature", ctypes.c_uint(), ctypes.c_uint(0))
        return {} if degrees is None else {"nvml gpu": float(degrees)}

    def throttling(self) -> dict[str, int]:
        """1 for each reason that slows the card now."""
        bits = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons", ctypes.c_ulonglong())
        return {f"nvml {name}": int(bool(bits & bit)) for bit, name in SLOWED.items()} if bits is not None else {}

    def close(self) -> None:
        """Let go of the library."""
        self._library.nvmlShutdown()

    def _ask(self, function: str, answer: Any, *given: Any) -> int | None:
        call = getattr(self._library, function, None)
        if call is None or call(self._card, *given, ctypes.byref(answer)) != 0:
            return None
        return int(answer.value)

    def _check(self, code: int) -> None:
        if code != 0:
            raise OSError(f"NVML answered {code}")


def open_nvml(library: str = LIBRARY) -> Nvml | None:
    """The first card, or None where there is no NVIDIA driver or no card."""
    with contextlib.suppress(OSError):
        return Nvml(ctypes.CDLL(library))
    return None
