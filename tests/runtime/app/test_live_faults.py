"""What goes wrong in days of running, done to velora-live as a process: it goes on, or ends as documented."""

from __future__ import annotations

import json
import signal
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import av
import pytest
from velora_runtime.cameras.drivers.raw_bytes import RECEIVE_BYTES

from tests.fakes import write_tiny_bundle
from tests.fakes_cameras import garbage
from tests.peers import (
    PacedBytes,
    assert_accounted,
    end_live,
    free_port,
    peer,
    read_paced,
    serve_tcp,
    serve_video,
    start_live,
    wait_for_lines,
    wait_until_served,
)
from velora_edge.bundle import find_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.slow
CLIP = 3


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of three pairs, windows of 33 ms."""
    folder = tmp_path_factory.mktemp("models") / "tiny.velora"
    event = write_tiny_bundle(folder, CLIP).manifest.event.model_copy(update={"window_us": 33_333})
    return write_tiny_bundle(folder, CLIP, event=event).path


@pytest.fixture(scope="module")
def demo() -> PacedBytes:
    """The packaged recording, 7.7 s."""
    return read_paced(find_model("demo").parent / "demo.raw")


def part(paced: PacedBytes, from_s: float, until_s: float) -> Callable[[Any], None]:
    """A connection that gives a part of a recording, from now on at its own speed, and hangs up."""
    pieces = [(due_s - from_s, piece) for due_s, piece in paced.pieces if from_s <= due_s < until_s]
    return PacedBytes(paced.header, pieces).write_to


def test_an_event_camera_that_is_gone_for_3_s_is_missing_in_every_prediction_and_comes_back(
    model: Path, demo: PacedBytes, tmp_path: Path
) -> None:
    def back_after_3_s(send: Any) -> None:
        time.sleep(3)
        part(demo, 2, 7.7)(send)

    port = free_port()
    with peer(serve_video(port, "mpegts")), serve_tcp(part(demo, 0, 2), back_after_3_s) as events_port:
        wait_until_served(port)
        rgb, events = f"http://127.0.0.1:{port}/live", f"tcp://127.0.0.1:{events_port}"
        live = start_live(
            tmp_path, model, "--events", events, "--rgb", rgb, "--sync", "host", "--duration", 8
        )
        run = end_live(live, tmp_path)
    assert run.code == 0, run.err
    assert_accounted(run, CLIP)
    camera = run.event_camera
    assert (camera["outages"], camera["connections"]) == (1, 2)
    assert 2.8 <= camera["lost_s"] <= 5
    assert "lost: the other side closed the connection" in run.err
    assert "back after" in run.err
    missing = [tuple(line["missing"]) for line in run.lines]
    assert ("event",) in missing
    last = len(missing) - 1 - missing[::-1].index(("event",))
    assert any(line["missing"] == [] and line["events"] > 0 for line in run.lines[last + 1 :])
    assert all(a["t_us"] < b["t_us"] for a, b in pairwise(run.lines))


def test_an_rgb_camera_that_is_gone_for_good_leaves_the_events_at_an_even_rate(
    model: Path, demo: PacedBytes, tmp_path: Path
) -> None:
    port = free_port()
    with serve_tcp(demo.write_to) as events_port:
        with peer(serve_video(port, "mpegts")):
            wait_until_served(port)
            live = start_live(
                tmp_path,
                *(
                    model,
                    "--events",
                    f"tcp://127.0.0.1:{events_port}",
                    "--rgb",
                    f"http://127.0.0.1:{port}/live",
                ),
                *("--sync", "host", "--duration", 6),
            )
            wait_for_lines(tmp_path, 20)
        run = end_live(live, tmp_path)
    assert run.code == 0, run.err
    assert_accounted(run, CLIP)
    camera = run.report["cameras"]["rgb"]
    assert (camera["state"], camera["outages"]) == ("ended", 1)
    assert f"http://127.0.0.1:{port}/live: lost: " in run.err
    assert run.lines[-1]["missing"] == ["rgb"]
    alone = [line for line in run.lines if line["missing"] == ["rgb"]]
    gaps_us = sorted(b["t_us"] - a["t_us"] for a, b in pairwise(alone) if b["seq"] == a["seq"] + 1)
    assert len(gaps_us) > 5
    assert gaps_us[len(gaps_us) // 2] == pytest.approx(33_333, abs=2_000)


def test_garbage_in_the_middle_of_a_stream_costs_itself_alone(
    model: Path, shared_events: Path, tmp_path: Path
) -> None:
    paced = read_paced(shared_events / "ecpy_test1_evt3_triggers.raw")
    middle = len(paced.pieces) // 2
    bad = (paced.pieces[middle][0], garbage(20_001))
    spoilt = PacedBytes(paced.header, [*paced.pieces[:middle], bad, *paced.pieces[middle:]])
    with serve_tcp(spoilt.write_to) as port:
        source = f"tcp://127.0.0.1:{port}"
        run = end_live(
            start_live(tmp_path, model, "--events", source, "--rgb", "none", "--retry", 0), tmp_path
        )
    assert run.code == 0, run.err
    assert_accounted(run, CLIP)
    events = run.event_camera["events"]
    assert 20_000 <= events["garbage_bytes"] <= 20_001 + 2 * RECEIVE_BYTES
    assert events["resyncs"] == 1
    assert 343_474 - events["garbage_bytes"] // 2 <= events["received"] <= 343_474
    assert any("bytes were no events and were passed over" in text for text in run.report["warnings"])
    assert run.lines[-1]["t_us"] - run.lines[0]["t_us"] > 1_500_000


def test_a_clock_that_goes_back_goes_on_by_the_hosts(
    model: Path, shared_events: Path, tmp_path: Path
) -> None:
    paced = read_paced(shared_events / "ecpy_test1_evt3_triggers.raw")
    later_s = paced.pieces[-1][0]
    again = [(later_s + due_s, piece) for due_s, piece in paced.pieces]
    twice = PacedBytes(paced.header, [*paced.pieces, *again])
    with serve_tcp(twice.write_to) as port:
        source = f"tcp://127.0.0.1:{port}"
        run = end_live(
            start_live(tmp_path, model, "--events", source, "--rgb", "none", "--retry", 0), tmp_path
        )
    assert run.code == 0, run.err
    assert_accounted(run, CLIP)
    assert run.err.count("the event camera's clock was set to") == 1
    events = run.event_camera["events"]
    assert 2 * 343_474 - events["garbage_bytes"] // 2 <= events["received"] <= 2 * 343_474
    assert events["garbage_bytes"] <= 8 * RECEIVE_BYTES
    assert all(a["t_us"] < b["t_us"] for a, b in pairwise(run.lines))
    assert run.lines[-1]["t_us"] - run.lines[0]["t_us"] > 3_000_000


def test_sigterm_under_load_ends_with_every_file_closed(
    model: Path, demo: PacedBytes, tmp_path: Path
) -> None:
    port = free_port()
    with peer(serve_video(port, "mpegts")), serve_tcp(demo.write_to) as events_port:
        wait_until_served(port)
        live = start_live(
            tmp_path,
            *(model, "--events", f"tcp://127.0.0.1:{events_port}", "--rgb", f"http://127.0.0.1:{port}/live"),
            *("--record", tmp_path / "rec", "--video", tmp_path / "o.mp4", "--serve", "127.0.0.1:0"),
        )
        wait_for_lines(tmp_path, 30)
        live.send_signal(signal.SIGTERM)
        begin_s = time.monotonic()
        run = end_live(live, tmp_path)
    assert run.code == 0, run.err
    assert time.monotonic() - begin_s < 30
    assert "Traceback" not in run.err
    assert run.report["stopped"] is True
    assert_accounted(run, CLIP)
    assert json.loads((tmp_path / "rec" / "recording.json").read_text())["ended"] is not None
    for name in ("o.mp4", "rec/video.mp4"):
        with av.open(str(tmp_path / name)) as container:
            assert sum(1 for _ in container.decode(video=0)) > 20
    (tmp_path / "again").mkdir()
    again = end_live(
        start_live(tmp_path / "again", model, tmp_path / "rec", "--pace", "max"), tmp_path / "again"
    )
    assert (again.code, len(again.lines) > 20) == (0, True), again.err
