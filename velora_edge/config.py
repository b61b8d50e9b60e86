"""Configuration from YAML and dotted overrides; all problems are reported at once, each with its key.

And class names: those of the published data sets, which ship with the package, and those of a user's file.
"""

from __future__ import annotations

import contextlib
import difflib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from velora_edge.errors import ConfigError, InputError, printable
from velora_edge.limits import LARGEST_YAML, load_yaml, read_text

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence

    from pydantic_core import ErrorDetails


class Section(BaseModel):
    """A part of a configuration: immutable, and it knows no keys but its own."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    def problems(self) -> list[str]:
        """What is wrong although every value has the right form; each sentence begins with its key.

        For what pydantic cannot see in one field: values that do not go together, files that are not there.
        """
        return []


C = TypeVar("C", bound=Section)


def load_config(path: str | os.PathLike[str], schema: type[C], overrides: Sequence[str] = ()) -> C:
    """The configuration that the YAML file at `path` describes, after the overrides.

    Args:
        path: of the YAML file.
        schema: the configuration's type.
        overrides: `key=value` each, the key with dots (`model.lora.rank=8`), the value as YAML; the last
            one for a key wins. `key=null` sets None.

    Raises:
        ConfigError: with every problem of the file and of the overrides.
    """
    tree = read_yaml(path)
    problems = [problem for item in overrides if (problem := _override(tree, item))]
    config: C | None = None
    try:
        config = schema.model_validate(tree)
    except ValidationError as error:
        problems += [_sentence(e, schema) for e in error.errors(include_url=False)]
    problems += _problems(tree, schema)
    if problems or config is None:
        raise ConfigError(problems, path=path)
    return config


def build_config(tree: dict[str, Any], schema: type[C], *, path: str | os.PathLike[str] | None = None) -> C:
    """The configuration that a tree of plain values describes, such as one that a checkpoint carries.

    What its sections say of the machine (`Section.problems`) is not asked: the data that a model was trained
    on need not be here.

    Raises:
        ConfigError: with every value that has the wrong form.
    """
    try:
        return schema.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(
            [_sentence(e, schema) for e in error.errors(include_url=False)], path=path
        ) from error


def read_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: if there is no such file, or if it is not a YAML mapping.
    """
    try:
        tree = load_yaml(read_text(path, most=LARGEST_YAML))
    except FileNotFoundError as error:
        raise ConfigError(["no such file; configs/ holds the ones that come with us"], path=path) from error
    except OSError as error:
        raise ConfigError([f"cannot be read: {error}"], path=path) from error
    except ValueError as error:
        raise ConfigError([_not_yaml(str(error))], path=path) from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError([f"expected keys with values, got {type(tree).__name__}"], path=path)
    return tree


def _not_yaml(reason: str) -> str:
    line, colon, rest = reason.partition(": ")
    return f"{line}: not YAML: {rest}" if colon and line.startswith("line ") else f"not YAML: {reason}"


def write_yaml(config: Section, path: Path) -> None:
    """Write a configuration so that `load_config` gives it back."""
    path.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), encoding="utf-8")


def _override(tree: dict[str, Any], item: str) -> str | None:
    """Set one `key=value` in the tree; return what is wrong with it, if anything."""
    key, equals, text = item.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        return f"{item}: expected key=value, such as train.lr=1e-3"
    try:
        value = load_yaml(text)
    except ValueError:
        return f"{key}: the value {printable(text, 100)!r} is not YAML; put quotes around it"
    node = tree
    for depth, part in enumerate(parts[:-1]):
        child = node.setdefault(part, {})
        if child is None:
            child = node[part] = {}
        if not isinstance(child, dict):
            return f"{key}: {'.'.join(parts[: depth + 1])} is a value, not a section"
        node = child
    node[parts[-1]] = value
    return None


def _problems(tree: Any, schema: type[Section], prefix: str = "") -> list[str]:
    """What the sections themselves find wrong; asked of each one whose own values have the right form."""
    found: list[str] = []
    if not isinstance(tree, dict):
        return found
    with contextlib.suppress(ValidationError):
        found = [f"{prefix}{problem}" for problem in schema.model_validate(tree).problems()]
    for name, field in schema.model_fields.items():
        child = _section_of(field.annotation)
        if child is not None and issubclass(child, Section):
            found += _problems(tree.get(name, {}), child, f"{prefix}{name}.")
    return found


def _sentence(error: ErrorDetails, schema: type[BaseModel]) -> str:
    """One problem that pydantic found, as a sentence that begins with its key."""
    loc = error["loc"]
    key = printable(".".join(str(part) for part in loc), 200) or "the file"
    if error["type"] == "extra_forbidden":
        known = _keys_beside(schema, loc)
        near = difflib.get_close_matches(str(loc[-1]), known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
        return f"{key}: unknown key, {hint}"
    if error["type"] == "missing":
        return f"{key}: missing"
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if error["type"] == "value_error":
        return f"{key}: {message}"
    return f"{key}: expected {message}, got {printable(repr(error['input']), 200)}"


def _keys_beside(schema: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """The keys that the section at `loc`'s parent knows; none where that is not a plain section."""
    section: Any = schema
    for part in loc[:-1]:
        field = section.model_fields.get(part) if hasattr(section, "model_fields") else None
        section = None if field is None else _section_of(field.annotation)
    return list(section.model_fields) if section is not None else []


def _section_of(annotation: Any) -> type[BaseModel] | None:
    """The model class in an annotation such as `Section` or `Section | None`."""
    if isinstance(annotation, type):
        return annotation if issubclass(annotation, BaseModel) else None
    for part in getattr(annotation, "__args__", ()):
        if (found := _section_of(part)) is not None:
            return found
    return None


PublishedSet = Literal["pokerevent", "hardvs"]


def published_class_names(kind: PublishedSet) -> tuple[str, ...]:
    """The names of a published set's classes, in the order of its labels; 114 of PokerEvent, 300 of HARDVS.

    Five of PokerEvent's stand twice in its publishers' list; here the second one is `NAME (2)`.
    """
    file = Path(__file__).parent / "assets" / f"{kind}_classes.txt"
    return make_distinct(file.read_text(encoding="utf-8").splitlines())


def class_names_for(classes: int) -> tuple[str, ...] | None:
    """The names of the published set that has so many classes; None where none has."""
    return next((names for names in map(published_class_names, _sets()) if len(names) == classes), None)


def make_distinct(names: Iterable[str]) -> tuple[str, ...]:
    """The names in their order; the second of two that are alike is called `NAME (2)`, and so on."""
    seen: Counter[str] = Counter()
    distinct = []
    for name in names:
        seen[name] += 1
        distinct.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return tuple(distinct)


def read_labels(path: Path) -> tuple[str, ...]:
    """The names in the file; empty lines are passed over.

    Raises:
        InputError: if the file cannot be read, holds no name, or one name twice.
    """
    try:
        lines = read_text(path).splitlines()
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot be read as text: {error}", path=path, remedy="give one class name a line"
        ) from error
    labels = [line.strip() for line in lines if line.strip()]
    if not labels:
        raise InputError("holds no class name", path=path, remedy="give one class name a line")
    twice = next((label for label, count in Counter(labels).items() if count > 1), None)
    if twice is not None:
        raise InputError(f"names {twice!r} twice", path=path, remedy="give each class a name of its own")
    return tuple(labels)


def _sets() -> tuple[PublishedSet, ...]:
    return get_args(PublishedSet)
