"""Renderer of the packaged demo recording: `python -m velora_edge.data.synthetic.demo_recording [FOLDER]`.

Writes `demo.raw` (EVT3; the trigger input 0 rises and falls with each exposure of the RGB camera), `demo.mp4`
(H.264, times of the same clock, but for half of an exposure) and `demo.json` (what is shown when).
"""

from __future__ import annotations

import json
import sys
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge.data.synthetic.synthetic import Action, SceneModel, render_actions
from velora_edge.datatypes import TriggerBatch
from velora_edge.events.writers import open_writer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

ASSETS = Path(__file__).parents[2] / "assets"
SEED = 2024
SHOWN = ("red-right", "blue-up", "green-left", "red-down", "blue-left", "green-right")
ACTION_US = 1_000_000
PAUSE_US = 300_000
LEAD_US = 100_000
"""Before the first action: the camera looks at the empty ground."""
SCENE = SceneModel(noise_rate_hz=(0.1, 0.1), light_swing=(0.06, 0.06))


def render_demo(
    folder: Path, shown: Sequence[str] = SHOWN, seed: int = SEED, scene: SceneModel = SCENE
) -> None:
    """Write the three files of the demo recording into an existing folder.

    Args:
        folder: where to; files of these names are replaced.
        shown: the actions, one after the other.
        seed: of the scene and both cameras.
        scene: what is shown.
    """
    actions = plan(shown)
    pictures = (actions[-1].end_us + LEAD_US) // scene.period_us
    # The first exposure begins at 0, where the clock does.
    t_us = scene.exposure_us // 2 + scene.period_us * np.arange(pictures, dtype=np.int64)
    images, events = render_actions(actions, t_us, seed, scene)
    with open_writer(folder / "demo.raw", width=scene.side_px, height=scene.side_px) as writer:
        writer.write_triggers(exposure_edges(t_us, scene.exposure_us))
        writer.write(events)
    write_video(folder / "demo.mp4", images, t_us)
    facts = {
        "made_by": "python -m velora_edge.data.synthetic.demo_recording",
        "seed": seed,
        "sensor": [scene.side_px, scene.side_px],
        "pictures": int(pictures),
        "events": len(events),
        "exposure_us": scene.exposure_us,
        "actions": [action._asdict() for action in actions],
    }
    (folder / "demo.json").write_text(json.dumps(facts, indent=1) + "\n")


def plan(shown: Sequence[str]) -> list[Action]:
    """When each action is shown."""
    starts = [LEAD_US + i * (ACTION_US + PAUSE_US) for i in range(len(shown))]
    return [Action(label, start, start + ACTION_US) for label, start in zip(shown, starts, strict=True)]


def exposure_edges(t_us: NDArray[np.int64], exposure_us: int) -> TriggerBatch:
    """Up at the start of each exposure, down at its end; `t_us` are their middles."""
    n = len(t_us)
    times = np.stack([t_us - exposure_us // 2, t_us + exposure_us // 2], axis=1).reshape(-1)
    return TriggerBatch(times, np.zeros(2 * n, np.uint8), np.tile(np.array([1, 0], np.uint8), n))


def write_video(path: Path, images: NDArray[np.uint8], t_us: NDArray[np.int64]) -> None:
    """Write H.264 with the given presentation times.

    Args:
        path: of the file.
        images: uint8[T, H, W, 3], RGB order.
        t_us: int64[T]; the first becomes 0, for an mp4 begins there.
    """
    import av

    # An mp4 counts in fractions of a second that fit 32 bits; a microsecond does.
    clock = Fraction(1, 1_000_000)
    with av.open(
        str(path), "w", options={"movflags": "faststart", "video_track_timescale": "1000000"}
    ) as file:
        stream: Any = file.add_stream(
            "libx264", rate=30, options={"crf": "16", "preset": "veryslow", "bf": "0"}
        )
        stream.height, stream.width = images.shape[1:3]
        stream.pix_fmt, stream.time_base, stream.codec_context.time_base = "yuv420p", clock, clock
        for image, pts in zip(images, (t_us - t_us[0]).tolist(), strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = pts, clock
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


if __name__ == "__main__":
    render_demo(Path(sys.argv[1]) if len(sys.argv) > 1 else ASSETS)
