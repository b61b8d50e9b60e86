from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pytest

from velora_edge.config import (
    Section,
    build_config,
    commented_yaml,
    load_config,
    read_meanings,
    read_yaml,
    write_yaml,
)
from velora_edge.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


class Lora(Section):
    rank: int = 4
    dropout: float = 0.0


class Model(Section):
    name: str
    lora: Lora = Lora()

    def problems(self) -> list[str]:
        return ["name: must not be 'taken'"] if self.name == "taken" else []


class Root(Section):
    model: Model
    mode: Literal["lora", "full"] = "lora"
    lr: float = 0.1
    extra: Lora | None = None


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return path


def problems(path: Path, *overrides: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load_config(path, Root, overrides)
    return caught.value.problems


def test_values_come_from_the_file_then_from_overrides(tmp_path: Path) -> None:
    path = write(tmp_path, "model: {name: a, lora: {rank: 2}}\nlr: 0.5\n")
    config = load_config(path, Root, ["model.lora.rank=8", "lr=1e-3", "model.lora.rank=9"])
    assert config == Root(model=Model(name="a", lora=Lora(rank=9)), lr=1e-3)


def test_an_override_makes_the_section_that_the_file_leaves_out(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, ""), Root, ["model.name=b"]).model.name == "b"


def test_null_sets_none(tmp_path: Path) -> None:
    path = write(tmp_path, "model: {name: a}\nextra: {rank: 3}\n")
    assert load_config(path, Root, ["extra=null"]).extra is None


def test_every_problem_is_told_at_once_with_its_key(tmp_path: Path) -> None:
    path = write(tmp_path, "model: {name: taken, lora: {rnk: 3}}\nmode: ful\n")
    assert problems(path, "lr.a=3", "oops", "nothing.at.all=1") == (
        "oops: expected key=value, such as train.lr=1e-3",
        "model.lora.rnk: unknown key, did you mean rank?",
        "mode: expected 'lora' or 'full', got 'ful'",
        "lr: expected a valid number, got {'a': 3}",
        "nothing: unknown key, known here: model, mode, lr, extra",
    )


def test_a_section_is_asked_for_its_problems_although_another_one_is_malformed(tmp_path: Path) -> None:
    path = write(tmp_path, "model: {name: taken}\nlr: fast\n")
    assert problems(path) == (
        "lr: expected a valid number, unable to parse string as a number, got 'fast'",
        "model.name: must not be 'taken'",
    )


def test_the_error_names_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "lr: 1\n")
    with pytest.raises(ConfigError, match=r"c\.yaml: model: missing"):
        load_config(path, Root)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: no such file"):
        load_config(tmp_path / "none.yaml", Root)


def test_broken_yaml_is_named_by_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="line 2: not YAML"):
        read_yaml(write(tmp_path, "a: 1\nb: ]\nc: 2\n"))


def test_a_list_is_not_a_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected keys with values, got list"):
        read_yaml(write(tmp_path, "- 1\n"))


def test_what_was_written_reads_the_same(tmp_path: Path) -> None:
    config = Root(model=Model(name="a"), extra=Lora(rank=1))
    write_yaml(config, tmp_path / "d.yaml")
    assert load_config(tmp_path / "d.yaml", Root) == config


def test_a_stored_tree_is_checked_for_form_but_not_against_the_machine() -> None:
    assert build_config({"model": {"name": "taken"}}, Root).model.name == "taken"
    with pytest.raises(ConfigError, match=r"model\.name: missing"):
        build_config({"model": {}}, Root)


class Solver(Section):
    """Solver of a toy problem.

    Attributes:
        rate: of each step.
        steps: how many there are; the meaning of this key
            goes on in the next line.

    Raises:
        nothing: ever.
    """

    rate: float = 0.5
    steps: int = 3


class Adaptive(Solver):
    """The same with a rate that adapts.

    Attributes:
        rule: of the rate.
    """

    rule: Literal["up", "down"] = "up"


class Whole(Section):
    """A configuration.

    Attributes:
        name: of the run.
        solver: how it is solved.
    """

    name: str
    solver: Adaptive = Adaptive()


def test_meanings_come_from_the_docstrings_of_a_class_and_of_those_that_it_extends() -> None:
    assert read_meanings(Adaptive) == {
        "rate": "of each step",
        "steps": "how many there are; the meaning of this key goes on in the next line",
        "rule": "of the rate",
    }


def test_a_commented_configuration_tells_meaning_default_and_choices() -> None:
    text = commented_yaml(Whole(name="yes", solver=Adaptive(steps=9)), notes={"solver.rate": "Half is usual"})
    assert text == (
        "# of the run\n"
        "name: 'yes'  # required\n"
        "\n"
        "# how it is solved\n"
        "solver:\n"
        "  # of each step\n"
        "  # Half is usual\n"
        "  rate: 0.5\n"
        "  # how many there are; the meaning of this key goes on in the next line\n"
        "  steps: 9  # default 3\n"
        "  # of the rate\n"
        "  rule: up  # up or down\n"
    )


def test_only_the_keys_that_are_asked_for_are_written() -> None:
    config = Whole(name="a")
    text = commented_yaml(config, only={"name": "a", "solver": {"steps": 3}})
    assert [line for line in text.splitlines() if line and "#" not in line[:3]] == [
        "name: a  # required", "solver:", "  steps: 3",
    ]  # fmt: skip


def test_a_commented_configuration_reads_the_same(tmp_path: Path) -> None:
    config = Root(model=Model(name="a: b # c"), extra=Lora(rank=1), lr=1e-5)
    (tmp_path / "c.yaml").write_text(commented_yaml(config))
    assert load_config(tmp_path / "c.yaml", Root) == config


def test_a_configuration_that_is_only_shown_may_name_what_is_not_here(tmp_path: Path) -> None:
    path = write(tmp_path, "model: {name: taken}\n")
    assert load_config(path, Root, is_used=False).model.name == "taken"
