"""Probes of cameras and of the libraries that open them."""

from __future__ import annotations

import importlib
import os
import re
import struct
from pathlib import Path
from typing import Any

from velora_edge.doctor.host import read_text

# USB vendor and product of event cameras: the makers' udev rules.
EVENT_CAMERAS = (
    (r"04b4:00f[345]", "Prophesee", "EVK"),
    (r"31f7:.*", "Prophesee", "CenturyArks SilkyEvCam"),
    (r"1409:8e00", "Prophesee", "IDS uEye EVS"),
    (r"152a:84.*", "iniVation", "DAVIS or DVXplorer"),
)
VIDIOC_QUERYCAP = 0x80685600
"""linux/videodev2.h: _IOR('V', 0, struct v4l2_capability), 104 bytes."""
CAPTURE, DEVICE_CAPS = 0x1 | 0x1000, 0x80000000
"""V4L2_CAP_VIDEO_CAPTURE with V4L2_CAP_VIDEO_CAPTURE_MPLANE; V4L2_CAP_DEVICE_CAPS."""


def cameras(root: Path = Path("/")) -> dict[str, Any]:
    """Video devices that the kernel shows, event cameras on USB, and CSI cameras' daemon."""
    return {
        "video": [_video(node, root) for node in sorted((root / "sys/class/video4linux").glob("video*"))],
        "event": [
            found
            for node in sorted((root / "sys/bus/usb/devices").glob("*"))
            if (found := _event(node, root))
        ],
        "argus": (root / "tmp/argus_socket").exists(),
    }


def _video(node: Path, root: Path) -> dict[str, Any]:
    device = root / "dev" / node.name
    allowed = os.access(device, os.R_OK | os.W_OK)
    return {
        "device": f"/dev/{node.name}",
        "name": read_text(node / "name"),
        "allowed": allowed,
        "captures": _captures(device) if allowed else None,
    }


def _captures(device: Path) -> bool | None:
    """Whether the node gives pictures; a camera has other nodes too, for its metadata."""
    import fcntl

    try:
        descriptor = os.open(device, os.O_RDWR | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        answer = fcntl.ioctl(descriptor, VIDIOC_QUERYCAP, bytes(104))
    except OSError:
        return None
    finally:
        os.close(descriptor)
    whole, of_node = struct.unpack_from("<II", answer, 84)
    return bool((of_node if whole & DEVICE_CAPS else whole) & CAPTURE)


def _event(node: Path, root: Path) -> dict[str, Any] | None:
    identity = f"{read_text(node / 'idVendor')}:{read_text(node / 'idProduct')}"
    for pattern, maker, model in EVENT_CAMERAS:
        if re.fullmatch(pattern, identity):
            place = (read_text(node / "busnum"), read_text(node / "devnum"))
            device = root / "dev/bus/usb" / "/".join(number.zfill(3) for number in place)
            return {
                "maker": maker,
                "name": read_text(node / "product") or model,
                "usb": identity,
                "serial": read_text(node / "serial") or None,
                "speed_mbit": read_text(node / "speed") or None,
                "allowed": os.access(device, os.R_OK | os.W_OK),
            }
    return None


def neuromorphic() -> dict[str, Any]:
    """Whether neuromorphic-drivers can be imported."""
    return _library("neuromorphic_drivers")


def prophesee() -> dict[str, Any]:
    """Whether Metavision's Python modules can be imported."""
    return _library("metavision_hal", "metavision_core")


def inivation() -> dict[str, Any]:
    """Whether dv-processing can be imported."""
    return _library("dv_processing")


def _library(*names: str) -> dict[str, Any]:
    versions = {}
    for name in names:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            return {"usable": False, "reason": f"{error.name} is not installed"}
        versions[name] = str(getattr(module, "__version__", "unknown"))
    return {"usable": True, "versions": versions}


def video() -> dict[str, Any]:
    """PyAV, OpenCV, and whether that OpenCV knows GStreamer: the ones from the index do not."""
    import av
    import cv2

    found = re.search(r"GStreamer:\s*(\S+)", cv2.getBuildInformation())
    return {
        "av": av.__version__,
        "opencv": cv2.__version__,
        "opencv_file": cv2.__file__,
        "gstreamer": bool(found and found[1] == "YES"),
    }
