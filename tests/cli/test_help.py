"""`--help` of every command: as it is kept in `tests/cli/help`, so that it changes on purpose alone."""

from __future__ import annotations

import pytest

from tests.cli.help_texts import FOLDER, all_commands, help_of, path_of

COMMANDS = all_commands()


@pytest.mark.parametrize("words", COMMANDS)
def test_help_is_what_is_kept(words: str) -> None:
    kept = path_of(words)
    assert kept.is_file(), "a new command: make help-texts"
    assert help_of(COMMANDS[words]) == kept.read_text(encoding="utf-8"), "on purpose? make help-texts"


def test_no_help_is_kept_of_commands_that_are_gone() -> None:
    assert sorted(FOLDER.glob("*.txt")) == sorted(map(path_of, COMMANDS))
