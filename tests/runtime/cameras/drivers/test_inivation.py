"""iniVation's events, edges and settings; the network stream itself is in test_live_peers.py."""

from __future__ import annotations

import datetime
import re
import sys
import threading
from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest
from velora_runtime.cameras.camera_settings import CameraSettings, InivationSettings
from velora_runtime.cameras.drivers import inivation
from velora_runtime.cameras.drivers.inivation import InivationEvents, as_batch, configure
from velora_runtime.cameras.feeds import LiveSetup

from tests.fakes import FakeClock
from velora_edge.errors import CameraError, ConfigError, MissingExtraError, install_line


class FakeStore:
    """dv.EventStore as numpy sees it: times [N, 1] of int64, places [N, 2] of int16, polarities [N, 1]."""

    def __init__(self, *events: tuple[int, int, int, int]) -> None:
        self._events = events

    def isEmpty(self) -> bool:
        return not self._events

    def timestamps(self) -> list[list[int]]:
        return [[t] for t, _, _, _ in self._events]

    def coordinates(self) -> list[list[int]]:
        return [[x, y] for _, x, y, _ in self._events]

    def polarities(self) -> list[list[int]]:
        return [[p] for _, _, _, p in self._events]


def trigger(t_us: int, kind: str) -> Any:
    return SimpleNamespace(timestamp=t_us, type=SimpleNamespace(name=kind))


class FakeCamera:
    """A camera with a few of the library's setters."""

    def __init__(self, size: tuple[int, int] = (8, 6)) -> None:
        self.done: list[tuple[Any, ...]] = []
        self.stores: deque[FakeStore] = deque()
        self.triggers: deque[list[Any]] = deque()
        self.seek_us = 0
        self.is_there = True
        self._size = size

    def isEventStreamAvailable(self) -> bool:
        return True

    def getEventResolution(self) -> tuple[int, int]:
        return self._size

    def isTriggerStreamAvailable(self) -> bool:
        return True

    def isRunning(self) -> bool:
        return self.is_there

    def getNextEventBatch(self) -> FakeStore | None:
        return self.stores.popleft() if self.stores else None

    def getNextTriggerBatch(self) -> list[Any] | None:
        return self.triggers.popleft() if self.triggers else None

    def getEventSeekTime(self) -> int:
        return self.seek_us

    def setTimeInterval(self, interval: datetime.timedelta) -> None:
        self.done.append(("interval", interval))

    def setCropArea(self, area: tuple[int, int, int, int]) -> None:
        self.done.append(("crop", area))

    def setDetectorRisingEdges(self, on: bool) -> None:
        self.done.append(("rising", on))

    def setDetectorFallingEdges(self, on: bool) -> None:
        self.done.append(("falling", on))

    def setDetectorRunning(self, on: bool) -> None:
        self.done.append(("detector", on))

    def setContrastThresholdOn(self, value: int) -> None:
        if not 0 <= value <= 17:
            raise RuntimeError("/src/camera.hpp(12): place\nRuntimeError: Value out of range")
        self.done.append(("threshold on", value))


def open_feed(
    monkeypatch: pytest.MonkeyPatch, camera: FakeCamera, text: str = "inivation://"
) -> InivationEvents:
    def find(serial: str | None = None) -> FakeCamera:
        if not camera.is_there:
            raise IndexError("no devices")
        camera.done.append(("open", serial))
        return camera

    library = SimpleNamespace(io=SimpleNamespace(camera=SimpleNamespace(open=find)))
    monkeypatch.setitem(sys.modules, "dv_processing", library)  # type: ignore[arg-type]
    feed = InivationEvents(text, LiveSetup(FakeClock(), threading.Event(), print, settings=CameraSettings()))
    feed.open()
    return feed


def test_events_and_edges_come_as_our_own_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    camera = FakeCamera()
    feed = open_feed(monkeypatch, camera, "inivation://DVX1")
    assert (feed.sensor, camera.done[0]) == ((8, 6), ("open", "DVX1"))
    camera.stores.append(FakeStore((100, 1, 2, 1), (200, 7, 5, 0), (250, 8, 0, 1)))
    camera.triggers.append(
        [
            trigger(150, "EXTERNAL_SIGNAL_RISING_EDGE"),
            trigger(160, "TIMESTAMP_RESET"),
            trigger(170, "EXTERNAL_SIGNAL_FALLING_EDGE"),
        ]
    )
    camera.seek_us = 300
    item = feed.read()
    assert item is not None
    batch = item.batch
    assert (batch.t_us.tolist(), batch.x.tolist(), batch.y.tolist(), batch.p.tolist()) == (
        [100, 200],  # the third lies outside the sensor
        [1, 7],
        [2, 5],
        [1, 0],
    )
    assert [str(a.dtype) for a in (batch.t_us, batch.x, batch.y, batch.p)] == [
        "int64",
        "uint16",
        "uint16",
        "uint8",
    ]
    assert (item.edges.t_us.tolist(), item.edges.p.tolist()) == ([150, 170], [1, 0])
    assert item.reached_us == 300


def test_a_silent_cameras_time_goes_on_by_what_the_library_says(monkeypatch: pytest.MonkeyPatch) -> None:
    camera = FakeCamera()
    feed = open_feed(monkeypatch, camera)
    camera.seek_us = 2_000
    item = feed.read()
    assert item is not None
    assert (len(item.batch), item.reached_us) == (0, 2_000)
    assert feed.read() is None  # nothing new


def test_an_unplugged_camera_is_lost_and_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    camera = FakeCamera()
    feed = open_feed(monkeypatch, camera)
    camera.is_there = False
    with pytest.raises(CameraError, match=r"^it was unplugged, or the other side has gone$"):
        feed.read()
    feed.close()
    with pytest.raises(CameraError, match=r"^cannot be opened: there is no camera$"):
        feed.open()
    camera.is_there = True
    feed.open()
    assert [step for step in camera.done if step[0] == "open"] == [("open", None), ("open", None)]


def test_another_camera_in_its_place_is_not_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    camera = FakeCamera()
    feed = open_feed(monkeypatch, camera)
    camera._size = (16, 16)
    with pytest.raises(CameraError, match=r"^another camera is there now: 16x16$"):
        feed.open()


def test_settings_reach_the_camera() -> None:
    camera = FakeCamera()
    roi = {"x": 1, "y": 2, "width": 3, "height": 4}
    settings: dict[str, Any] = {"ContrastThresholdOn": 12}
    configure(
        camera, InivationSettings.model_validate({"roi": roi, "settings": settings, "interval_us": 500})
    )
    assert camera.done == [
        ("interval", datetime.timedelta(microseconds=500)),
        ("crop", (1, 2, 3, 4)),
        ("rising", True),
        ("falling", False),
        ("detector", True),
        ("threshold on", 12),
    ]


def test_settings_that_a_camera_lacks_or_refuses_are_told() -> None:
    known = "ContrastThresholdOn, CropArea, Detector.*, TimeInterval"
    with pytest.raises(ConfigError, match=f"inivation.settings.Bias: this camera has {known}"):
        configure(FakeCamera(), InivationSettings(settings={"Bias": 3}))
    with pytest.raises(ConfigError, match="ContrastThresholdOn: 99 is refused: Value out of range"):
        configure(FakeCamera(), InivationSettings(settings={"ContrastThresholdOn": 99}))


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dv_processing", None)
    with pytest.raises(
        MissingExtraError, match=f"^inivation:// needs dv-processing: {re.escape(install_line('inivation'))}$"
    ):
        InivationEvents("inivation://", LiveSetup(FakeClock(), threading.Event(), print))


def test_the_real_librarys_events_are_read() -> None:
    dv = pytest.importorskip("dv_processing", reason="needs dv-processing: pip install -e '.[inivation]'")
    store = dv.EventStore()
    for event in ((1_605_537_493_718_345, 319, 0, True), (1_605_537_493_718_346, 0, 239, False)):
        store.push_back(*event)
    batch = as_batch(store, (320, 240))
    assert (batch.t_us.tolist(), batch.x.tolist(), batch.y.tolist(), batch.p.tolist()) == (
        [1_605_537_493_718_345, 1_605_537_493_718_346],
        [319, 0],
        [0, 239],
        [1, 0],
    )


def test_the_triggers_that_count_are_known_to_the_real_library() -> None:
    dv = pytest.importorskip("dv_processing", reason="needs dv-processing: pip install -e '.[inivation]'")
    kinds = {name: polarity for name, polarity in inivation._EDGES.items() if hasattr(dv.TriggerType, name)}
    assert kinds == {
        "EXTERNAL_SIGNAL_RISING_EDGE": 1,
        "EXTERNAL_SIGNAL_PULSE": 1,
        "EXTERNAL_SIGNAL_FALLING_EDGE": 0,
    }


def test_a_stream_that_nobody_serves_is_a_camera_that_is_not_there() -> None:
    pytest.importorskip("dv_processing", reason="needs dv-processing: pip install -e '.[inivation]'")
    feed = InivationEvents("inivation://127.0.0.1:1", LiveSetup(FakeClock(), threading.Event(), print))
    with pytest.raises(CameraError, match=r"^cannot be opened: .*[Cc]onnection refused"):
        feed.open()
