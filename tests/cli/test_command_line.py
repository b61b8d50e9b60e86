"""The front door: unknown commands, completion of words, options of a place."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner

from tests.fakes import write_tiny_bundle
from tests.recordings import write_events
from velora_cli.main import load_command, read_defaults, velora
from velora_edge.console import run
from velora_edge.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def call(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = run(velora, list(args), name="velora")
    return (code, *capsys.readouterr())


@pytest.mark.parametrize(
    ("word", "hint"),
    [("recrod", ", did you mean record?"), ("exprot", ", did you mean export?"), ("xyz", "")],
)
def test_an_unknown_command_is_told_with_the_nearest_one(
    word: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = f"error: no command '{word}'{hint}; velora --help lists them\n"
    assert call(capsys, word, "x") == (2, "", expected)


@pytest.mark.parametrize(
    ("words", "expected"),
    [("velora pre", ["predict", "pretrain"]), ("velora live --trigger-", ["--trigger-id", "--trigger-edge"])],
)
def test_the_shell_completes_commands_and_options(words: str, expected: list[str]) -> None:
    code = (
        "import sys\nfrom velora_cli.main import main\n"
        "try:\n    main()\nfinally:\n    assert 'torch' not in sys.modules\n"
    )
    place = {"_VELORA_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **place}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.partition(",")[2] for line in done.stdout.splitlines()] == expected


def test_the_guides_line_for_bash_gives_a_script() -> None:
    result = CliRunner().invoke(velora, [], prog_name="velora", env={"_VELORA_COMPLETE": "bash_source"})
    assert "complete -o nosort -F _velora_completion velora" in result.output


# ---- velora.toml ----------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in the working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "velora.toml"


def defaults(name: str) -> dict[str, object]:
    command = load_command(name)
    assert command is not None
    return read_defaults(command, name)


def test_without_a_file_there_is_nothing(place: Path) -> None:
    assert defaults("live") == {}


def test_what_stands_first_is_for_live_record_and_predict_as_far_as_they_have_it(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place.write_text(
        'events = "prophesee://"\ntrigger-id = 1\ndepth = 2.5\n'
        '[live]\ndecide = "default"\nquiet = true\n[record]\nduration = 60\n'
        '[dataset.build]\nkind = "frames"\n'
    )
    shared = {"trigger_id": 1, "depth_m": 2.5}
    live = {**shared, "events": "prophesee://", "decide": ["default"], "quiet": True}
    assert defaults("live") == live
    assert defaults("record") == {"events": "prophesee://", "duration": 60}
    assert defaults("predict") == shared
    assert defaults("dataset") == {"build": {"kind": "frames"}}
    assert defaults("eval") == {}
    assert capsys.readouterr().err.splitlines()[:2] == [
        "velora: velora.toml gives events, trigger-id, depth, decide, quiet",
        "velora: velora.toml gives events, duration",
    ]


def test_everything_that_is_wrong_is_told_at_once(place: Path) -> None:
    place.write_text(
        'evnts = "x"\n[live]\nquiet = "yes"\nrgb = ["a"]\nsync = true\nsumary = "x"\n[recrod]\nduration = 1\n'
    )
    with pytest.raises(ConfigError) as caught:
        defaults("live")
    assert caught.value.problems == (
        "[recrod]: no such command, did you mean record?",
        "evnts: no option of live, record, predict, did you mean events?",
        "[live] quiet: expected true or false, got 'yes'",
        "[live] rgb: expected one value, got ['a']",
        "[live] sync: expected text or a number, got True",
        "[live] sumary: no such option, did you mean summary?",
    )


def test_a_file_that_is_no_toml_is_told_by_its_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place.write_text("events = prophesee\n")
    code, _, err = call(capsys, "live", "demo")
    assert code == 2
    assert err.startswith("error: velora.toml: cannot be read as TOML: ")
    assert "line 1" in err


def test_a_file_of_another_user_is_passed_over(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place.write_text('publish = "mqtt://elsewhere/t"\n')
    monkeypatch.setattr(os, "getuid", lambda: place.stat().st_uid + 1)
    if place.stat().st_uid == 0:
        os.chown(place, 12345, -1)
    assert defaults("live") == {}
    assert capsys.readouterr().err == "velora: velora.toml is passed over: it belongs to another user\n"


@pytest.fixture
def replay(place: Path) -> Path:
    """A model, two event files and a recording's folder in the working folder, and a file that names one."""
    folder = place.parent
    event = write_tiny_bundle(folder / "m.velora").manifest.event.model_copy(update={"window_us": 10_000})
    write_tiny_bundle(folder / "m.velora", 3, event=event)
    write_events(folder / "here.raw", start_us=1_000_000)
    write_events(folder / "other.raw", start_us=9_000_000)
    (folder / "rec").mkdir()
    (folder / "rec" / "recording.json").write_text('{"v": 1, "ended": "then"}')
    (folder / "rec" / "events.raw").write_bytes((folder / "other.raw").read_bytes())
    place.write_text(
        'events = "here.raw"\n[live]\npace = "max"\nduration = 0.06\nout = "p.jsonl"\nquiet = true\n'
    )
    return folder


@pytest.mark.parametrize(
    ("args", "first_us"),
    [
        ((), 1_030_000),
        (("--events", "other.raw"), 9_030_000),
        (("rec",), 9_030_000),
        (("--rate", "50"), 1_060_000),
    ],
)
def test_a_run_takes_its_options_and_the_command_line_wins(
    replay: Path, args: tuple[str, ...], first_us: int, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(capsys, "live", "m.velora", *args)
    assert code == 0, err
    assert f'"t_us":{first_us},' in (replay / "p.jsonl").read_text().splitlines()[0]


def test_velora_live_reads_it_too(replay: Path) -> None:
    code = "from velora_cli.main import live; live()"
    done = subprocess.run(
        [sys.executable, "-c", code, "m.velora"], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, len((replay / "p.jsonl").read_text().splitlines())) == (0, 4), done.stderr
    assert "velora: velora.toml gives events, pace, duration, out, quiet" in done.stderr


def test_help_does_not_read_it(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place.write_text("no toml")
    code, out, err = call(capsys, "live", "--help")
    assert (code, err) == (0, "")
    assert "--events SRC" in out


def test_an_environment_variable_comes_before_the_file(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place.write_text('token = "from the file"\n')
    monkeypatch.setenv("VELORA_TOKEN", "from the environment")
    command = load_command("live")
    assert command is not None
    context = command.make_context("live", ["demo"], default_map=defaults("live"))
    assert isinstance(context, click.Context)
    assert context.params["token"] == "from the environment"
