"""A probe of OpenVINO: its version, and each device that it finds, with what it computes in."""

from __future__ import annotations

from typing import Any


def openvino() -> dict[str, Any]:
    """Version and devices; a device that does not answer tells why."""
    import openvino as ov

    core = ov.Core()
    return {"version": ov.__version__, "devices": [_device(core, name) for name in core.available_devices]}


def _device(core: Any, name: str) -> dict[str, Any]:
    try:
        return {
            "device": name,
            "name": core.get_property(name, "FULL_DEVICE_NAME"),
            "capabilities": sorted(core.get_property(name, "OPTIMIZATION_CAPABILITIES")),
        }
    except RuntimeError as error:
        return {"device": name, "reason": str(error).strip().splitlines()[0]}
