"""Commands of README, tutorials and guides: they run, or are marked with the reason why not.

`tests/documents.py` has the form of a mark. What is not run is at least understood: every command of velora
names options that exist, and every `pip install` extras that exist.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

from tests.documents import BLOCKS, PAGES, ROOT, Block
from velora_cli.main import velora

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

COMMANDS = [block for block in BLOCKS if block.language in ("sh", "console")]
PROGRAMS = [block for block in BLOCKS if block.language == "python"]
RUN = [
    block
    for block in COMMANDS + PROGRAMS
    if (block.commands_to_run() if block in COMMANDS else not block.is_left_out())
]
"""Blocks that are run here, whole or in part."""
LANGUAGES = {"", "sh", "console", "python", "yaml", "toml", "json", "sql", "ini"}
WORDS = "velora|velora-live|pip|python3?|sudo|make|docker|git|cd|source|export|ray|ros2|curl|cat|grep|eval"
"""What a command begins with."""
DEMO = ROOT / "velora_edge" / "assets"
PATIENCE_S = 600
"""For a block on a busy machine."""
SHIM = '#!/bin/sh\nexec "{python}" -c "import sys; from velora_cli.main import {entry}; {entry}()" "$@"\n'


def name_of(block: Block) -> str:
    return block.name


def page_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


# ---- marks ------------------------------------------------------------------------------------------------


def test_there_are_blocks_that_are_run() -> None:
    assert len(RUN) >= 20
    assert len(COMMANDS) >= 50


@pytest.mark.parametrize("block", BLOCKS, ids=name_of)
def test_commands_are_in_a_block_that_says_so(block: Block) -> None:
    assert block.language in LANGUAGES
    if block.language == "" and not block.marks:
        assert re.findall(rf"^(?:\$ )?(?:{WORDS}) .*", block.text, re.MULTILINE) == []


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.marks], ids=name_of)
def test_a_mark_is_about_something_and_says_why(block: Block) -> None:
    for mark in block.marks:
        if mark.run_by:
            assert page_name(block.page).rpartition("/")[2] in (ROOT / mark.run_by).read_text()
        else:
            assert len(mark.reason) >= 10
            assert mark.only in block.text


@pytest.mark.parametrize("block", [b for b in COMMANDS if not b.is_left_out()], ids=name_of)
def test_a_block_that_is_not_left_out_has_commands_to_run(block: Block) -> None:
    assert block.commands_to_run() != []


# ---- what is not run is understood ------------------------------------------------------------------------


def velora_calls(block: Block) -> list[list[str]]:
    """Arguments of `velora` in a block; `velora-live` is `velora live`."""
    calls = []
    for line in block.commands():
        words = shlex.split(line, comments=True)
        while words:
            at = next((n for n, w in enumerate(words) if w in ("&&", "|", "||", ";")), len(words))
            call, words = words[:at], words[at + 1 :]
            while call and re.fullmatch(r"\w+=.*", call[0]):
                call.pop(0)
            program = call[0].rpartition("/")[2] if call else ""
            if program in ("velora", "velora-live"):
                end = next((n for n, w in enumerate(call) if w in (">", "2>", "<")), len(call))
                calls.append((["live"] if program == "velora-live" else []) + call[1:end])
    return calls


CALLS = [(block, call) for block in COMMANDS for call in velora_calls(block)]


@pytest.mark.parametrize(
    ("block", "call"), CALLS, ids=lambda given: getattr(given, "name", None) or " ".join(given)
)
def test_every_velora_command_is_understood(block: Block, call: list[str]) -> None:
    command: click.Command = velora
    context, words = click.Context(velora, info_name="velora", **velora.context_settings), list(call)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        child = command.get_command(context, words.pop(0))
        assert child is not None, call
        command, context = child, click.Context(child, info_name=child.name, parent=context)
    if not words or {"--help", "--public-key"} & set(words):
        return
    try:
        command.make_context(command.name, words, parent=context.parent)
    except click.BadParameter as error:
        if not error.message.endswith("does not exist."):  # else it is a file of the reader's own
            raise


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_extra_that_is_installed_exists(page: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = re.findall(r"pip install (?:-e )?'\.\[([a-z0-9,]+)\]'", page.read_text(encoding="utf-8"))
    extras = {extra for group in named for extra in group.split(",")}
    assert extras - set(project["optional-dependencies"]) == set()


@pytest.mark.parametrize("block", PROGRAMS, ids=name_of)
def test_every_program_is_python(block: Block) -> None:
    assert ast.parse(block.text).body != []


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language in ("yaml", "toml")], ids=name_of)
def test_every_block_of_settings_can_be_read(block: Block) -> None:
    read = yaml.safe_load if block.language == "yaml" else tomllib.loads
    assert isinstance(read(block.text), dict)


# ---- run --------------------------------------------------------------------------------------------------


def execute(script: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    paths = [str(ROOT), str(ROOT / "export"), str(ROOT / "runtime")]
    env = {
        **os.environ,
        "PATH": f"{folder / '.venv-demo' / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([*paths, *filter(None, [os.environ.get("PYTHONPATH")])]),
        "HOME": str(folder / "home"),
        "NUMBA_CACHE_DIR": os.environ.get(
            "NUMBA_CACHE_DIR", str(Path.home() / ".cache" / "velora" / "numba")
        ),
    }
    return subprocess.run(
        script, cwd=folder, env=env, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


def prepare(folder: Path) -> None:
    """A working folder with the programs, and with the folders of a checkout."""
    bin_ = folder / ".venv-demo" / "bin"
    bin_.mkdir(parents=True)
    for name, entry in (("velora", "main"), ("velora-live", "live")):
        (bin_ / name).write_text(SHIM.format(python=sys.executable, entry=entry))
        (bin_ / name).chmod(0o755)
    for name in ("python", "python3"):  # no link: Python would look for its environment beside it
        (bin_ / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        (bin_ / name).chmod(0o755)
    for name in ("velora_edge", "examples", "configs", "tests"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "home").mkdir()


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of the packaged recording, recorded: a folder with both cameras."""
    folder = tmp_path_factory.mktemp("recorded")
    prepare(folder)
    done = execute(
        ["velora", "record", "today", "--events", str(DEMO / "demo.raw"), "--rgb", str(DEMO / "demo.mp4"),
         "--pace", "max", "--duration", "2"],
        folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    cut = ["velora", "convert", "today/events.raw", "today/cut.raw", "--duration", "2.1"]
    done = execute(cut, folder)
    assert done.returncode == 0, done.stderr
    return folder / "today"


def give(name: str, folder: Path, recorded: Path) -> None:
    """Lay down what pages call by this name, as a user would have it."""
    path = folder / name
    events, video = recorded / "events.raw", next(recorded.glob("*.mp4"))
    if path.suffix == ".velora" or name == "MODEL":
        shutil.copytree(DEMO / "demo.velora", path)
    elif name in ("today", "SRC", "check"):
        shutil.copytree(recorded, path)
    elif name == "recordings":
        for label in ("left", "right"):
            for take in range(3):
                (path / label).mkdir(parents=True, exist_ok=True)
                shutil.copy(recorded / "cut.raw", path / label / f"{take}.raw")
                shutil.copy(video, path / label / f"{take}.mp4")
    else:
        shutil.copy(video if path.suffix == ".mp4" else events, path)


GIVEN = (
    "MODEL",
    "MODEL.velora",
    "model.velora",
    "SRC",
    "recordings",
    "recording.raw",
    "video.mp4",
    "noisy.raw",
    "quiet.raw",
)
"""What pages take for granted."""
GIVEN_TO = {
    "docs/guides/decisions.md": ("today",),
    "docs/guides/jetson.md": ("check",),
    "docs/guides/onnxruntime.md": ("today",),
    "docs/guides/openvino.md": ("today",),
    "docs/tutorials/own-cameras.md": ("check",),
}
"""What single pages do: others make it."""


def write_named_files(page: Path, folder: Path) -> None:
    """Blocks of YAML and TOML that begin with the name of their file, as files."""
    for block in BLOCKS:
        named = re.match(r"# ([\w.-]+\.(?:yaml|toml))", block.text)
        if block.page == page and named:
            (folder / named[1]).write_text(block.text)


def as_script(block: Block) -> list[str]:
    """What runs a block; a page of the browser gets a port of its own."""
    if block.language == "python":
        return [sys.executable, "-c", block.text]
    lines = [line.replace("127.0.0.1:8080", "127.0.0.1:0") for line in block.commands_to_run()]
    return ["bash", "-euo", "pipefail", "-c", "\n".join(lines)]


@pytest.mark.slow
@pytest.mark.timeout(2 * PATIENCE_S)
@pytest.mark.parametrize("page", [page for page in PAGES if any(b.page == page for b in RUN)], ids=page_name)
def test_the_commands_of_a_page_run_one_after_the_other(page: Path, tmp_path: Path, recorded: Path) -> None:
    prepare(tmp_path)
    write_named_files(page, tmp_path)
    blocks = [block for block in RUN if block.page == page]
    words = set(re.findall(r"[\w.-]+", "\n".join(" ".join(as_script(block)) for block in blocks)))
    for name in (*GIVEN, *GIVEN_TO.get(page_name(page), ())):
        if name in words and not (tmp_path / name).exists():
            give(name, tmp_path, recorded)
    for block in blocks:
        done = execute(as_script(block), tmp_path)
        assert done.returncode == 0, (block.name, done.stdout[-2000:], done.stderr[-3000:])
