"""Registries of extensions: what is built in, plugins found by entry points, and plugins that are broken."""

from __future__ import annotations

import importlib.metadata
import sys
from typing import TYPE_CHECKING, Any

import pytest

from velora_cli.main import velora
from velora_edge.console import run
from velora_edge.errors import PluginError
from velora_edge.extensions import Extension, Registry

if TYPE_CHECKING:
    from pathlib import Path

GROUP = "velora.things"
JSON = Extension("json", "json:dumps", "text", lambda text: text.startswith("{"))
EXPECTED = "expected plugin_1:MINE to be an Extension of its name"
MODULE = """
from velora_edge.extensions import Extension
MINE = Extension("mine", "plugin_{n}:make", "from outside", lambda text: text.startswith("mine"))
def make(): return {n}
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that installs a package: one module and its entry points, as pip leaves them."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(number: int, module: str, points: str, group: str = GROUP) -> None:
        name = f"plugin_{number}"
        (tmp_path / f"{name}.py").write_text(module)
        facts = tmp_path / f"{name}-1.0.dist-info"
        facts.mkdir()
        (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: plugin-{number}\nVersion: 1.0\n")
        (facts / "entry_points.txt").write_text(f"[{group}]\n{points}\n")
        importlib.invalidate_caches()
        monkeypatch.delitem(sys.modules, name, raising=False)

    return install


@pytest.fixture
def registry() -> Registry:
    return Registry(GROUP, [JSON])


def test_what_is_built_in_is_found_without_a_look_at_entry_points(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.metadata, "entry_points", None)
    assert registry.find("JSON") is JSON
    assert registry.claiming("{}") is JSON
    assert (list(registry), len(registry), "json" in registry) == ([JSON], 1, True)
    assert JSON.load()([1]) == "[1]"
    with pytest.raises(TypeError):
        registry.find("other")


def test_a_plugin_is_found_by_its_name_and_by_what_it_claims(registry: Registry, install: Any) -> None:
    install(1, MODULE.format(n=1), "mine = plugin_1:MINE")
    found = registry.find("mine")
    assert found is not None
    assert (found.package, found.load()()) == ("plugin-1", 1)
    assert registry.claiming("mine, all mine") == found
    assert registry.all() == [JSON, found]
    assert (registry.names(), registry.troubles) == ("json, mine", [])


def test_a_plugin_that_nobody_asks_for_is_not_imported(registry: Registry, install: Any) -> None:
    install(1, MODULE.format(n=1), "mine = plugin_1:MINE")
    assert registry.find("other") is None
    assert "plugin_1" not in sys.modules


def test_a_name_that_nobody_has_is_none(registry: Registry) -> None:
    assert registry.find("mine") is None
    assert registry.claiming("mine") is None


@pytest.mark.parametrize(
    ("module", "points", "reason"),
    [
        ("import nowhere", "mine = plugin_1:MINE", "ModuleNotFoundError: No module named 'nowhere'"),
        ("raise RuntimeError('no\\nmore')", "mine = plugin_1:MINE", "RuntimeError: no"),
        ("", "mine = plugin_1:MINE", "AttributeError: module 'plugin_1' has no attribute 'MINE'"),
        (
            "MINE = 3",
            "mine = plugin_1:MINE",
            f"{EXPECTED}, got int",
        ),
        (
            MODULE.format(n=1),
            "other = plugin_1:MINE",
            f"{EXPECTED}, got an Extension called 'mine'",
        ),
    ],
)
def test_a_broken_plugin_is_told_in_one_line_and_hides_no_other(
    registry: Registry, install: Any, module: str, points: str, reason: str
) -> None:
    install(1, module, points)
    install(2, MODULE.format(n=2).replace("mine", "yours"), "yours = plugin_2:MINE")
    name = points.partition(" ")[0]
    line = f"the plugin {name!r} of plugin-1 cannot be used: {reason}; mend or uninstall plugin-1"
    with pytest.raises(PluginError) as error:
        registry.find(name)
    assert str(error.value) == line
    assert [extension.name for extension in registry.all()] == ["json", "yours"]
    assert registry.troubles == [line]
    assert registry.names() == f"json, yours; {line}"


def test_a_target_that_cannot_be_imported_names_the_package(registry: Registry, install: Any) -> None:
    install(1, MODULE.format(n=1).replace("plugin_1:make", "nowhere:make"), "mine = plugin_1:MINE")
    found = registry.find("mine")
    assert found is not None
    with pytest.raises(PluginError, match=r"^the plugin 'mine' of plugin-1 cannot be used: ModuleNotFound"):
        found.load()


def test_a_plugin_takes_the_place_of_nothing(registry: Registry, install: Any) -> None:
    module = MODULE.format(n=1)
    install(
        1, module + "JSON = Extension('JSON', 'plugin_1:make', '', lambda text: True)", "JSON = plugin_1:JSON"
    )
    install(2, MODULE.format(n=2), "mine = plugin_2:MINE")
    install(3, MODULE.format(n=3), "mine = plugin_3:MINE")
    assert registry.find("json") is JSON
    assert [one.package for one in registry.all()] == ["", "plugin-2"]
    assert registry.troubles == [
        "the plugin 'JSON' of plugin-1 is left out: velora-edge has one of that name; rename the plugin's",
        "the plugin 'mine' of plugin-3 is left out: plugin-2 has one of that name; rename the plugin's",
    ]


def test_a_program_adds_one_under_a_name_that_is_free(registry: Registry) -> None:
    more = Extension("more", "json:loads", "")
    registry.add(more)
    assert registry.find("more") is more
    with pytest.raises(ValueError, match=r"velora\.things has a 'more' already"):
        registry.add(more)


COMMAND = """
import click
from velora_edge.extensions import Extension
HELLO = Extension("hello", "plugin_1:hello", "greet")
@click.command()
def hello(): click.echo("hello there")
"""


def test_a_plugins_command_is_listed_and_runs_and_a_broken_one_is_in_nobodys_way(
    install: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from velora_cli import main

    monkeypatch.setattr(main, "COMMANDS", Registry("velora.commands", main.COMMANDS))
    install(1, COMMAND, "hello = plugin_1:HELLO", "velora.commands")
    install(2, "import nowhere", "broken = plugin_2:MINE", "velora.commands")
    assert run(velora, ["hello"]) == 0
    assert capsys.readouterr().out == "hello there\n"
    assert run(velora, ["--help"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "hello greet" in told
    assert "the plugin 'broken' of plugin-2 cannot be used: ModuleNotFoundError" in told
    assert run(velora, ["broken"]) == 1
    assert capsys.readouterr().err == (
        "error: the plugin 'broken' of plugin-2 cannot be used: "
        "ModuleNotFoundError: No module named 'nowhere'; mend or uninstall plugin-2\n"
    )
    assert run(velora, ["cameras", "--help"]) == 0
