"""The page in a real browser: pictures move, labels change, the buttons make recordings that replay.

VELORA_SCREENSHOTS=docs/images (`make screenshots`) takes the picture that the README shows, of the demo.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest

from tests.chromium import Chromium, find_chromium, page_of
from tests.fakes import write_tiny_bundle
from velora_cli.live.live import command
from velora_edge.console import run
from velora_edge.data.layouts.recording_index import index_recordings
from velora_edge.datatypes import EventBatch, TriggerBatch
from velora_edge.events.registry import open_events
from velora_edge.events.writers import open_writer
from velora_edge.preprocessing.folder import read_recording
from velora_edge.preprocessing.segments import Segment, read_segments

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

pytest.importorskip("uvicorn", reason="needs the web extra: pip install -e '.[web]'")
pytestmark = pytest.mark.slow

ASSETS = Path(__file__).parents[3] / "velora_edge" / "assets"


@pytest.fixture(scope="module")
def long_demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The demo recording eight times in a row: a minute."""
    find_chromium()
    folder = tmp_path_factory.mktemp("demo")
    with open_events(ASSETS / "demo.raw") as reader:
        batch, edges, sensor = reader.read(), reader.triggers(), (reader.width, reader.height)
    frames = list(decode(ASSETS / "demo.mp4"))
    period_us = round(float(frames[-1].time + frames[1].time) * 1e6)
    with open_writer(folder / "demo.raw", "EVT3", width=sensor[0], height=sensor[1]) as writer:
        for k in range(8):
            writer.write_triggers(TriggerBatch(edges.t_us + k * period_us, edges.id, edges.p))
            writer.write(EventBatch(batch.t_us + k * period_us, batch.x, batch.y, batch.p))
    with av.open(str(folder / "demo.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "ultrafast", "bf": "0"})
        stream.height, stream.width, stream.pix_fmt = sensor[1], sensor[0], "yuv420p"
        stream.codec_context.time_base = Fraction(1, 90_000)
        for k in range(8):
            for frame in frames:
                copy = av.VideoFrame.from_ndarray(frame.to_ndarray(format="rgb24"), format="rgb24")
                copy.pts = round((float(frame.time) + k * period_us / 1e6) * 90_000)
                copy.time_base = Fraction(1, 90_000)
                container.mux(stream.encode(copy))
        container.mux(stream.encode(None))
    return folder / "demo.raw", folder / "demo.mp4"


def decode(path: Path) -> Iterator[av.VideoFrame]:
    with av.open(str(path)) as container:
        yield from container.decode(video=0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose labels change often over the demo recording."""
    folder = tmp_path_factory.mktemp("models") / "tiny.velora"
    event = write_tiny_bundle(folder).manifest.event.model_copy(update={"window_us": 33_333})
    return write_tiny_bundle(folder, 3, event=event).path


@contextlib.contextmanager
def served(
    model: object, events: Path, rgb: Path, *options: object
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The page's address, of a run in a process of its own."""
    with serving("live", model, "--events", events, "--rgb", rgb, "--quiet", *options) as both:
        yield both


def serving(*args: object) -> contextlib.AbstractContextManager[tuple[str, subprocess.Popen[str]]]:
    """The address of the page that a run opens, in a process of its own."""
    return page_of("watch", *args, "--serve", "127.0.0.1:0")


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chromium]:
    made = Chromium(tmp_path / "profile")
    yield made
    made.close()


PIXELS = """(() => {
  const image = document.getElementById("CAMERA"), canvas = document.createElement("canvas");
  if (image.hidden || !image.naturalWidth) return null;
  canvas.width = canvas.height = 32;
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0, 32, 32);
  return Array.from(context.getImageData(0, 0, 32, 32).data);
})()"""


def see(browser: Chromium, camera: str) -> np.ndarray:
    browser.wait_for(PIXELS.replace("CAMERA", camera), f"a picture of {camera}")
    return np.array(browser.evaluate(PIXELS.replace("CAMERA", camera)), np.int64)


def text(browser: Chromium, element: str) -> str:
    return str(browser.evaluate(f'document.getElementById("{element}").textContent'))


def test_pictures_move_labels_change_and_the_buttons_record(
    tiny: Path, long_demo: tuple[Path, Path], tmp_path: Path, browser: Chromium
) -> None:
    with served(tiny, *long_demo, "--recordings", tmp_path / "rs") as (address, process):
        browser.open(address)
        browser.wait_for('document.getElementById("health").textContent === "ok"', "a healthy run")
        for camera in ("rgb", "event"):
            first = see(browser, camera)
            assert first.std() > 1
            number = browser.evaluate(f'Number(document.getElementById("{camera}").dataset.number)')
            browser.wait_for(
                f'Number(document.getElementById("{camera}").dataset.number) > {number} + 30',
                "later pictures",
            )
            assert np.abs(see(browser, camera) - first).max() > 10
        label = text(browser, "label")
        browser.wait_for(
            f'document.getElementById("label").textContent !== {json.dumps(label)}', "a new label"
        )
        assert browser.evaluate('document.getElementById("history").children.length') >= 2
        assert browser.evaluate('document.getElementById("latency").children.length') == 4
        assert text(browser, "rgb-state") == text(browser, "event-state") == "live"
        browser.evaluate('document.getElementById("record").click()')
        browser.wait_for('document.getElementById("record").textContent === "Stop recording"', "a recording")
        folder = Path(browser.wait_for("state.recorder.frames >= 60 && state.recorder.folder", "60 frames"))
        browser.evaluate('document.getElementById("record").click()')
        browser.wait_for('document.getElementById("record").textContent === "Record"', "the recording's end")
        browser.evaluate('document.getElementById("clip").click()')
        browser.wait_for('state.recorder.ended.some(it => it.why_ended === "clip")', "a clip")
        assert text(browser, "told") == ""
        assert process.poll() is None
    clip = next((tmp_path / "rs").glob("*_clip"))
    for recording in (folder, clip):
        facts = read_recording(recording).facts
        out = tmp_path / f"{recording.name}.jsonl"
        assert run(command, [str(tiny), str(recording), "--pace", "max", "--quiet", "--out", str(out)]) == 0
        replayed = [json.loads(line)["t_us"] for line in out.read_text().splitlines()]
        assert len(replayed) == facts.counts["frames"] - 2 >= 58
        events = [json.loads(line)["events"] for line in out.read_text().splitlines()]
        assert np.mean(np.array(events) > 0) > 0.9


def click(browser: Chromium, element: str) -> None:
    browser.evaluate(f"document.{element}.click()")


def test_takes_of_a_class_are_counted_down_on_the_page_and_make_a_set(
    long_demo: tuple[Path, Path], tmp_path: Path, browser: Chromium
) -> None:
    events, rgb = long_demo
    plan = ("--label", "wave", "--takes", 2, "--seconds", 2, "--countdown", 3)
    with serving("record", tmp_path / "set", *plan, "--events", events, "--rgb", rgb) as (address, process):
        browser.open(address)
        browser.wait_for('state.takes.phase === "countdown"', "a countdown")
        click(browser, 'querySelector("#sound")')
        browser.wait_for("/^wave, take 1 of 2: in [123]$/.test(take.textContent)", "the countdown's text")
        browser.wait_for('take.textContent === "wave, take 2 of 2: now"', "the second take")
        assert browser.evaluate("audio.state") in ("running", "suspended")
        click(browser, 'querySelector("#again")')
        assert process.wait(90) == 0
    folders = sorted((tmp_path / "set" / "wave").iterdir())
    assert [folder.name.startswith(".") for folder in folders] == [True, False, False]
    for folder in folders[1:]:
        facts = read_recording(folder).facts
        assert facts.first_us is not None
        assert facts.last_us is not None
        assert 1.0 < (facts.last_us - facts.first_us) / 1e6 < 4.0
    assert [recording.item.name for recording in index_recordings(tmp_path / "set").recordings] == [
        f"wave/{folder.name}" for folder in folders[1:]
    ]


def test_buttons_and_keys_on_the_page_mark_the_running_recording(
    long_demo: tuple[Path, Path], tmp_path: Path, browser: Chromium
) -> None:
    events, rgb = long_demo
    folder = tmp_path / "day1"
    args = ("record", folder, "--labels", "wave,rest", "--events", events, "--rgb", rgb)
    with serving(*args) as (address, _):
        browser.open(address)
        browser.wait_for("state.recorder.seconds > 0.5", "pictures")
        click(browser, 'querySelector("#marks button")')
        browser.wait_for('state.marks.open === "wave"', "a mark")
        begun = browser.evaluate("state.recorder.seconds")
        browser.wait_for(f"state.recorder.seconds > {begun + 1}", "a second")
        browser.call("Input.dispatchKeyEvent", type="keyDown", key="2", text="2")
        browser.wait_for('state.marks.open === "rest"', "the next mark")
        assert [segment.label for segment in read_segments(folder / "segments.csv").segments] == ["wave"]
    wave, rest = read_segments(folder / "segments.csv").segments
    assert (wave.label, rest.label) == ("wave", "rest")
    assert 0.3 < wave.start_us / 1e6 < begun + 0.2
    assert wave.end_us == rest.start_us >= (begun + 1) * 1e6 - 200_000


def test_a_recording_can_be_replayed_and_labelled_while_the_run_goes_on(
    tiny: Path, long_demo: tuple[Path, Path], tmp_path: Path, browser: Chromium
) -> None:
    with served(tiny, *long_demo, "--recordings", tmp_path / "rs") as (address, process):
        browser.open(address)
        browser.wait_for('document.getElementById("health").textContent === "ok"', "a healthy run")
        click(browser, 'querySelector("#record")')
        folder = Path(browser.wait_for("state.recorder.seconds > 1 && state.recorder.folder", "a second"))
        click(browser, 'querySelector("#record")')
        link = browser.wait_for('document.querySelector("#recordings a").href', "the recording in the list")
        browser.open(link)
        browser.wait_for("recording.is_read", "the overview")
        assert text(browser, "name") == folder.name
        browser.evaluate("addSegment(0.25, 0.75, 'wave')")
        browser.wait_for('document.getElementById("saved").textContent === "saved"', "the file")
        browser.evaluate("seek(0)")
        click(browser, 'querySelector("#play")')
        browser.wait_for("cursor > 0.5", "the replay")
        assert process.poll() is None
        assert read_segments(folder / "segments.csv").segments == (Segment(250_000, 750_000, "wave"),)
        browser.open(address)
        listed = browser.wait_for('document.querySelector("#recordings div").textContent', "the list")
        assert re.match(rf"{folder.name} \d\.\d s wave$", listed)


def test_a_viewer_without_the_token_gets_a_form_and_with_it_the_page(
    tiny: Path, long_demo: tuple[Path, Path], browser: Chromium
) -> None:
    with served(tiny, *long_demo, "--token", "s3cret") as (address, _):
        bare = address.partition("?")[0]
        browser.open(bare)
        browser.wait_for('document.querySelector("input[name=token]") !== null', "the form")
        browser.evaluate('document.querySelector("input").value = "s3cret"; document.forms[0].submit()')
        browser.wait_for('document.getElementById("health")?.textContent === "ok"', "the page")
        assert browser.evaluate("location.href") == bare


def test_where_no_action_is_clear_the_page_says_idle_and_the_charts_are_drawn(
    tiny: Path, long_demo: tuple[Path, Path], browser: Chromium
) -> None:
    with served(tiny, *long_demo, "--decide", "enter=1") as (address, _):
        browser.open(address)
        browser.wait_for('document.getElementById("label").textContent === "idle"', "an idle label")
        assert re.match(r"no action is clear: \w+ has \d+ %$", text(browser, "score"))
        assert browser.evaluate('document.querySelector("#strip div").textContent') == "idle"
        for chart in ("events", "total", "score"):
            browser.wait_for(
                f"document.getElementById('{chart}-chart').getContext('2d')"
                ".getImageData(0, 0, 1440, 90).data.some(value => value)",
                f"the chart of {chart}",
            )
        assert re.match(r"[\d.]+ pictures a second, \d+ dropped$", text(browser, "rgb-health"))
        assert re.match(r"[\d.]+[KM]? events a second, \d+ dropped$", text(browser, "event-health"))


def test_on_a_phone_nothing_is_wider_than_the_screen(
    tiny: Path, long_demo: tuple[Path, Path], browser: Chromium
) -> None:
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.call("Emulation.setDeviceMetricsOverride", **phone)
    with served(tiny, *long_demo) as (address, _):
        browser.open(address)
        browser.wait_for('document.getElementById("health").textContent === "ok"', "a healthy run")
        assert browser.evaluate("document.documentElement.scrollWidth") == 390


@pytest.mark.parametrize(("scheme", "is_dark"), [("dark", True), ("light", False)])
def test_the_page_is_dark_or_light_as_the_browser_is(
    tiny: Path, long_demo: tuple[Path, Path], browser: Chromium, scheme: str, is_dark: bool
) -> None:
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    with served(tiny, *long_demo) as (address, _):
        browser.open(address)
        found = browser.wait_for("getComputedStyle(document.body).backgroundColor", "the page")
    (red, *_) = map(int, re.findall(r"\d+", found))
    assert (red < 64) is is_dark


def test_a_run_that_has_ended_is_told(tiny: Path, browser: Chromium) -> None:
    with served(tiny, ASSETS / "demo.raw", ASSETS / "demo.mp4", "--duration", 6) as (address, _):
        browser.open(address)
        browser.wait_for('document.getElementById("health").textContent === "ok"', "a healthy run")
        browser.wait_for('document.getElementById("health").textContent === "no connection"', "its end")


def test_the_screenshot_for_the_readme_can_be_taken(tmp_path: Path, browser: Chromium) -> None:
    target = Path(os.environ.get("VELORA_SCREENSHOTS", tmp_path)) / "page.png"
    with served("demo", ASSETS / "demo.raw", ASSETS / "demo.mp4", "--recordings", tmp_path / "rs") as (
        address,
        _,
    ):
        browser.open(address)
        browser.wait_for("state !== null && state.t_us > 5600000", "most of the demo")
        browser.evaluate("showTrend()")
        target.parent.mkdir(parents=True, exist_ok=True)
        browser.save_screenshot(target)
    assert target.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert target.stat().st_size > 20_000
