"""What a user may write behind --decide."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from velora_runtime.inference.decision import DecisionSettings, read_decision_settings

from velora_edge.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def test_nothing_given_is_no_layer() -> None:
    assert read_decision_settings(()) is None


def test_default_is_what_the_guide_says() -> None:
    assert read_decision_settings(("default",)) == DecisionSettings(
        smooth_ms=300, enter=0.6, leave=0.4, margin=0.1, hold_ms=200, gap_ms=2000, idle=()
    )


def test_a_file_and_single_values_go_together_and_the_later_one_wins(tmp_path: Path) -> None:
    path = tmp_path / "decide.yaml"
    path.write_text("enter: 0.7\nhold_ms: 100\n")
    assert read_decision_settings((str(path), "hold_ms=500", "idle=[still, rest]")) == DecisionSettings(
        enter=0.7, hold_ms=500, idle=("still", "rest")
    )


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("enter=0.3",), "--decide: leave: expected at most enter (0.3), got 0.4"),
        (("entr=0.3",), "--decide: entr: unknown key, did you mean enter?"),
        (("enter=2",), "--decide: enter: expected less than or equal to 1, got 2"),
        (("hold_ms=[",), "--decide: hold_ms=[: the value is not YAML; put quotes around it"),
        (("nowhere.yaml",), "nowhere.yaml: no such file"),
    ],
)
def test_what_is_wrong_is_told_by_its_key(given: tuple[str, ...], told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)):
        read_decision_settings(given)
