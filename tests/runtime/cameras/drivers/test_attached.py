"""What `velora cameras` finds and says."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest
from velora_runtime.cameras.drivers import inivation, prophesee
from velora_runtime.cameras.drivers import registry as attached
from velora_runtime.cameras.drivers.inivation import list_inivation
from velora_runtime.cameras.drivers.registry import Attached, choose_attached, list_attached

from tests import fakes_neuromorphic
from tests.fakes_metavision import FakeCamera, make_hal
from velora_cli.main import velora
from velora_edge.console import run
from velora_edge.errors import InputError, install_line

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
PICTURES_FOUND = [
    Attached("rgb", "/dev/video0", "HD Webcam"),
    Attached("rgb", "/dev/video2", "Capture card", "no permission: add yourself to the group video"),
    Attached("rgb", "csi://0", "CSI connector 0, if there is a camera on it"),
    Attached("rgb", "csi://1", "CSI connector 1, if there is a camera on it"),
]


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content + "\n")
    return root


@pytest.fixture(autouse=True)
def no_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """No library that opens event cameras is installed, unless a test says so."""
    monkeypatch.setitem(sys.modules, "neuromorphic_drivers", None)
    monkeypatch.setitem(sys.modules, "metavision_hal", None)
    monkeypatch.setitem(sys.modules, "dv_processing", None)


def test_without_any_library_cameras_on_usb_are_told_with_the_extra_to_install(tmp_path: Path) -> None:
    install = install_line("cameras")
    assert list_attached(machine(tmp_path, USB)) == [
        Attached("events", "neuromorphic://00051234", "Prophesee EVK4", install),
        Attached("events", "neuromorphic://", "iniVation DAVIS or DVXplorer", install),
    ]


def test_neuromorphic_drivers_come_first_and_tell_a_davis_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "neuromorphic_drivers")
    pytest.importorskip("neuromorphic_drivers", reason="needs neuromorphic-drivers: extra cameras")
    davis = fakes_neuromorphic.FakeCamera("iniVation DAVIS 346", serial="8")
    with fakes_neuromorphic.plug_in(fakes_neuromorphic.FakeCamera(), davis):
        assert list_attached(machine(tmp_path, {**USB, **PICTURES})) == [
            Attached("events", "neuromorphic://00051234", "by neuromorphic-drivers"),
            Attached("events", "neuromorphic://8", "by neuromorphic-drivers"),
            *PICTURES_FOUND,
            Attached("rgb", "neuromorphic://8", "the event camera's own frames"),
        ]


def test_where_the_drivers_may_not_use_a_camera_the_udev_rules_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "neuromorphic_drivers")
    pytest.importorskip("neuromorphic_drivers", reason="needs neuromorphic-drivers: extra cameras")
    with fakes_neuromorphic.plug_in(fakes_neuromorphic.FakeCamera(error="Access denied")):
        found = list_attached(machine(tmp_path, USB))
    assert found[0] == Attached(
        "events",
        "neuromorphic://00051234",
        "Prophesee EVK4",
        "Access denied: velora cameras --install-udev",
    )


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
    assert list_attached(machine(tmp_path, PICTURES)) == PICTURES_FOUND


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


EVK4 = Attached("events", "neuromorphic://1", "by neuromorphic-drivers")


def test_the_first_camera_of_each_kind_that_can_be_used_is_chosen_and_told() -> None:
    notes: list[str] = []
    found = [EVK4, Attached("events", "prophesee://1", "Prophesee"), *reversed(PICTURES_FOUND)]
    assert choose_attached(found, notes.append) == ("neuromorphic://1", "csi://1")
    assert notes == [
        "--events neuromorphic://1: by neuromorphic-drivers, before prophesee://1",
        "--rgb /dev/video2 (Capture card) cannot be used: no permission: add yourself to the group video",
        "--rgb csi://1: CSI connector 1, if there is a camera on it, before csi://0, before /dev/video0",
    ]


def test_with_one_camera_the_run_has_that_one_and_is_told_what_is_missing() -> None:
    notes: list[str] = []
    assert choose_attached([EVK4], notes.append) == ("neuromorphic://1", "none")
    assert notes[1] == "--rgb none: no such camera is attached"


@pytest.mark.parametrize(
    ("found", "what", "remedy"),
    [
        ([], "no camera is attached", "attach one, and look with velora cameras"),
        ([Attached("events", "x://", "X", "pip install y")], "no camera can be used", "pip install y"),
    ],
)
def test_without_a_camera_the_error_names_the_next_command(
    found: list[Attached], what: str, remedy: str
) -> None:
    with pytest.raises(InputError) as caught:
        choose_attached(found, print)
    assert str(caught.value) == (
        f"{what}; {remedy}; or give recordings: velora-live MODEL --events FILE --rgb FILE"
    )


def test_udev_rules_are_written_and_udev_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.undo()
    pytest.importorskip("neuromorphic_drivers", reason="needs neuromorphic-drivers: extra cameras")
    log, rules = tmp_path / "log", tmp_path / "65-neuromorphic-drivers.rules"
    udevadm = tmp_path / "udevadm"
    udevadm.write_text(f'#!/bin/sh\necho "$@" >> {log}\n')
    udevadm.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("velora_cli.doctor.UDEV_RULES", rules)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert run(velora, ["cameras", "--install-udev"]) == 2
    assert "cameras --install-udev" in capsys.readouterr().err
    assert not rules.exists()
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert run(velora, ["cameras", "--install-udev"]) == 0
    assert 'ATTRS{idVendor}=="04b4", ATTRS{idProduct}=="00f[4-5]", MODE="0666"' in rules.read_text()
    assert log.read_text().splitlines() == ["control --reload-rules", "trigger"]
