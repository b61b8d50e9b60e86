"""What a user says of the event camera, from `velora-live` to the windows that the model sees."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from velora_runtime.app.run_sources import RunSources, begin_at, preprocess_events
from velora_runtime.ingest.live_stream import LiveStream
from velora_runtime.ingest.packets import EventPacket
from velora_runtime.ingest.scanner import RawScanner
from velora_runtime.queues import PacketQueue

from tests.events.words import rows
from tests.fakes import FakeClock, write_tiny_bundle
from tests.recordings import write_events
from tests.videos import write_video
from velora_cli.live.live import command
from velora_cli.main import velora
from velora_edge import open_events
from velora_edge.console import run
from velora_edge.datatypes import EventBatch, TriggerBatch
from velora_edge.errors import InputError
from velora_edge.events.accumulate.representations import RegistrationMap
from velora_edge.events.chunk_stream import BatchCursor
from velora_edge.events.filters.event_preprocessing import EventPreprocessing, FilteredStream
from velora_edge.events.filters.filters import FilterChain, make_filter
from velora_edge.events.formats.raw.raw_walker import RawWalker, WordCursor
from velora_edge.events.geometry.calibration_files import write_mask
from velora_edge.preprocessing.packer import Packer, Pair
from velora_edge.preprocessing.windows import WindowRule

if TYPE_CHECKING:
    from pathlib import Path

    from velora_edge.bundle import Bundle

START_US = 7_000_000
PERIOD_US = 10_000


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Clips of three pairs, windows of 10 ms."""
    event = {"window_us": PERIOD_US}
    folder = tmp_path_factory.mktemp("models") / "tiny.velora"
    first = write_tiny_bundle(folder, clip_length=3)
    return write_tiny_bundle(folder, 3, event=first.manifest.event.model_copy(update=event))


@pytest.fixture
def events(tmp_path: Path) -> Path:
    """4,000 events in 0.4 s, one every 100 us, with a trigger edge every 10 ms."""
    triggers = [START_US + PERIOD_US * (k + 1) for k in range(39)]
    write_events(tmp_path / "e.raw", start_us=START_US, triggers_us=triggers)
    return tmp_path / "e.raw"


def live(bundle: Bundle, tmp_path: Path, *args: object) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What `velora-live` predicts and sums up."""
    out, summary = tmp_path / "p.jsonl", tmp_path / "s.json"
    given = [bundle.path, "--pace", "max", "--out", out, "--summary", summary, "--quiet", *args]
    assert run(command, [str(arg) for arg in given], name="velora-live") == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    return [{**line, "latency_ms": None} for line in lines], json.loads(summary.read_text())


def test_a_recording_that_begins_later_is_one_that_was_cut(
    bundle: Bundle, events: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.raw"
    assert run(velora, ["convert", str(events), str(cut), "--start", "0.1234", "--quiet"]) == 0
    span = ("--duration", "0.2")
    ours, _ = live(bundle, tmp_path, "--events", events, "--start", "0.1234", *span)
    expected, _ = live(bundle, tmp_path, "--events", cut, *span)
    assert ours == expected
    assert [line["t_us"] for line in ours] == [START_US + 123_400 + PERIOD_US * k for k in range(3, 21)]


@pytest.mark.parametrize("sync", ["trigger", "timestamps", "offset=300"])
def test_frames_begin_with_the_events_and_keep_their_place(
    bundle: Bundle, events: Path, tmp_path: Path, sync: str
) -> None:
    write_video(tmp_path / "v.mp4", [PERIOD_US * k for k in range(39)])
    cameras = ("--events", events, "--rgb", tmp_path / "v.mp4", "--sync", sync)
    whole, _ = live(bundle, tmp_path, *cameras)
    late, summary = live(bundle, tmp_path, *cameras, "--start", "0.2")
    frames = summary["frames"]
    assert frames["early"] == frames["read"] - frames["paired"] - frames["late"] > 15
    assert len(late) == frames["paired"] - 2
    # A clip is three pairs, and each pair is compared with the one before: from the second prediction on,
    # both have seen the same.
    both = {line["t_us"]: line for line in whole}
    for line in late[1:]:
        expected = both[line["t_us"]]
        assert line["score"] == pytest.approx(expected["score"], abs=1e-5)
        same = {"seq": 0, "score": 0, "top": 0}
        assert {**line, **same} == {**expected, **same}


def test_what_is_recorded_begins_with_the_run(bundle: Bundle, events: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", [PERIOD_US * k for k in range(39)], hw=(48, 64))
    cameras = ("--events", events, "--rgb", tmp_path / "v.mp4", "--sync", "trigger", "--start", "0.2")
    _, summary = live(bundle, tmp_path, *cameras, "--record", tmp_path / "kept")
    kept = open_events(tmp_path / "kept" / "events.raw").read()
    expected = open_events(events).read()
    assert kept.t_us.tolist() == expected.t_us[2000:].tolist()
    paired = summary["frames"]["paired"] + summary["frames"]["late"]
    assert summary["recordings"][0]["counts"]["frames"] == paired


def test_frames_alone_begin_later(bundle: Bundle, tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", [PERIOD_US * k for k in range(30)])
    late, summary = live(bundle, tmp_path, "--rgb", tmp_path / "v.mp4", "--start", "0.1")
    assert summary["frames"]["early"] == 10
    assert [line["t_us"] for line in late] == [PERIOD_US * k for k in range(12, 30)]


def test_a_start_beyond_the_end_is_told(
    bundle: Bundle, events: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [str(bundle.path), "--events", str(events), "--start", "0.5"]
    assert run(command, args, name="velora-live") == 2
    assert "--start 0.5 s is after the last event; begin earlier" in capsys.readouterr().err


def test_a_live_camera_cannot_begin_later() -> None:
    opened = RunSources(live_rgb=object())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="--start is for recordings"):
        begin_at(opened, 1.0)
    begin_at(opened, 0.0)


def test_filters_and_the_cap_change_no_window_and_are_counted(
    bundle: Bundle, events: Path, tmp_path: Path
) -> None:
    plain, _ = live(bundle, tmp_path, "--events", events)
    preprocessing = ("--filter", "refractory=100000", "--event-rate-cap", "5k")
    ours, summary = live(bundle, tmp_path, "--events", events, *preprocessing)
    assert [line["t_us"] for line in ours] == [line["t_us"] for line in plain]
    filtered = summary["events"]["filtered"]
    assert filtered.keys() == {"refractory", "rate cap"}
    assert sum(filtered.values()) + summary["events"]["in_windows"] + summary["events"]["skipped"] == 4000
    assert {line["events"] for line in ours} <= {48, 49, 50}  # a millisecond with few events keeps all
    assert ours[-1]["dropped"]["events"] > 1000
    assert summary["dropped"]["events"] == filtered["rate cap"]


def pack(bundle: Bundle, path: Path, preprocessing: EventPreprocessing) -> np.ndarray:
    """The first window of 100 ms at the model's size."""
    stream = open_events(path).stream()
    preprocessed = preprocess_events(stream, preprocessing, bundle.manifest, is_live=False)
    windows = WindowRule(100_000, START_US)
    packer = Packer(bundle.manifest, preprocessed.stream, windows, FakeClock(), preprocessed.registration)
    packed = Pair.empty(bundle.manifest.image_size)
    packer.pack_into(packed, START_US + 100_000, None, 0)
    preprocessed.close()
    return packed.event_image.copy()


def test_the_model_sees_what_the_treatment_says(bundle: Bundle, tmp_path: Path) -> None:
    write_events(tmp_path / "e.raw", start_us=START_US, sensor=(64, 64))
    path = tmp_path / "e.raw"
    plain = pack(bundle, path, EventPreprocessing())
    np.testing.assert_array_equal(pack(bundle, path, EventPreprocessing(rotate=180)), plain[::-1, ::-1])
    np.testing.assert_array_equal(pack(bundle, path, EventPreprocessing(flip="vertical")), plain[::-1])
    np.testing.assert_array_equal(pack(bundle, path, EventPreprocessing(rotate=90)), np.rot90(plain, -1))
    mask = np.zeros((64, 64), np.bool_)
    mask[:32] = True
    write_mask(tmp_path / "m.npy", mask)
    background = list(bundle.manifest.event.palette.background)
    for filters in ((), ("refractory=1",)):
        hidden = pack(bundle, path, EventPreprocessing(hot_pixels=str(tmp_path / "m.npy"), filters=filters))
        half = bundle.manifest.image_size[0] // 2
        np.testing.assert_array_equal(hidden[half:], plain[half:])
        assert (hidden[:half] == background).all()


def test_a_view_of_the_rgb_camera_is_laid_onto_the_image_as_its_frames_are(
    bundle: Bundle, tmp_path: Path
) -> None:
    (tmp_path / "c.yaml").write_text("homography: [1, 0, 9, 0, 1, 0, 0, 0, 1]\nresolution: [90, 64]\n")
    write_events(tmp_path / "e.raw", start_us=START_US, count=10, sensor=(64, 64))
    stream = open_events(tmp_path / "e.raw").stream()
    fits = bundle.manifest.model_copy(
        update={
            "rgb": bundle.manifest.rgb.model_copy(update={"fit": "letterbox"}),
            "event": bundle.manifest.event.model_copy(update={"fit": "crop"}),
        }
    )
    preprocessed = preprocess_events(
        stream, EventPreprocessing(str(tmp_path / "c.yaml")), fits, is_live=False
    )
    preprocessed.close()
    whole = RegistrationMap.from_fit((64, 90), bundle.manifest.image_size, "letterbox").as_table()
    assert preprocessed.registration is not None
    np.testing.assert_array_equal(preprocessed.registration.as_table(), whole[:, 9 : 9 + 64])


def packets_of(path: Path, sizes: list[int], shift_us: int) -> list[EventPacket]:
    """A recording's words as a camera's thread hands them on."""
    reader = open_events(path)
    scanner = RawScanner("EVT3", (reader.width, reader.height), True)
    scanner.begin()
    data, at, packets = path.read_bytes()[reader.payload_at :], 0, []
    for number, size in enumerate([*sizes, len(data)]):
        scan = scanner.scan(data[at : at + size])
        at += size
        if scan.t_reached_us is not None and scan.t_first_us is not None:
            edges = TriggerBatch.empty()
            packets.append(
                EventPacket(
                    number, scan.t_first_us + shift_us, scan.t_reached_us + shift_us, scan.events,
                    edges, shift_us,
                    words=scan.words, before=scan.before,
                )
            )  # fmt: skip
    return packets


def live_stream(
    packets: list[EventPacket], walk: WordCursor | BatchCursor, sensor: tuple[int, int]
) -> LiveStream:
    queue: PacketQueue[EventPacket] = PacketQueue(1 << 30, waits=False)
    for packet in packets:
        queue.put(packet)
    nobody: Any = None
    return LiveStream(nobody, nobody, queue, walk, sensor, FakeClock(), threading.Event(), is_paced=True)


@pytest.mark.parametrize("shift_us", [0, 12_345])
def test_a_live_cameras_words_are_filtered_as_a_recordings_are(events: Path, shift_us: int) -> None:
    batch = open_events(events).read()
    stream = live_stream(
        packets_of(events, [100, 1001, 3, 4000], shift_us), WordCursor(RawWalker("EVT3", (64, 48))), (64, 48)
    )
    parts, t1_us = [], START_US + shift_us
    while sum(map(len, parts)) < len(batch):
        t1_us += 33_333
        while len(part := stream.read_batch(300, t1_us)):
            assert part.t_us[-1] < t1_us
            parts.append(part)
    ours = EventBatch.concatenate(parts)
    assert (ours.t_us - shift_us).tolist() == batch.t_us.tolist()
    assert ours.x.tolist() == batch.x.tolist()

    chain = FilterChain([make_filter("refractory=50000", (64, 48))])
    expected = sum(len(part) for part in chain.filtered([batch]))
    filtered = FilteredStream(
        live_stream(packets_of(events, [777], shift_us), WordCursor(RawWalker("EVT3", (64, 48))), (64, 48)),
        FilterChain([make_filter("refractory=50000", (64, 48))]),
    )
    assert (filtered.is_live, filtered.shift_us) == (True, 0)
    assert filtered.skip_until(2**61) == expected


def test_a_live_cameras_decoded_events_are_read_too() -> None:
    batches = [
        EventBatch(
            np.arange(5) + 10 * k, np.full(5, k, np.uint16), np.zeros(5, np.uint16), np.ones(5, np.uint8)
        )
        for k in range(3)
    ]
    packets = [
        EventPacket(k, 10 * k, 10 * k + 4, 5, TriggerBatch.empty(), batch=b) for k, b in enumerate(batches)
    ]
    stream = live_stream(packets, BatchCursor(), (8, 8))
    read = [
        rows(stream.read_batch(most, t1_us))
        for most, t1_us in ((3, 100), (3, 100), (9, 12), (9, 12), (9, 99))
    ]
    everything = rows(EventBatch.concatenate(batches))
    assert read == [everything[:3], everything[3:5], everything[5:7], [], everything[7:10]]
