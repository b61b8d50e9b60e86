"""Extension points: one descriptor for whatever can be added, and a registry of each kind that finds plugins.

What comes with VELoRA-edge is a line in a registry. A plugin is another package with an entry point in the
registry's group, which leads to an `Extension` of the same name:

    [project.entry-points."velora.sinks"]
    udp = "my_package:UDP"

Entry points are looked for when a name is asked for that is not built in, or a list of all: a start without
plugins pays nothing. A plugin never takes the place of what is built in, and one that is broken is told by
its package's name, where it is asked for, and is in nobody else's way.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from velora_edge.errors import PluginError, VeloraError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from importlib.metadata import EntryPoint


@dataclass(frozen=True, slots=True)
class Option:
    """What a user may set.

    Attributes:
        name: of velora-live's option, such as "--video", or of an argument, such as "part".
        metavar: what stands for its value in `--help`.
        help: what it does.
    """

    name: str
    metavar: str
    help: str


@dataclass(frozen=True, slots=True)
class Extension:
    """One thing that can be chosen by its name: an event format, a camera, a sink, an engine and so on.

    Attributes:
        name: what users call it; a camera's is the scheme of its address, such as "prophesee".
        target: "module:attribute", or a module alone; imported by `load`, not before.
        help: one line for people.
        claims: whether it is what a user's string or file means; gets what its registry says. A camera
            without one claims the addresses of its scheme.
        options: what a user may set.
        modality: for cameras: which one it is.
        listing: for cameras: "module:attribute" of a function without arguments that gives the addresses
            of those attached.
        package: that brings it; empty where it is built in.
    """

    name: str
    target: str
    help: str
    claims: Callable[..., bool] | None = None
    options: tuple[Option, ...] = ()
    modality: Literal["events", "rgb"] | None = None
    listing: str = ""
    package: str = ""

    def load(self) -> Any:
        """What the target names.

        Raises:
            PluginError: if it is a plugin's, and cannot be imported.
        """
        return self._import(self.target)

    def attached(self) -> list[str]:
        """The addresses of cameras that are attached.

        Raises:
            ImportError: if the maker's library is not installed.
            OSError: if it fails, or RuntimeError.
        """
        return list(self._import(self.listing)()) if self.listing else []

    def _import(self, target: str) -> Any:
        module, _, attribute = target.partition(":")
        try:
            found = importlib.import_module(module)
            return getattr(found, attribute) if attribute else found
        except (ImportError, AttributeError) as error:
            if not self.package or isinstance(error, VeloraError):
                raise
            raise _broken(self.package, self.name, error) from error


class Registry:
    """Extensions of one kind by name; those that are built in are asked first, in their order.

    Iterating over it, its length and `in` are about those that are built in or were added by `add`.

    Args:
        group: of the entry points of plugins, such as "velora.sinks".
        built_in: without plugins.

    Attributes:
        troubles: why plugins were left out of a list, one line each.
    """

    def __init__(self, group: str, built_in: Iterable[Extension]) -> None:
        self.group = group
        self.troubles: list[str] = []
        self._known: dict[str, Extension] = {}
        self._plugins: list[Extension] | None = None
        for extension in built_in:
            self.add(extension)

    def __iter__(self) -> Iterator[Extension]:
        return iter(self._known.values())

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._known

    def add(self, extension: Extension) -> None:
        """Add one from a program, for this process alone.

        Raises:
            ValueError: if its name is taken.
        """
        key = extension.name.lower()
        if key in self._known:
            raise ValueError(f"{self.group} has a {extension.name!r} already; choose another name")
        self._known[key] = extension

    def find(self, name: str) -> Extension | None:
        """The one of this name, in any case, or None; looks for plugins where it is not built in.

        Raises:
            PluginError: if a plugin brings it, and cannot be used.
        """
        known = self._known.get(name.lower())
        if known is not None:
            return known
        for point in _entry_points(self.group):
            if point.name.lower() == name.lower():
                return _read(point)
        return None

    def claiming(self, *given: Any) -> Extension | None:
        """The first whose `claims` is true of what is given, plugins after those that are built in."""
        for extension in self:
            if extension.claims is not None and extension.claims(*given):
                return extension
        for extension in self.plugins():
            if extension.claims is not None and extension.claims(*given):
                return extension
        return None

    def plugins(self) -> list[Extension]:
        """Those of plugins, by name; `troubles` tells which were left out."""
        if self._plugins is None:
            self._plugins, self.troubles = [], []
            for point in _entry_points(self.group):
                self._take(point)
        return self._plugins

    def all(self) -> list[Extension]:
        """Those that are built in, then those of plugins."""
        return [*self, *self.plugins()]

    def names(self) -> str:
        """All names, for a message about one that is unknown; with what is wrong with plugins."""
        names = ", ".join(extension.name for extension in self.all())
        return "; ".join([names, *self.troubles])

    def _take(self, point: EntryPoint) -> None:
        assert self._plugins is not None
        same = [one for one in (*self, *self._plugins) if one.name.lower() == point.name.lower()]
        if same:
            owner = same[0].package or "velora-edge"
            self.troubles.append(
                f"the plugin {point.name!r} of {_package(point)} is left out: {owner} has one of that name; "
                "rename the plugin's"
            )
            return
        try:
            self._plugins.append(_read(point))
        except PluginError as error:
            self.troubles.append(str(error))


def _entry_points(group: str) -> list[EntryPoint]:
    from importlib.metadata import entry_points

    return sorted(set(entry_points(group=group)), key=lambda point: (point.name, _package(point)))


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value.partition(":")[0]


def _read(point: EntryPoint) -> Extension:
    """The descriptor that an entry point leads to.

    Raises:
        PluginError: if it leads to none; whatever a package of others does, one line tells it.
    """
    package = _package(point)
    try:
        found = point.load()
    except Exception as error:
        raise _broken(package, point.name, error) from error
    if not isinstance(found, Extension) or found.name.lower() != point.name.lower():
        came = f"an Extension called {found.name!r}" if isinstance(found, Extension) else type(found).__name__
        raise PluginError(
            f"the plugin {point.name!r} of {package} cannot be used: expected {point.value} to be "
            f"an Extension of its name, got {came}; mend or uninstall {package}"
        )
    return replace(found, package=package)


def _broken(package: str, name: str, error: Exception) -> PluginError:
    reason = (str(error).splitlines() or [""])[0]
    return PluginError(
        f"the plugin {name!r} of {package} cannot be used: {type(error).__name__}: {reason}; "
        f"mend or uninstall {package}"
    )
