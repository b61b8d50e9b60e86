"""What a user may set on the decision layer: settings, and the option that `velora-live` has for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click
import yaml
from pydantic import Field

from velora_edge.config import Section, build_config, read_yaml
from velora_edge.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

F = TypeVar("F", bound="Callable[..., Any]")

DEFAULT = "default"
_WHERE = "--decide"


class DecisionSettings(Section):
    """When an action starts and ends. Scores are those of the smoothed probabilities, 0 to 1.

    Attributes:
        smooth_ms: time constant of the average over time, milliseconds; 0: each prediction as it is.
        enter: an action starts only at this score; below, what is seen is unknown.
        leave: it goes on down to this score; at most `enter`.
        margin: another label takes its place only with so much more than it has.
        hold_ms: a change has to hold for so long before it is made, milliseconds.
        gap_ms: an action ends where predictions are missing for longer, milliseconds.
        idle: labels that stand for nothing in particular; they never become actions.
    """

    smooth_ms: float = Field(300.0, ge=0, le=3_600_000)
    enter: float = Field(0.6, ge=0, le=1)
    leave: float = Field(0.4, ge=0, le=1)
    margin: float = Field(0.1, ge=0, le=1)
    hold_ms: float = Field(200.0, ge=0, le=3_600_000)
    gap_ms: float = Field(2_000.0, gt=0, le=3_600_000)
    idle: tuple[str, ...] = ()

    def problems(self) -> list[str]:
        """The two thresholds in their order."""
        if self.leave > self.enter:
            return [f"leave: expected at most enter ({self.enter:g}), got {self.leave:g}"]
        return []


def decision_options(command: F) -> F:
    """A command with --decide."""
    return click.option(
        "--decide",
        multiple=True,
        metavar="WHAT",
        help="Tell when actions start and end: default, FILE.yaml, or KEY=VALUE, and again for more. Keys: "
        "smooth_ms, enter, leave, margin, hold_ms, gap_ms, idle; docs/guides/decisions.md.",
    )(command)


def read_decision_settings(given: Sequence[str]) -> DecisionSettings | None:
    """The settings that a user gave, the later ones winning; None where none were.

    Args:
        given: `default`, paths of YAML files, and `key=value`, the value as YAML.

    Raises:
        ConfigError: with every problem.
    """
    if not given:
        return None
    tree: dict[str, Any] = {}
    path = _WHERE
    for text in given:
        key, equals, value = text.partition("=")
        if equals:
            tree[key.strip()] = _read_value(text, value)
        elif text != DEFAULT:
            tree.update(read_yaml(text))
            path = text
    settings = build_config(tree, DecisionSettings, path=path)
    if problems := settings.problems():
        raise ConfigError(problems, path=path)
    return settings


def _read_value(text: str, value: str) -> Any:
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError([f"{text}: the value is not YAML; put quotes around it"], path=_WHERE) from error
