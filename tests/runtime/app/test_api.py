from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import velora_runtime

import velora_edge
from velora_edge.bundle import find_model
from velora_edge.datatypes import EventBatch
from velora_edge.errors import InputError, SourceError

ASSETS = find_model("demo").parent
EVENTS, VIDEO = ASSETS / "demo.raw", ASSETS / "demo.mp4"
IMAGE = np.full((48, 64, 3), 100, np.uint8)


@pytest.fixture(scope="module")
def said() -> list[tuple[int, str, float]]:
    run = velora_runtime.live("demo", EVENTS, VIDEO, pace="max", sync="trigger", backend="onnxruntime")
    return [(prediction.seq, prediction.label, prediction.score) for prediction in run]


def test_a_loop_gets_every_prediction_of_a_recording(said: list[tuple[int, str, float]]) -> None:
    assert len(said) > 100
    first = said[0][0]
    assert [seq for seq, _, _ in said] == list(range(first, first + len(said)))


def test_pair_by_pair_says_what_the_run_says(said: list[tuple[int, str, float]]) -> None:
    with velora_edge.open_events(EVENTS) as reader:
        events, sensor = reader.read(), (reader.width, reader.height)
    mine = []
    with velora_runtime.Recogniser("demo", sensor, backend="onnxruntime") as recogniser:
        for pair in velora_edge.pairs(EVENTS, VIDEO, sync="trigger"):
            assert pair.rgb is not None
            batch = None
            if pair.event is not None:
                batch = events[slice(*np.searchsorted(events.t_us, [pair.event.t0_us, pair.event.t1_us]))]
            prediction = recogniser.see(pair.rgb.image, batch, pair.t_us)
            if prediction is not None:
                mine.append((prediction.seq, prediction.label, prediction.score))
    assert [(seq, label) for seq, label, _ in mine] == [(seq, label) for seq, label, _ in said]
    np.testing.assert_allclose([s for *_, s in mine], [s for *_, s in said], atol=1e-5)


def test_leaving_the_loop_ends_the_run() -> None:
    with velora_runtime.live("demo", EVENTS, VIDEO, pace="realtime") as run:
        next(run)
    assert run.report is not None
    assert "velora-run" not in [thread.name for thread in threading.enumerate()]


def test_a_slow_loop_gets_the_newest_and_the_report_counts_the_others(
    said: list[tuple[int, str, float]],
) -> None:
    assert said  # kernels are compiled, so that the run keeps up
    with velora_runtime.live("demo", EVENTS, VIDEO, pace="realtime", duration_s=5) as run:
        first = next(run, None)
        time.sleep(1.5)
        seen = [prediction.seq for prediction in (first, *run) if prediction is not None]
    assert run.report is not None
    if run.report.predictions < 60:  # of 5 s at 30 Hz
        pytest.skip(f"needs a machine that keeps up: the run made {run.report.predictions} predictions")
    assert max(np.diff(seen)) > 10
    assert run.report.sink_drops["program"] == run.report.predictions - len(seen)


def test_what_is_wrong_is_raised_in_the_loop() -> None:
    with pytest.raises(SourceError, match="no such file"):
        next(velora_runtime.live("demo", "nowhere.raw"))


class TestRecogniser:
    @pytest.fixture
    def recogniser(self) -> velora_runtime.Recogniser:
        return velora_runtime.Recogniser("demo", sensor=(64, 48), backend="onnxruntime")

    def test_tells_how_many_pairs_are_missing(self, recogniser: velora_runtime.Recogniser) -> None:
        needed = recogniser.missing
        assert [recogniser.see(IMAGE) is None for _ in range(needed)] == [True] * (needed - 1) + [False]

    def test_takes_arrays_with_fields_in_any_order(self, recogniser: velora_runtime.Recogniser) -> None:
        table = np.zeros(3, [("p", "i1"), ("y", "i4"), ("x", "i4"), ("ts", "i8")])
        table["ts"] = [5, 6, 7]
        while (prediction := recogniser.see(None, table)) is None:
            table["ts"] += 33_333
        assert prediction.events == 3
        assert prediction.t_us == table["ts"][-1] + 1

    def test_refuses_events_outside_the_sensor(self, recogniser: velora_runtime.Recogniser) -> None:
        one = EventBatch(
            np.array([1], np.int64),
            np.array([64], np.uint16),
            np.array([0], np.uint16),
            np.zeros(1, np.uint8),
        )
        with pytest.raises(InputError, match="expected x below 64 and y below 48, got up to 64 and 0"):
            recogniser.see(None, one)

    def test_refuses_what_is_no_picture(self, recogniser: velora_runtime.Recogniser) -> None:
        with pytest.raises(InputError, match=r"expected uint8 of shape \(H, W, 3\), got float32"):
            recogniser.see(np.zeros((4, 4, 3), np.float32))  # type: ignore[arg-type]

    def test_refuses_nothing_and_events_without_a_sensor(self) -> None:
        recogniser = velora_runtime.Recogniser("demo", backend="onnxruntime")
        with pytest.raises(InputError, match="expected a picture, events, or both"):
            recogniser.see()
        with pytest.raises(InputError, match="events need the sensor's size"):
            recogniser.see(None, EventBatch.empty())
