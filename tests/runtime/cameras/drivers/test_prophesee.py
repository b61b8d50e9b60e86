"""Prophesee's cameras through a stand-in with the signatures of the SDK's 4.x and 5.x bindings."""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from velora_runtime.cameras.camera_settings import CameraSettings
from velora_runtime.cameras.drivers.prophesee import INSTALL_PAGE, PropheseeEvents, list_prophesee
from velora_runtime.cameras.feeds import LiveSetup, WordLayout
from velora_runtime.ingest.packets import Decoded

from tests.fakes import FakeClock, write_tiny_bundle
from tests.fakes_cameras import evt3
from tests.fakes_metavision import FakeCamera, Packet, hal_error, make_hal
from velora_cli.live.live import command
from velora_edge.console import run
from velora_edge.errors import CameraError, ConfigError, SourceError

if TYPE_CHECKING:
    from pathlib import Path

V4, V5 = (4, 4, 0), (5, 1, 1)
VERSIONS = [(4, 0, 0), V4, (4, 5, 0), (5, 0, 0), V5]


def packet(*events: tuple[int, int, int, int], reached_us: int, edges: tuple[int, ...] = ()) -> Packet:
    """Events (t, x, y, p) and rising edges on input 0."""
    words = evt3(*events, end_us=reached_us, edges=edges)
    return Packet(words, events, tuple((t, 0, 1) for t in edges), reached_us)


FIRST = packet((10, 1, 2, 1), (20, 3, 4, 0), reached_us=1000, edges=(500,))
SECOND = packet((1010, 5, 6, 1), reached_us=2000)


def plug_in(monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int], *cameras: FakeCamera) -> None:
    monkeypatch.setitem(sys.modules, "metavision_hal", make_hal(version, *cameras))


def feed_of(text: str = "prophesee://", **settings: Any) -> PropheseeEvents:
    of_cameras = CameraSettings.model_validate({"prophesee": settings})
    return PropheseeEvents(text, LiveSetup(FakeClock(), threading.Event(), print, settings=of_cameras))


def as_lists(item: Any) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]], int]:
    """Events (t, x, y, p), edges (t, id, p) and the time reached."""
    assert isinstance(item, Decoded)
    b, e = item.batch, item.edges
    events = list(zip(b.t_us.tolist(), b.x.tolist(), b.y.tolist(), b.p.tolist(), strict=True))
    return events, list(zip(e.t_us.tolist(), e.id.tolist(), e.p.tolist(), strict=True)), item.reached_us


@pytest.mark.parametrize("version", [(4, 0, 0), V4])
@pytest.mark.parametrize("encoding", ["EVT3", "EVT3;height=8;width=8", "EVT2"])
def test_where_hal_gives_bytes_they_go_on_as_raw_words(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int], encoding: str
) -> None:
    camera = FakeCamera(encoding=encoding, packets=[None, FIRST, None, SECOND])
    plug_in(monkeypatch, version, camera)
    feed = feed_of()
    feed.open()
    assert (feed.sensor, feed.layout) == ((8, 8), WordLayout(encoding[:4]))  # type: ignore[arg-type]
    first = feed.read()
    assert [first, feed.read(), feed.read()] == [FIRST.words, SECOND.words, None]


@pytest.mark.parametrize(
    ("version", "encoding"), [((4, 5, 0), "EVT3"), ((5, 0, 0), "EVT3"), (V5, "EVT21"), (V4, "EVT21")]
)
def test_where_it_gives_none_or_only_the_sdk_knows_them_the_sdk_decodes(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int], encoding: str
) -> None:
    outside = Packet(b"\0\0", ((2010, 8, 0, 1), (2020, 7, 7, 0)), (), 3000)
    plug_in(monkeypatch, version, FakeCamera(encoding=encoding, packets=[FIRST, SECOND, outside]))
    feed = feed_of()
    feed.open()
    assert (feed.sensor, feed.layout) == ((8, 8), None)
    items = [feed.read(), feed.read(), feed.read()]  # read on before looking: the SDK's memory is its own
    assert [as_lists(item) for item in items] == [
        ([(10, 1, 2, 1), (20, 3, 4, 0)], [(500, 0, 1)], 1000),
        ([(1010, 5, 6, 1)], [], 2000),
        ([(2020, 7, 7, 0)], [], 3000),
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_settings_reach_the_camera(monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int]) -> None:
    camera = FakeCamera(packets=[FIRST])
    plug_in(monkeypatch, version, camera)
    feed = feed_of(
        "prophesee://00051234",
        biases={"bias_diff_on": 20, "bias_fo": -35},
        roi=[{"x": 1, "y": 2, "width": 3, "height": 4}],
        erc={"events_per_s": 20_000_000},
        trigger_in=["main", "aux"],
    )
    feed.open()
    feed.close()
    assert camera.done == [
        ("open",),
        ("bias", "bias_diff_on", 20),
        ("bias", "bias_fo", -35),
        ("roi mode", "ROI"),
        ("roi", (1, 2, 3, 4)),
        ("roi on", True),
        ("erc rate", 20_000_000),
        ("erc on", True),
        ("trigger", "MAIN"),
        ("trigger", "AUX"),
        ("start",),
        ("stop",),
    ]


def test_without_settings_only_the_trigger_input_is_switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    camera = FakeCamera(packets=[FIRST])
    plug_in(monkeypatch, V5, camera)
    feed_of().open()
    assert camera.done == [("open",), ("trigger", "MAIN"), ("start",)]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_setting_that_is_refused_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int]
) -> None:
    plug_in(monkeypatch, version, FakeCamera(packets=[FIRST]))
    one = {"x": 0, "y": 0, "width": 1, "height": 1}
    feed = feed_of(
        biases={"bias_hpf": 1, "bias_fo": 999},
        roi=[one, one, one],
        erc={"events_per_s": 1},
        trigger_in=["loopback"],
    )
    with pytest.raises(ConfigError) as caught:
        feed.open()
    assert caught.value.problems == (
        "prophesee.biases.bias_hpf: this camera has bias_diff_on, bias_fo",
        'prophesee.biases.bias_fo: 999 is refused: Error 102001: Invalid value 999 for bias "bias_fo".',
        "prophesee.roi: this camera has 2 regions at most, got 3",
        "prophesee.erc.events_per_s: 1 is refused by the camera; this camera takes 1000 to 160000000",
        "prophesee.trigger_in: loopback is refused by the camera",
    )


def test_settings_of_what_a_camera_lacks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    lacks = frozenset({"ll_biases", "roi", "erc_module", "trigger_in", "event_ext_trigger_decoder"})
    plug_in(monkeypatch, V5, FakeCamera(packets=[FIRST], lacks=lacks))
    feed_of().open()  # the usual trigger input is not asked for by the user
    feed = feed_of(
        biases={"bias_fo": 1},
        roi=[{"x": 0, "y": 0, "width": 1, "height": 1}],
        erc={"enabled": False},
        trigger_in=["aux"],
    )
    with pytest.raises(ConfigError) as caught:
        feed.open()
    assert caught.value.problems == (
        "prophesee.biases: this camera has none that can be set",
        "prophesee.roi: this camera has no regions",
        "prophesee.erc: this camera has no event rate control",
        "prophesee.trigger_in: this camera has none",
    )


@pytest.mark.parametrize("version", [V4, V5])
def test_an_unplugged_camera_is_lost_and_can_be_opened_again(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int]
) -> None:
    camera = FakeCamera(packets=[FIRST, hal_error(103000, "USB transfer")])
    plug_in(monkeypatch, version, camera)
    feed = feed_of()
    feed.open()
    feed.read()
    with pytest.raises(CameraError, match=r"^it failed: Error 103000: USB transfer$"):
        feed.read()
    camera.is_there = False
    with pytest.raises(CameraError, match=r"^it was unplugged$"):
        feed.read()
    feed.close()
    with pytest.raises(CameraError, match=r"^no Prophesee camera$"):
        feed.open()
    camera.is_there, camera.packets = True, [SECOND]
    feed.open()
    assert feed.read() is not None


def test_another_camera_in_its_place_is_not_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = FakeCamera(packets=[FIRST]), FakeCamera(sensor=(16, 16), packets=[FIRST])
    plug_in(monkeypatch, V5, small, large)
    feed = feed_of()
    feed.open()
    feed.close()
    small.is_there = False
    with pytest.raises(CameraError, match="another camera is there now: 16x16"):
        feed.open()


def test_cameras_are_listed_by_what_opens_them(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, V5, FakeCamera(serial="1"), FakeCamera(serial="2", is_there=False))
    assert list_prophesee() == ["prophesee://Prophesee:hal_plugin_prophesee:1"]


def test_without_the_sdk_there_is_one_error_that_names_the_page_to_install_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "metavision_hal", None)
    with pytest.raises(SourceError, match="needs the Metavision SDK's Python module metavision_hal"):
        feed_of()
    model = write_tiny_bundle(tmp_path / "m.velora").path
    assert run(command, [str(model), "--events", "prophesee://"], name="velora-live") == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("velora: ")]
    assert len(errors) == 1
    assert errors[0].startswith(
        "error: prophesee://: needs the Metavision SDK's Python module metavision_hal"
    )
    assert errors[0].endswith(f"install the SDK or OpenEB for this Python: {INSTALL_PAGE}")


@pytest.mark.parametrize("version", [V4, V5])
def test_a_live_camera_is_recognised_and_every_event_accounted_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: tuple[int, int, int]
) -> None:
    n, began = 2000, []  # far more than the run takes, however busy the machine is
    packets = [
        packet(*((2000 * k + 100 * i, i % 8, i % 8, i % 2) for i in range(20)), reached_us=2000 * (k + 1))
        for k in range(n)
    ]

    def is_due(one: Any) -> bool:
        """From when the camera is first asked."""
        began.append(time.monotonic())
        del began[1:]
        return (time.monotonic() - began[0]) * 1e6 >= one.reached_us

    camera = FakeCamera(packets=list(packets), is_due=is_due)
    plug_in(monkeypatch, version, camera)
    model = write_tiny_bundle(tmp_path / "m.velora").path
    settings, summary = tmp_path / "cameras.yaml", tmp_path / "s.json"
    settings.write_text("prophesee: {biases: {bias_fo: -20}}\n")
    args = ["--events", "prophesee://00051234", "--cameras", settings, "--rate", 50, "--duration", 0.4]
    args += ["--summary", summary, "--quiet"]
    assert run(command, [str(model), *map(str, args)], name="velora-live") == 0
    report = json.loads(summary.read_text())
    event = report["cameras"]["event"]
    assert ("bias", "bias_fo", -20) in camera.done
    assert event["events"]["received"] == 20 * (n - len(camera.packets))
    assert 18 <= report["pairs"] <= 21
    assert report["predictions"] == report["pairs"] - report["dropped"]["pairs"] - 2
    counted = event["events"]["early"] + event["events"]["unread"] + sum(event["events"]["dropped"].values())
    assert event["events"]["received"] == counted + sum(
        report["events"][k] for k in ("in_windows", "skipped")
    )
