"""A recording may name the model that it was made with; whether that is run, the user says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from velora_edge.errors import InputError
from velora_edge.preprocessing.registry import find_sources

if TYPE_CHECKING:
    from pathlib import Path


def recording(folder: Path, model: str) -> str:
    folder.mkdir()
    facts = {"v": 1, "ended": "x", "model": {"name": "wave", "path": model}}
    (folder / "recording.json").write_text(json.dumps(facts))
    return str(folder)


def test_a_model_that_the_recording_names_is_run_if_the_user_agrees(tmp_path: Path) -> None:
    asked: list[str] = []

    def agree(question: str) -> bool:
        asked.append(question)
        return True

    found = find_sources(recording(tmp_path / "r", "/models/wave.velora"), None, None, None, print, agree)
    assert found.model == "/models/wave.velora"
    assert asked == ["The recording names its model: /models/wave.velora. Run it?"]


def test_a_model_that_the_recording_names_is_not_run_unasked(tmp_path: Path) -> None:
    folder = recording(tmp_path / "r", "/models/wave.velora")
    for answers in ((), (lambda question: False,)):
        with pytest.raises(InputError, match=f"velora-live /models/wave.velora {folder}"):
            find_sources(folder, None, None, None, print, *answers)


def test_the_packaged_model_needs_no_asking(tmp_path: Path) -> None:
    assert find_sources(recording(tmp_path / "r", "demo"), None, None, None, print).model == "demo"


def test_a_path_is_shown_without_what_a_terminal_would_obey(tmp_path: Path) -> None:
    asked: list[str] = []
    folder = recording(tmp_path / "r", "/models/\x1b]0;x\x07\n.velora")
    with pytest.raises(InputError) as caught:
        find_sources(folder, None, None, None, print, lambda question: bool(asked.append(question)))
    assert asked[0].isprintable()
    assert str(caught.value).isprintable()
