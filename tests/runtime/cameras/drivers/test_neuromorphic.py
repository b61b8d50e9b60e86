"""Event cameras by neuromorphic-drivers: the package's own Python over a stand-in for its compiled part."""

from __future__ import annotations

import inspect
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from velora_runtime.cameras.camera_settings import CameraSettings
from velora_runtime.cameras.drivers.neuromorphic import (
    NeuromorphicEvents,
    NeuromorphicFrames,
    list_neuromorphic,
)
from velora_runtime.cameras.feeds import LiveSetup, WordLayout
from velora_runtime.ingest.packets import Decoded, Gap
from velora_runtime.ingest.scanner import RawScanner

from tests.fakes import FakeClock
from tests.fakes_cameras import evt3
from tests.fakes_neuromorphic import ExtensionDevice, FakeCamera, LinkPacket, plug_in
from velora_edge.errors import CameraError, ConfigError, MissingExtraError, SourceError
from velora_edge.events.registry import open_events

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

nd = pytest.importorskip("neuromorphic_drivers", reason="needs neuromorphic-drivers: extra cameras")
DAVIS = "iniVation DAVIS 346"
FIRST, SECOND, THIRD = (evt3((t, 1, 2, 1), end_us=t + 1000) for t in (10, 1010, 2010))


def setup_of(notes: list[str] | None = None, **settings: Any) -> LiveSetup:
    of_cameras = CameraSettings.model_validate({"neuromorphic": settings})
    note = print if notes is None else notes.append
    return LiveSetup(FakeClock(), threading.Event(), note, settings=of_cameras)


@contextmanager
def opened(
    camera: FakeCamera, text: str = "neuromorphic://", **settings: Any
) -> Iterator[NeuromorphicEvents]:
    with plug_in(camera):
        feed = NeuromorphicEvents(text, setup_of(**settings))
        feed.open()
        try:
            yield feed
        finally:
            feed.close()


def configuration_of(camera: FakeCamera, nd: Any) -> Any:
    """What the camera was last opened with, in the package's own words."""
    data = camera.opened[-1]["configuration"]
    return sys.modules[nd.__name__ + ".generated.unions"].deserialize_configuration(
        nd.Name(camera.name), data
    )


def test_the_stand_in_has_the_methods_and_arguments_of_the_installed_package() -> None:
    real = sys.modules["neuromorphic_drivers.neuromorphic_drivers"].Device
    methods = [name for name in dir(real) if not name.startswith("__")]
    methods += ["__enter__", "__exit__", "__iter__", "__next__"]
    for name in methods:
        ours = list(inspect.signature(getattr(ExtensionDevice, name)).parameters)
        theirs = list(inspect.signature(getattr(real, name)).parameters)
        assert ours == theirs, name
    assert [*inspect.signature(ExtensionDevice).parameters] == [*inspect.signature(real).parameters]
    ours = {name for name in vars(ExtensionDevice) if not name.startswith("_")} - {"attached"}
    assert ours == {name for name in methods if not name.startswith("_")}


def test_the_installed_package_has_what_the_driver_calls() -> None:
    assert list(inspect.signature(nd.open).parameters)[:5] == [
        "configuration",
        "iterator_timeout",
        "raw",
        "serial",
        "address",
    ]
    assert {"name", "serial", "error"} <= set(nd.ListedDevice.__dataclass_fields__)
    assert [name.name for name in nd.Name] == [
        "INIVATION_DAVIS346",
        "INIVATION_DVXPLORER",
        "PROPHESEE_EVK3_HD",
        "PROPHESEE_EVK4",
        "CENTURYARKS_VGA",
        "LUCID_TRITON",
    ]
    for name in nd.Name:
        module = getattr(nd, name.name.lower())
        assert {"width", "height"} <= set(module.Properties.__dataclass_fields__)
        assert "biases" in module.Configuration.__dataclass_fields__
    status = sys.modules["neuromorphic_drivers.status"]
    assert {"backlog", "overflow_indices", "dropped_packets"} <= set(
        status.RawRingStatus.__dataclass_fields__
    )
    assert {"backlog", "current_t", "dropped_packets"} <= set(status.RingStatus.__dataclass_fields__)


@pytest.mark.parametrize(
    ("name", "sensor"),
    [
        ("Prophesee EVK4", (1280, 720)),
        ("Prophesee EVK3 HD", (1280, 720)),
        ("CenturyArks VGA", (640, 480)),
        ("Lucid Triton", (1280, 720)),
    ],
)
def test_the_words_of_evt3_cameras_go_on_as_they_are(name: str, sensor: tuple[int, int]) -> None:
    camera = FakeCamera(name, packets=[LinkPacket(FIRST), LinkPacket(SECOND)], bounds=(0, 100))
    with opened(camera) as feed:
        assert (feed.sensor, feed.layout, feed.may_be_silent) == (sensor, WordLayout("EVT3"), False)
        assert [feed.read(), feed.read()] == [FIRST + SECOND, None]
        assert camera.opened[0]["raw"]
    assert camera.closed == 1


def test_a_camera_is_chosen_by_its_serial_number() -> None:
    one, two = FakeCamera(serial="1"), FakeCamera(serial="2", packets=[LinkPacket(SECOND)])
    with plug_in(one, two):
        feed = NeuromorphicEvents("neuromorphic://2", setup_of())
        feed.open()
        assert feed.read() == SECOND
        feed.close()
    assert (len(one.opened), len(two.opened)) == (0, 1)


def test_settings_reach_the_camera() -> None:
    camera = FakeCamera()
    settings = {
        "biases": {"bias_diff_on": 20, "fo": -35},
        "events_per_s": 20_000_000,
        "trigger_in": False,
        "settings": {"clock": "external"},
    }
    with plug_in(camera) as nd:
        feed = NeuromorphicEvents("neuromorphic://", setup_of(**settings))
        feed.open()
        feed.close()
        evk4 = nd.prophesee_evk4
        assert configuration_of(camera, nd) == evk4.Configuration(
            biases=evk4.Biases(diff_on=20, fo=-35),
            enable_external_trigger=False,
            clock=evk4.Clock.EXTERNAL,
            rate_limiter=evk4.RateLimiter(200, 4000),
        )


def test_a_region_leaves_its_pixels_and_no_others() -> None:
    camera = FakeCamera()
    with plug_in(camera) as nd:
        feed = NeuromorphicEvents(
            "neuromorphic://", setup_of(roi={"x": 10, "y": 20, "width": 300, "height": 100})
        )
        feed.open()
        feed.close()
        sent = configuration_of(camera, nd)
        mask = nd.prophesee_evk4.RowColumnMask(set=False)
    for bits, words in ((mask.x_unpacked, sent.x_mask), (mask.y_unpacked, sent.y_mask)):
        unpacked = np.unpackbits(np.array(words, "<u8").view(np.uint8), bitorder="little")
        bits[:] = unpacked[: len(bits)]
    wanted = np.zeros((720, 1280), bool)
    wanted[20:120, 10:310] = True
    np.testing.assert_array_equal(mask.pixels(), wanted)
    assert sent.mask_intersection_only is False


def test_a_davis_has_a_region_and_exposure_of_its_own() -> None:
    camera = FakeCamera(DAVIS, bounds=(0, 2047))
    settings = {
        "roi": {"x": 1, "y": 2, "width": 3, "height": 4},
        "settings": {"exposure_us": 900, "polarity_filter": "mask_on"},
    }
    with plug_in(camera) as nd:
        feed = NeuromorphicEvents("neuromorphic://", setup_of(**settings))
        feed.open()
        feed.close()
        davis = nd.inivation_davis346
        assert configuration_of(camera, nd) == davis.Configuration(
            region_of_interest=davis.RegionOfInterest(1, 2, 3, 4),
            exposure_us=900,
            polarity_filter=davis.PolarityFilter.MASK_ON,
        )


def test_every_setting_that_does_not_fit_is_told_at_once() -> None:
    camera = FakeCamera("iniVation DVXplorer")
    settings = {
        "biases": {"bias_fo": 1, "amp": 999},
        "roi": {"x": 0, "y": 0, "width": 4, "height": 4},
        "events_per_s": 1_000_000,
        "trigger_in": False,
        "settings": {"exposure_us": 5, "readout_frames_per_second": "fast"},
    }
    with pytest.raises(ConfigError) as caught, opened(camera, **settings):
        pass
    assert [problem.partition(": ")[0] for problem in caught.value.problems] == [
        "neuromorphic.biases.bias_fo",
        "neuromorphic.biases.amp",
        "neuromorphic.roi",
        "neuromorphic.events_per_s",
        "neuromorphic.trigger_in",
        "neuromorphic.settings.exposure_us",
        "neuromorphic.settings.readout_frames_per_second",
    ]
    assert caught.value.problems[0].endswith("this camera has amp, log, log_a, log_d, nrst, off, on, sf")
    assert caught.value.problems[5].endswith("this camera has readout_frames_per_second")
    assert not camera.opened


def test_a_bias_outside_the_cameras_own_range_is_refused_with_the_range() -> None:
    camera = FakeCamera(bounds=(-10, 20))
    with pytest.raises(ConfigError) as caught, opened(camera, biases={"fo": 21, "diff_on": 20}):
        pass
    assert caught.value.problems == ("neuromorphic.biases.fo: 21 is refused: this camera takes -10 to 20",)
    assert camera.closed == 1


def test_words_are_cut_where_the_package_lost_some_and_the_loss_is_counted() -> None:
    camera = FakeCamera(packets=[LinkPacket(FIRST), LinkPacket(SECOND, lost=7), LinkPacket(THIRD)])
    with opened(camera) as feed:
        assert [feed.read() for _ in range(4)] == [FIRST, Gap(7), SECOND + THIRD, None]
        assert feed.link.overrun == 7


def test_data_that_waited_for_too_long_is_cleared_and_counted() -> None:
    now_s, notes = [0.0], []
    camera = FakeCamera(now_s=lambda: now_s[0])
    camera.packets = [LinkPacket(FIRST, due_s=0.01 * k) for k in range(100)]
    with plug_in(camera):
        feed = NeuromorphicEvents("neuromorphic://", setup_of(notes, longest_delay_ms=400))
        feed.open()
        now_s[0] = 0.4
        items = [feed.read()]
        assert (items, feed.link.backlog, feed.link.cleared) == ([FIRST * 41], 0, 0)
        now_s[0] = 2.0  # the host was stopped, and all the rest has come
        camera.packets += [LinkPacket(SECOND, due_s=1.0 + 0.01 * k) for k in range(20)]
        items = [feed.read(), feed.read(), feed.read()]
        feed.close()
    assert items == [FIRST * 59 + SECOND * 5, Gap(15), None]
    assert (feed.link.backlog, feed.link.backlog_peak, feed.link.cleared) == (0, 15, 15)
    assert notes == ["neuromorphic://: the host was too slow: 15 packets of the camera were cleared"]


def test_an_unplugged_camera_is_lost_and_can_be_opened_again() -> None:
    camera = FakeCamera(packets=[LinkPacket(FIRST)])
    with opened(camera) as feed:
        feed.read()
        camera.is_there = False
        with pytest.raises(CameraError, match=r"^it failed: Usb\(Rusb\(NoDevice\)\)$"):
            feed.read()
        feed.close()
        with pytest.raises(CameraError, match=r"^no camera that neuromorphic-drivers knows$"):
            feed.open()
        camera.is_there, camera.packets = True, [LinkPacket(SECOND)]
        feed.open()
        assert feed.read() == SECOND
    assert camera.closed == 2


def test_another_camera_in_its_place_is_not_taken_for_it() -> None:
    small, large = FakeCamera("CenturyArks VGA", bounds=(0, 9)), FakeCamera()
    with plug_in(small, large):
        feed = NeuromorphicEvents("neuromorphic://", setup_of())
        feed.open()
        feed.close()
        small.is_there = False
        with pytest.raises(CameraError, match="another camera is there now: 1280x720"):
            feed.open()
    assert large.closed == 1


def test_a_camera_that_may_not_be_used_is_told_with_the_way_to_mend_it() -> None:
    reason = r"^cannot be used: Access denied; try velora cameras --install-udev$"
    with pytest.raises(CameraError, match=reason), opened(FakeCamera(error="Access denied")):
        pass


def test_cameras_are_listed_by_what_opens_them() -> None:
    with plug_in(FakeCamera(serial="1"), FakeCamera(serial="2", error="busy"), FakeCamera(serial="3")):
        assert list_neuromorphic() == ["neuromorphic://1", "neuromorphic://3"]
    with plug_in(has_usb=False):
        assert list_neuromorphic() == []
    with plug_in(FakeCamera(error="Access denied")), pytest.raises(RuntimeError, match=r"--install-udev$"):
        list_neuromorphic()


def test_the_installed_package_can_be_asked() -> None:
    assert all(source.startswith("neuromorphic://") for source in list_neuromorphic())


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "neuromorphic_drivers", None)
    with pytest.raises(MissingExtraError, match=r"needs neuromorphic-drivers: pip install .*\[cameras\]"):
        NeuromorphicEvents("neuromorphic://", setup_of())


def davis_packet(
    nd: Any, events: list[tuple[int, int, int, bool]], edges: list[tuple[int, int, int]], frames: list[Any]
) -> Any:
    """One of the package's packets, with its types of arrays."""
    packet = nd.Davis346Packet()
    kind = [("t", "<u8"), ("x", "<u2"), ("y", "<u2"), ("on", "?")]
    packet.polarity_events = np.array(events, kind) if events else None
    edge = [("t", "<u8"), ("id", "u1"), ("polarity", "u1")]
    packet.trigger_events = np.array(edges, edge) if edges else None
    packet.frames = frames
    return packet


def davis_frame(nd: Any, level: int, begin_us: int, end_us: int) -> Any:
    frame = nd.Frame()
    frame.exposure_start_t, frame.exposure_end_t, frame.t = begin_us, end_us, end_us + 500
    frame.pixels = np.full((260, 346), level * 64, np.uint16)
    return frame


def test_what_the_package_decodes_comes_as_events_and_edges() -> None:
    camera = FakeCamera(DAVIS, bounds=(0, 2047))
    with plug_in(camera) as nd:
        packet = davis_packet(
            nd, [(10, 1, 2, True), (20, 346, 0, True), (30, 345, 259, False)], [(5, 0, 2), (6, 0, 0)], []
        )
        camera.packets = [LinkPacket(packet, reached_us=100)]
        feed = NeuromorphicEvents("neuromorphic://", setup_of())
        feed.open()
        found = feed.read()
        assert (feed.layout, feed.sensor, feed.may_be_silent, feed.read()) == (None, (346, 260), True, None)
        feed.close()
    assert isinstance(found, Decoded)
    batch, edges = found.batch, found.edges
    assert [batch.t_us.tolist(), batch.x.tolist(), batch.y.tolist(), batch.p.tolist()] == [
        [10, 30],
        [1, 345],
        [2, 259],
        [1, 0],
    ]
    assert [edges.t_us.tolist(), edges.id.tolist(), edges.p.tolist()] == [[5, 6], [0, 0], [1, 0]]
    assert found.reached_us == 100


def test_a_davis_gives_events_and_frames_over_one_connection() -> None:
    camera = FakeCamera(DAVIS, bounds=(0, 2047))
    with plug_in(camera) as nd:
        camera.packets = [
            LinkPacket(davis_packet(nd, [(10, 1, 2, True)], [], [davis_frame(nd, 1023, 0, 8)]), reached_us=50)
        ]
        setup = setup_of()
        frames, events = (
            NeuromorphicFrames("neuromorphic://", setup),
            NeuromorphicEvents("neuromorphic://", setup),
        )
        frames.open()
        events.open()
        assert frames.size == (346, 260)
        assert isinstance(events.read(), Decoded)
        shot = frames.read()
        assert shot is not None
        assert (shot.t_us, shot.clock) == (4, "device")
        np.testing.assert_array_equal(shot.render(), np.full((260, 346, 3), 255, np.uint8))
        assert len(camera.opened) == 1
        events.close()
        assert camera.closed == 0
        camera.packets = [LinkPacket(davis_packet(nd, [], [], [davis_frame(nd, 4, 10, 20)]))]
        shot = frames.read()  # it reads the camera by itself now
        assert shot is not None
        assert shot.t_us == 15
        frames.close()
    assert camera.closed == 1


def test_when_a_davis_is_unplugged_both_feeds_lose_it_and_open_it_together() -> None:
    camera = FakeCamera(DAVIS, bounds=(0, 2047))
    with plug_in(camera):
        feeds = [kind("neuromorphic://", setup_of()) for kind in (NeuromorphicFrames, NeuromorphicEvents)]
        frames, events = feeds
        for feed in feeds:
            feed.open()
        camera.is_there = False
        with pytest.raises(CameraError):
            events.read()
        with pytest.raises(CameraError):
            frames.read()
        events.close()
        camera.is_there = True
        events.open()
        frames.close()
        frames.open()
        assert (len(camera.opened), camera.closed) == (2, 1)
        for feed in feeds:
            feed.close()
    assert camera.closed == 2


def test_other_cameras_take_no_pictures() -> None:
    camera = FakeCamera()
    reason = r"this camera \(PROPHESEE_EVK4\) takes no pictures"
    with plug_in(camera), pytest.raises(SourceError, match=reason):
        NeuromorphicFrames("neuromorphic://", setup_of()).open()
    assert camera.closed == 1


def test_real_words_in_packets_of_any_size_are_the_events_of_the_file(shared_events: Path) -> None:
    path = shared_events / "ecpy_test1_evt3_triggers.raw"
    with open_events(path) as reader:
        data = path.read_bytes()[reader.payload_at :]  # type: ignore[attr-defined]
    rng, packets = np.random.default_rng(1), []
    while sum(map(len, packets)) < len(data):
        begin = sum(map(len, packets))
        packets.append(data[begin : begin + 2 * int(rng.integers(1, 65_536))])
    camera = FakeCamera(packets=[LinkPacket(packet) for packet in packets])
    scanner, events, edges = RawScanner("EVT3", (1280, 720)), 0, 0
    with opened(camera) as feed:
        while (item := feed.read()) is not None:
            assert isinstance(item, bytes)
            for begin in range(0, len(item), 1 << 17):
                scan = scanner.scan(item[begin : begin + (1 << 17)])
                events, edges = events + scan.events, edges + len(scan.edges)
    assert (events, edges) == (343_474, 4157)


def test_real_events_in_the_packages_packets_are_the_events_of_the_file(shared_events: Path) -> None:
    with open_events(shared_events / "tonic_sample.aedat4") as reader:
        batch = reader.read()
    camera = FakeCamera(DAVIS, bounds=(0, 2047))
    with plug_in(camera) as nd:
        for begin in range(0, len(batch), 10_000):
            part = batch[begin : begin + 10_000]
            events = list(
                zip(part.t_us.tolist(), part.x.tolist(), part.y.tolist(), part.p.tolist(), strict=True)
            )
            reached_us = int(part.t_us[-1])
            camera.packets.append(LinkPacket(davis_packet(nd, events, [], []), reached_us=reached_us))
        feed = NeuromorphicEvents("neuromorphic://", setup_of())
        feed.open()
        found = []
        while isinstance(item := feed.read(), Decoded):
            found.append(item.batch)
        feed.close()
    for name in ("t_us", "x", "y", "p"):
        ours = np.concatenate([getattr(one, name) for one in found])
        np.testing.assert_array_equal(ours, getattr(batch, name))
