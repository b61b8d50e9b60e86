"""When actions start and end, by sequences of scores worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from velora_runtime.inference.decision import UNKNOWN, Action, Decided, Decider, DecisionSettings

from velora_edge.errors import ConfigError

LABELS = ("wave", "clap", "still")
PLAIN = DecisionSettings(smooth_ms=0, enter=0.6, leave=0.4, margin=0, hold_ms=0, gap_ms=1000)


def decider(**changes: object) -> Decider:
    return Decider(LABELS, DecisionSettings.model_validate({**PLAIN.model_dump(), **changes}))


def feed(decider: Decider, waves: list[float], *, every_ms: int = 100, others: str = "clap") -> list[Action]:
    """Predictions from 0 ms on; what `wave` lacks to 1, one other label has."""
    actions: list[Action] = []
    for seq, wave in enumerate(waves):
        scores = np.zeros(3, np.float32)
        scores[0], scores[LABELS.index(others)] = wave, 1 - wave
        actions += decider.see(seq, seq * every_ms * 1000, scores)
    return actions


def spread(decider: Decider, rows: list[tuple[float, float, float]], every_ms: int = 100) -> list[Action]:
    found: list[Action] = []
    for seq, row in enumerate(rows):
        found += decider.see(seq, seq * every_ms * 1000, np.array(row, np.float32))
    return found


def in_short(actions: list[Action]) -> list[tuple[object, ...]]:
    """Label, `+` start or `-` end, when it happened and when it was decided, ms, and why."""
    return [
        (a.label, "+", a.from_us // 1000, a.t_us // 1000)
        if a.to_us is None
        else (a.label, "-", a.to_us // 1000, a.t_us // 1000, a.why)
        for a in actions
    ]


def test_an_action_starts_at_enter_and_goes_on_down_to_leave() -> None:
    rows = [(w, (1 - w) / 2, (1 - w) / 2) for w in (0.5, 0.59, 0.6, 0.45, 0.41, 0.39, 0.59, 0.7)]
    assert in_short(spread(decider(), rows)) == [
        ("wave", "+", 200, 200),
        ("wave", "-", 500, 500, "weak"),
        ("wave", "+", 700, 700),
    ]


def test_a_start_and_its_end_are_told_whole() -> None:
    rows = [(0.75, 0.25, 0.0), (0.875, 0.125, 0.0), (0.25, 0.25, 0.5)]
    assert spread(decider(), rows) == [
        Action(0, "wave", 0.75, 0, 0, 0),
        Action(0, "wave", 0.875, 2, 200_000, 0, 200_000, "weak"),
    ]


def test_another_label_takes_the_place_of_the_first_at_the_same_moment() -> None:
    actions = feed(decider(), [1.0, 1.0, 0.0])
    assert in_short(actions) == [
        ("wave", "+", 0, 0),
        ("wave", "-", 200, 200, "other"),
        ("clap", "+", 200, 200),
    ]
    assert [a.number for a in actions] == [0, 0, 1]


def test_another_label_needs_the_margin_over_one_that_still_holds() -> None:
    settings = {"enter": 0.4, "leave": 0.3, "margin": 0.25}
    rows = [(0.5, 0.5, 0.0), (0.375, 0.5, 0.125), (0.3125, 0.5625, 0.125)]
    assert in_short(spread(decider(**settings), rows)) == [
        ("wave", "+", 0, 0),
        ("wave", "-", 200, 200, "other"),
        ("clap", "+", 200, 200),
    ]


def test_the_margin_does_not_keep_a_label_that_has_faded() -> None:
    rows = [(0.75, 0.25, 0.0), (0.375, 0.625, 0.0)]
    assert in_short(spread(decider(margin=0.5), rows))[1:] == [
        ("wave", "-", 100, 100, "other"),
        ("clap", "+", 100, 100),
    ]


def test_a_change_must_hold_and_is_dated_back_to_its_beginning() -> None:
    waves = [1.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    assert in_short(feed(decider(hold_ms=200), waves)) == [
        ("wave", "+", 0, 200),
        ("wave", "-", 500, 700, "other"),
        ("clap", "+", 500, 700),
    ]


def test_one_prediction_that_disagrees_changes_nothing() -> None:
    assert in_short(feed(decider(hold_ms=200), [1, 1, 1, 0, 1, 1, 0, 1, 1])) == [("wave", "+", 0, 200)]


def test_an_action_ends_though_what_follows_it_keeps_changing() -> None:
    wave, clap, still = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
    rows = [wave, wave, wave, clap, still, clap, still, still, still]
    assert in_short(spread(decider(hold_ms=200), rows)) == [
        ("wave", "+", 0, 200),
        ("wave", "-", 300, 500, "weak"),
        ("still", "+", 600, 800),
    ]


def test_the_average_is_exponential_in_time() -> None:
    layer = decider(smooth_ms=100)
    feed(layer, [0.0, 1.0])
    assert layer.decided.label == "wave"
    assert layer.decided.score == pytest.approx(1 - math.exp(-1))


@pytest.mark.parametrize("every_ms", [10, 50, 250])
def test_the_average_does_not_depend_on_the_rate_of_predictions(every_ms: int) -> None:
    """A step has come to 1 - exp(-500 / 200) of its height after 500 ms, in however many predictions."""
    layer = decider(smooth_ms=200)
    feed(layer, [0.0] + [1.0] * (500 // every_ms), every_ms=every_ms)
    assert layer.decided.score == pytest.approx(1 - math.exp(-2.5))


def test_smoothing_passes_over_a_flash() -> None:
    waves = [0.0] * 5 + [1.0] + [0.0] * 5
    assert in_short(feed(decider(smooth_ms=300), waves)) == [("clap", "+", 0, 0)]
    assert in_short(feed(decider(), waves))[1:3] == [
        ("clap", "-", 500, 500, "other"),
        ("wave", "+", 500, 500),
    ]


def test_missing_predictions_end_an_action_at_the_last_one_and_begin_anew() -> None:
    layer = decider(smooth_ms=10_000)
    wave, clap = np.array([1, 0, 0], np.float32), np.array([0, 1, 0], np.float32)
    actions = [*layer.see(0, 0, wave), *layer.see(1, 1_000_000, wave), *layer.see(9, 2_000_001, clap)]
    assert in_short(actions) == [
        ("wave", "+", 0, 0),
        ("wave", "-", 1000, 2000, "gap"),
        ("clap", "+", 2000, 2000),
    ]


def test_a_gap_interrupts_what_has_not_held_long_enough() -> None:
    layer, wave = decider(hold_ms=500), np.array([1, 0, 0], np.float32)
    times_us = [0, 400_000, 1_500_000, 1_900_000, 2_000_000]
    actions = [action for seq, t_us in enumerate(times_us) for action in layer.see(seq, t_us, wave)]
    assert in_short(actions) == [("wave", "+", 1500, 2000)]


def test_the_end_of_the_run_ends_the_action() -> None:
    layer = decider()
    feed(layer, [1.0, 1.0])
    assert layer.end() == (Action(0, "wave", 1.0, 1, 100_000, 0, 100_000, "end"),)
    assert layer.end() == ()


def test_idle_labels_are_no_actions_and_end_them() -> None:
    layer = decider(idle=["still"])
    actions = feed(layer, [0.0, 0.0, 1.0, 0.0], others="still")
    assert in_short(actions) == [("wave", "+", 200, 200), ("wave", "-", 300, 300, "weak")]
    assert layer.decided == Decided(UNKNOWN, 1.0, None)


def test_before_anything_is_clear_all_is_unknown() -> None:
    layer = decider()
    assert spread(layer, [(0.5, 0.25, 0.25)]) == []
    assert layer.decided == Decided("unknown", 0.5, None)


def test_what_is_going_on_has_its_smoothed_score_and_its_start() -> None:
    layer = decider()
    spread(layer, [(0.75, 0.25, 0.0), (0.5, 0.25, 0.25)])
    assert layer.decided == Decided("wave", 0.5, 0)


def test_the_scores_are_left_alone() -> None:
    scores = np.array([0.5, 0.25, 0.25], np.float32)
    layer = decider(smooth_ms=100)
    for seq in range(3):
        layer.see(seq, seq * 1000, scores)
    assert scores.tolist() == [0.5, 0.25, 0.25]


def test_random_scores_give_starts_and_ends_in_turn_and_in_order() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        settings = {"hold_ms": float(rng.integers(0, 300)), "smooth_ms": float(rng.integers(0, 300))}
        layer = decider(margin=float(rng.random() / 4), **settings)
        t_us, actions = 0, []
        for seq in range(200):
            t_us += int(rng.integers(1, 1_100_000 if rng.random() < 0.05 else 60_000))
            actions += layer.see(seq, t_us, rng.dirichlet((0.2, 0.2, 0.2)))
        actions += layer.end()
        assert [a.number for a in actions] == [n for n in range(len(actions) // 2) for _ in range(2)]
        assert [a.to_us is None for a in actions] == [True, False] * (len(actions) // 2)
        edges_us = [a.from_us if a.to_us is None else a.to_us for a in actions]
        assert edges_us == sorted(edges_us)


def test_an_idle_label_that_the_model_lacks_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--decide: idle: the model has no label 'rest'"):
        decider(idle=["rest"])
