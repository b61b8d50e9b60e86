from __future__ import annotations

import json

import av
import numpy as np
import pytest

from velora_edge import open_events
from velora_edge.data.synthetic.demo_recording import ASSETS, exposure_edges, plan, render_demo
from velora_edge.data.synthetic.synthetic import LABELS


@pytest.fixture(scope="module")
def facts():
    return json.loads((ASSETS / "demo.json").read_text())


def frame_times_us(path) -> list[int]:
    with av.open(str(path)) as file:
        return [int(frame.pts * frame.time_base * 1_000_000) for frame in file.decode(video=0)]


def test_packaged_recording_is_small():
    assert sum((ASSETS / f"demo.{ending}").stat().st_size for ending in ("raw", "mp4")) < 3_000_000


def test_packaged_recording_shows_six_labels_in_eight_seconds(facts):
    labels = [action["label"] for action in facts["actions"]]
    assert len(set(labels)) >= 6
    assert set(labels) <= set(LABELS)
    assert all(1_000_000 <= a["end_us"] - a["start_us"] <= 1_500_000 for a in facts["actions"])
    assert all(
        a["end_us"] < b["start_us"] for a, b in zip(facts["actions"], facts["actions"][1:], strict=False)
    )


def test_packaged_cameras_share_a_clock(facts):
    reader = open_events(ASSETS / "demo.raw")
    events, triggers = reader.read(), reader.triggers()
    assert (reader.format, [reader.width, reader.height], reader.warnings) == ("EVT3", facts["sensor"], [])
    assert len(events) == facts["events"]
    assert triggers.p.tolist() == [1, 0] * facts["pictures"]
    up, down = triggers.t_us[::2], triggers.t_us[1::2]
    assert (down - up == facts["exposure_us"]).all()
    assert frame_times_us(ASSETS / "demo.mp4") == up.tolist()
    assert events.t_us[-1] < up[-1] + facts["exposure_us"]


def test_packaged_events_are_where_the_actions_are(facts):
    events = open_events(ASSETS / "demo.raw").read()
    edges = [0] + [t for a in facts["actions"] for t in (a["start_us"], a["end_us"])]
    rates = np.diff(np.searchsorted(events.t_us, edges)) / np.diff(edges)
    pauses, actions = rates[::2], rates[1::2]
    assert actions.min() > 5 * pauses.max()


def test_exposures_are_edges_up_and_down():
    edges = exposure_edges(np.array([50, 150]), 20)
    assert (edges.t_us.tolist(), edges.p.tolist(), edges.id.tolist()) == (
        [40, 60, 140, 160],
        [1, 0, 1, 0],
        [0] * 4,
    )


def test_actions_follow_each_other_after_pauses():
    first, second = plan(["red-up", "blue-left"])
    assert (first.label, first.start_us, first.end_us) == ("red-up", 100_000, 1_100_000)
    assert (second.label, second.start_us, second.end_us) == ("blue-left", 1_400_000, 2_400_000)


@pytest.mark.slow
def test_the_script_makes_the_packaged_recording_again(tmp_path, facts):
    render_demo(tmp_path)
    again = json.loads((tmp_path / "demo.json").read_text())
    # Other processors round the logarithm otherwise, which moves an event here and there.
    assert again.pop("events") == pytest.approx(facts["events"], rel=1e-3)
    assert again == {name: value for name, value in facts.items() if name != "events"}
    assert frame_times_us(tmp_path / "demo.mp4") == frame_times_us(ASSETS / "demo.mp4")
