"""The packaged recording through the packaged model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pytest

from tests.fakes import FakeClock
from tests.runtime.streaming import stream_and_clips
from velora_cli.live.live import demo
from velora_edge.bundle import Bundle, find_model, open_bundle
from velora_edge.console import run
from velora_edge.preprocessing.packer import Packer, Pair
from velora_edge.preprocessing.registry import open_event_source, open_rgb_source
from velora_edge.preprocessing.sync import SyncOptions, choose_sync
from velora_edge.preprocessing.windows import WindowRule

if TYPE_CHECKING:
    from pathlib import Path

ASSETS = find_model("demo").parent


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return open_bundle("demo")


@pytest.fixture(scope="module")
def pairs(bundle: Bundle) -> tuple[np.ndarray, np.ndarray]:
    """The demo recording's pairs at the model's size: RGB and event images, uint8[pairs, H, W, 3]."""
    reader, rgb = open_event_source(str(ASSETS / "demo.raw")), open_rgb_source(str(ASSETS / "demo.mp4"))
    assert reader is not None
    assert rgb is not None
    with reader.stream() as stream:
        sync = choose_sync(SyncOptions("trigger"), rgb, reader, stream.t_next_us)
        windows = WindowRule(bundle.manifest.event.window_us)
        packer = Packer(bundle.manifest, stream, windows, FakeClock())
        images = []
        for frame in rgb:
            placed = sync.place(frame)
            assert placed is not None
            packed = Pair.empty(bundle.manifest.image_size)
            packer.pack_into(packed, placed.t_us, placed, 0)
            images.append((packed.rgb_image, packed.event_image))
    return np.array([rgb for rgb, _ in images]), np.array([event for _, event in images])


def assert_right_in_each_action(lines: list[dict[str, Any]], clip_length: int) -> None:
    """Wherever a whole clip lies within one action, the label is the action's, with few exceptions."""
    for action in json.loads((ASSETS / "demo.json").read_text())["actions"]:
        first_us = action["start_us"] + clip_length * 34_000
        seen = [line["label"] for line in lines if first_us <= line["t_us"] < action["end_us"]]
        assert len(seen) > 15
        assert seen.count(action["label"]) >= 0.9 * len(seen), action


def test_demo_leaves_predictions_overlay_and_summary(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(demo, ["--out-dir", str(tmp_path / "demo")], name="velora demo") == 0
    assert sorted(p.name for p in (tmp_path / "demo").iterdir()) == [
        "overlay.mp4",
        "predictions.jsonl",
        "summary.json",
    ]
    lines = [json.loads(line) for line in (tmp_path / "demo" / "predictions.jsonl").read_text().splitlines()]
    report = json.loads((tmp_path / "demo" / "summary.json").read_text())
    waiting = (bundle.manifest.clip_length - 1) * bundle.manifest.stride
    assert len(lines) == report["predictions"] == report["pairs"] - waiting
    assert [line["seq"] for line in lines] == list(range(waiting, report["pairs"]))
    assert {line["label"] for line in lines} <= set(bundle.manifest.labels)
    assert report["dropped"] == {
        "rgb": 0,
        "events": 0,
        "pairs": 0,
        "sinks": {"terminal": 0, "jsonl": 0, "video": 0},
    }
    with av.open(str(tmp_path / "demo" / "overlay.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == report["pairs"]
    assert_right_in_each_action(lines, bundle.manifest.clip_length)
    printed = capsys.readouterr().out.splitlines()
    assert [float(line.split()[0]) for line in printed[: len(lines)]] == [
        round(line["t_us"] / 1e6, 3) for line in lines
    ]
    assert printed[-1].startswith("next     velora-live ")


def lost(pairs: int, camera: str, first: int, last: int) -> str:
    """Both cameras, but only `camera` from pair `first` to before `last`."""
    return "b" * first + camera * (last - first) + "b" * (pairs - last)


CAMERAS = {
    "both": lambda n: "b" * n,
    "events alone": lambda n: "e" * n,
    "RGB alone": lambda n: "r" * n,
    "RGB lost for a while": lambda n: lost(n, "e", 60, 75),
    "events lost for a while": lambda n: lost(n, "r", 60, 75),
}


@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("kinds_of", CAMERAS.values(), ids=CAMERAS)
def test_streaming_equals_whole_clips_of_the_demo(
    bundle: Bundle, pairs: tuple[np.ndarray, np.ndarray], kinds_of: object, stride: int
) -> None:
    rgb, event = (images[40:90] for images in pairs)
    kinds = kinds_of(len(pairs[0]))[40:90]  # type: ignore[operator]
    assert_streaming_equals_clips(bundle, stride, rgb, event, kinds, every=9)


@pytest.mark.slow
@pytest.mark.parametrize("stride", [1, 3])
def test_streaming_equals_every_whole_clip_of_the_demo(
    bundle: Bundle, pairs: tuple[np.ndarray, np.ndarray], stride: int
) -> None:
    assert_streaming_equals_clips(bundle, stride, *pairs, "b" * len(pairs[0]), every=1)


def assert_streaming_equals_clips(
    bundle: Bundle, stride: int, rgb: np.ndarray, event: np.ndarray, kinds: str, every: int
) -> None:
    strided = Bundle(bundle.path, bundle.manifest.model_copy(update={"stride": stride}))
    streamed, whole = stream_and_clips(strided, rgb, event, kinds, every)
    assert len(streamed) >= (len(kinds) - (bundle.manifest.clip_length - 1) * stride) // every
    np.testing.assert_allclose(streamed, whole, atol=1e-4)
