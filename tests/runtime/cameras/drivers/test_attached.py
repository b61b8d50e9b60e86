"""What `velora cameras` finds and says."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest
from velora_runtime.cameras.drivers import inivation, prophesee
from velora_runtime.cameras.drivers import registry as attached
from velora_runtime.cameras.drivers.inivation import list_inivation
from velora_runtime.cameras.drivers.prophesee import INSTALL_PAGE
from velora_runtime.cameras.drivers.registry import Attached, list_attached

from tests.fakes_metavision import FakeCamera, make_hal
from velora_cli.main import velora
from velora_edge.console import run
from velora_edge.errors import install_line

if TYPE_CHECKING:
    from pathlib import Path

USB = {
    "sys/bus/usb/devices/2-1/idVendor": "04b4",
    "sys/bus/usb/devices/2-1/idProduct": "00f5",
    "sys/bus/usb/devices/2-1/product": "EVK4",
    "sys/bus/usb/devices/2-1/serial": "00051234",
    "sys/bus/usb/devices/2-1/busnum": "2",
    "sys/bus/usb/devices/2-1/devnum": "7",
    "dev/bus/usb/002/007": "",
    "sys/bus/usb/devices/1-4/idVendor": "152a",
    "sys/bus/usb/devices/1-4/idProduct": "841d",
}
PICTURES = {
    "sys/class/video4linux/video0/name": "HD Webcam",
    "dev/video0": "",
    "sys/class/video4linux/video2/name": "Capture card",
    "tmp/argus_socket": "",
}


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content + "\n")
    return root


@pytest.fixture(autouse=True)
def no_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither maker's library is installed, unless a test says so."""
    monkeypatch.setitem(sys.modules, "metavision_hal", None)
    monkeypatch.setitem(sys.modules, "dv_processing", None)


def test_without_the_makers_libraries_cameras_on_usb_are_told_with_what_to_install(tmp_path: Path) -> None:
    assert list_attached(machine(tmp_path, USB)) == [
        Attached(
            "events", "prophesee://00051234", "Prophesee EVK4", f"install the Metavision SDK: {INSTALL_PAGE}"
        ),
        Attached(
            "events",
            "inivation://",
            "iniVation DAVIS or DVXplorer",
            install_line("inivation"),
        ),
    ]


def test_with_its_library_a_camera_is_told_as_the_library_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "metavision_hal", make_hal((5, 1, 1), FakeCamera(serial="00051234")))
    monkeypatch.setattr(inivation, "list_inivation", list)
    assert list_attached(machine(tmp_path, USB)) == [
        Attached("events", "prophesee://Prophesee:hal_plugin_prophesee:00051234", "Prophesee"),
        Attached(
            "events",
            "inivation://",
            "iniVation DAVIS or DVXplorer",
            "no permission: install the maker's udev rules",
        ),
    ]


def test_a_library_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> list[str]:
        raise RuntimeError("libusb: no context\nmore")

    monkeypatch.setattr(prophesee, "list_prophesee", fail)
    assert list_attached(machine(tmp_path, USB))[0].trouble == "libusb: no context"


def test_rgb_cameras_are_told_by_what_the_kernel_shows(tmp_path: Path) -> None:
    assert list_attached(machine(tmp_path, PICTURES)) == [
        Attached("rgb", "/dev/video0", "HD Webcam"),
        Attached("rgb", "/dev/video2", "Capture card", "no permission: add yourself to the group video"),
        Attached("rgb", "csi://0", "CSI connector 0, if there is a camera on it"),
        Attached("rgb", "csi://1", "CSI connector 1, if there is a camera on it"),
    ]


def test_the_installed_library_of_inivation_can_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "dv_processing")
    pytest.importorskip("dv_processing", reason="needs dv-processing")
    assert all(source.startswith("inivation://") for source in list_inivation())


def test_the_command_prints_a_line_a_camera_or_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [
        Attached("events", "prophesee://1", "Prophesee"),
        Attached("rgb", "/dev/video0", "Webcam", "busy"),
    ]
    monkeypatch.setattr(attached, "list_attached", lambda: found)
    assert run(velora, ["cameras"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "--events  prophesee://1                Prophesee",
        "--rgb     /dev/video0                  Webcam  (busy)",
    ]
    assert run(velora, ["cameras", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"option": "events", "source": "prophesee://1", "name": "Prophesee", "trouble": ""},
        {"option": "rgb", "source": "/dev/video0", "name": "Webcam", "trouble": "busy"},
    ]


def test_without_any_camera_the_command_names_what_else_there_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(attached, "list_attached", list)
    assert run(velora, ["cameras"]) == 0
    assert capsys.readouterr().out.startswith("no camera is attached; also: tcp://HOST:PORT, ")
