"""The labelling page in a real browser: mark, drag, rename, undo; what it saves is a data set that trains."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.chromium import Chromium, find_chromium, page_of
from tests.fakes import write_tiny_bundle
from velora_edge.bundle import find_model
from velora_edge.console import run
from velora_edge.preprocessing.segments import Segment, read_segments

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("uvicorn", reason="needs the web extra: pip install -e '.[web]'")
pytestmark = pytest.mark.slow
ASSETS = find_model("demo").parent


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set with one recording: 7.6 s of the demo."""
    from velora_cli.main import velora

    find_chromium()
    folder = tmp_path_factory.mktemp("set") / "day1"
    cameras = ("--events", ASSETS / "demo.raw", "--rgb", ASSETS / "demo.mp4", "--sync", "trigger")
    assert run(velora, list(map(str, ["record", folder, *cameras, "--pace", "max"]))) == 0
    return folder


@pytest.fixture
def recording(recorded: Path) -> Path:
    """The same, not labelled."""
    (recorded / "segments.csv").unlink(missing_ok=True)
    return recorded


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chromium]:
    made = Chromium(tmp_path / "profile")
    yield made
    made.close()


@contextlib.contextmanager
def labelling(recording: Path, *options: object) -> Iterator[str]:
    """The page's address, of a process of its own."""
    with page_of("label", "label", recording, *options) as (address, process):
        yield address
    assert process.returncode == 0


def open_page(browser: Chromium, address: str) -> None:
    browser.open(address)
    browser.wait_for("recording.is_read", "the whole recording", seconds=120)


def place(browser: Chromium, seconds: float) -> tuple[float, float]:
    """Where a time is on the lane of the segments, pixels."""
    box = browser.evaluate(
        "(() => { const b = document.getElementById('segments').getBoundingClientRect();"
        "return [b.left, b.top + b.height / 2, b.width, view.from, view.to] })()"
    )
    left, y, width, start, end = box
    return left + (seconds - start) / (end - start) * width, y


def drag(browser: Chromium, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Press the mouse's button, move, and let go."""
    middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
    mouse(browser, "mouseMoved", start, buttons=0)
    mouse(browser, "mousePressed", start)
    for at in (middle, end):
        mouse(browser, "mouseMoved", at)
    mouse(browser, "mouseReleased", end, buttons=0)


def mouse(browser: Chromium, kind: str, at: tuple[float, float], buttons: int = 1) -> None:
    button = "none" if kind == "mouseMoved" and not buttons else "left"
    browser.call(
        "Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], button=button, buttons=buttons, clickCount=1
    )


def press(browser: Chromium, key: str, *, ctrl: bool = False) -> None:
    """Press a key; a letter is typed where it is not a command."""
    text = {} if ctrl or len(key) > 1 else {"text": key}
    for kind, more in (("keyDown", text), ("keyUp", {})):
        browser.call("Input.dispatchKeyEvent", type=kind, key=key, modifiers=2 if ctrl else 0, **more)


def saved(browser: Chromium, recording: Path) -> list[tuple[float, float, str]]:
    """Segments in the file once the page says that they are saved, in tenths of a second."""
    browser.wait_for("!isSaving && document.getElementById('saved').textContent === 'saved'", "a saved list")
    found = read_segments(recording / "segments.csv")
    assert found.problems == ()
    return [(round(s.start_us / 1e6, 1), round(s.end_us / 1e6, 1), s.label) for s in found.segments]


def test_segments_are_drawn_moved_renamed_undone_and_saved_and_the_set_trains(
    recording: Path, browser: Chromium, tmp_path: Path
) -> None:
    with labelling(recording, "--labels", "wave,rest") as address:
        open_page(browser, address)
        drag(browser, place(browser, 1), place(browser, 2))
        assert saved(browser, recording) == [(1.0, 2.0, "wave")]
        drag(browser, place(browser, 1.5), place(browser, 2.5))  # by its middle
        assert saved(browser, recording) == [(2.0, 3.0, "wave")]
        drag(browser, (place(browser, 3)[0] - 4, place(browser, 3)[1]), place(browser, 4))  # by its end
        assert saved(browser, recording) == [(2.0, 4.0, "wave")]
        press(browser, "z", ctrl=True)
        assert saved(browser, recording) == [(2.0, 3.0, "wave")]
        press(browser, "y", ctrl=True)
        assert saved(browser, recording) == [(2.0, 4.0, "wave")]
        browser.evaluate("seek(5)")
        press(browser, "2")
        browser.evaluate("seek(7)")
        press(browser, "2")
        assert saved(browser, recording) == [(2.0, 4.0, "wave"), (5.0, 7.0, "rest")]
        mouse(browser, "mousePressed", place(browser, 3))
        mouse(browser, "mouseReleased", place(browser, 3), buttons=0)
        press(browser, "r")
        browser.call("Input.insertText", text="circle")
        press(browser, "Enter")
        browser.evaluate("document.activeElement.blur()")
        assert saved(browser, recording) == [(2.0, 4.0, "circle"), (5.0, 7.0, "rest")]
        for key, start, part in (
            ("3", 0.5, "val"),
            ("2", 4.2, "val"),
            ("3", 1.2, "test"),
            ("2", 7.1, "test"),
        ):
            mark(browser, key, start, start + 0.4)
            choose_part(browser, part)
        assert len(saved(browser, recording)) == 6
    assert train(recording.parent, tmp_path) == ("circle", "rest")


def mark(browser: Chromium, key: str, start: float, end: float) -> None:
    """Begin and end a segment by its label's key."""
    for t in (start, end):
        browser.evaluate(f"seek({t})")
        press(browser, key)


def choose_part(browser: Chromium, part: str) -> None:
    """Choose the selected segment's part of the data set, as the list's own event does."""
    browser.evaluate(
        f"(() => {{ const list = document.getElementById('split'); list.value = '{part}';"
        "list.dispatchEvent(new Event('change')); })()"
    )


def train(folder: Path, tmp_path: Path) -> tuple[str, ...]:
    """Two steps of a toy model on a set of recordings, by the commands that a user types; its labels."""
    pytest.importorskip("torch", reason="needs the train extra")
    from tests.train.toy_runs import toy_tree
    from velora_cli.main import velora
    from velora_edge.model.checkpoint import read_checkpoint
    from velora_edge.train.run import read_metrics

    config, store = tmp_path / "c.yaml", tmp_path / "set.h5"
    config.write_text(yaml.safe_dump(toy_tree(tmp_path / "runs", store, epochs=2, batch_size=2)))
    assert run(velora, ["dataset", "build", str(folder), str(store), "--for", str(config)]) == 0
    assert run(velora, ["train", str(config)]) == 0
    assert read_metrics(tmp_path / "runs/toy")[-1]["step"] == 2
    return read_checkpoint(tmp_path / "runs/toy/best").model.labels


def test_what_a_model_says_is_offered_and_taken(recording: Path, browser: Chromium, tmp_path: Path) -> None:
    model = write_tiny_bundle(tmp_path / "tiny.velora").path
    with labelling(recording, "--model", model) as address:
        open_page(browser, address)
        browser.wait_for("!recording.is_suggesting && recording.suggestions.length", "suggestions", 60)
        first: dict[str, Any] = browser.evaluate("recording.suggestions[0]")
        browser.evaluate(f"seek({(first['start'] + first['end']) / 2})")
        press(browser, "a")
        saved(browser, recording)
    assert read_segments(recording / "segments.csv").segments == (
        Segment(round(first["start"] * 1e6), round(first["end"] * 1e6), first["label"]),
    )


def test_the_screenshot_for_the_guide_can_be_taken(
    recording: Path, browser: Chromium, tmp_path: Path
) -> None:
    target = Path(os.environ.get("VELORA_SCREENSHOTS", tmp_path)) / "label.png"
    with labelling(recording, "--model", "demo") as address:
        open_page(browser, address)
        browser.wait_for("!recording.is_suggesting && recording.suggestions.length", "suggestions", 120)
        browser.evaluate(
            "recording.suggestions.filter(one => one.end - one.start > 0.4).slice(0, 4).forEach(take)"
        )
        browser.evaluate("seek(2.1)")
        saved(browser, recording)
        browser.wait_for("document.getElementById('rgb').complete", "the picture")
        browser.save_screenshot(target)
    assert target.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert target.stat().st_size > 20_000


def test_a_list_that_was_changed_elsewhere_is_not_written_over(recording: Path, browser: Chromium) -> None:
    with labelling(recording) as address:
        open_page(browser, address)
        (recording / "segments.csv").write_text("start,end,label\n0,1,mine\n")
        drag(browser, place(browser, 1), place(browser, 2))
        browser.wait_for("document.getElementById('saved').textContent === 'not saved'", "a refusal")
        told = browser.evaluate("document.getElementById('told').textContent")
    assert told == "the segments were changed elsewhere"
    assert (recording / "segments.csv").read_text() == "start,end,label\n0,1,mine\n"
