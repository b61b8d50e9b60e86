"""Configuration from YAML and dotted overrides, and back to YAML with comments; all problems come at once.

And class names: those of the published data sets, which ship with the package, and those of a user's file.
"""

from __future__ import annotations

import contextlib
import difflib
import inspect
import re
import textwrap
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import to_jsonable_python

from velora_edge.errors import ConfigError, InputError, printable
from velora_edge.limits import LARGEST_YAML, load_yaml, read_text

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails


class Section(BaseModel):
    """A part of a configuration: immutable, and it knows no keys but its own."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    def problems(self) -> list[str]:
        """What is wrong although every value has the right form; each sentence begins with its key.

        For what pydantic cannot see in one field: values that do not go together, files that are not there.
        """
        return []


def as_square(value: Any) -> Any:
    """Height and width, where one number stands for both; anything else as it is."""
    return (value, value) if type(value) is int else value


ImageSize = Annotated[tuple[int, int], BeforeValidator(as_square)]
"""Height and width, pixels; `64` in a file is `[64, 64]`."""

C = TypeVar("C", bound=Section)


def load_config(
    path: str | os.PathLike[str], schema: type[C], overrides: Sequence[str] = (), *, is_used: bool = True
) -> C:
    """The configuration that the YAML file at `path` describes, after the overrides.

    Args:
        path: of the YAML file.
        schema: the configuration's type.
        overrides: `key=value` each, the key with dots (`model.lora.rank=8`), the value as YAML; the last
            one for a key wins. `key=null` sets None.
        is_used: ask its sections for their problems, such as files that are not here; not needed to show it.

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
    if is_used:
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


LONGEST_LINE = 100


def commented_yaml(
    config: BaseModel, *, only: Mapping[str, Any] | None = None, notes: Mapping[str, str] | None = None
) -> str:
    """A configuration as YAML that `load_config` reads, with the meaning of each key above it.

    Meanings are the `Attributes` of the sections' docstrings. Beside a value stand its choices, and the
    default where the value is another.

    Args:
        config: with its values.
        only: tree of the keys to write; a key whose value is no tree is written whole. None: all keys.
        notes: what else to say of a key, by its dotted name.
    """
    return "\n".join(_commented(config, only, notes or {}, "")).lstrip("\n") + "\n"


def _commented(
    config: BaseModel, only: Mapping[str, Any] | None, notes: Mapping[str, str], prefix: str
) -> Iterator[str]:
    """Lines of the section that `prefix` leads to; an empty one before each section of the whole."""
    meanings, indent = read_meanings(type(config)), "  " * prefix.count(".")
    for name, field in type(config).model_fields.items():
        if only is not None and name not in only:
            continue
        key, value = f"{prefix}{name}", getattr(config, name)
        if isinstance(value, BaseModel) and not prefix:
            yield ""
        for text in filter(None, [meanings.get(name, ""), notes.get(key, "")]):
            yield from (f"{indent}# {line}" for line in textwrap.wrap(text, LONGEST_LINE - len(indent) - 2))
        if isinstance(value, BaseModel):
            yield f"{indent}{_flow(name)}:"
            inner = None if only is None or not isinstance(only[name], dict) else only[name]
            yield from _commented(value, inner, notes, f"{key}.")
            continue
        plain = config.model_dump(mode="json", include={name})[name]
        beside = "; ".join(filter(None, [_choices(field.annotation), _default(field, value)]))
        yield f"{indent}{_flow(name)}: {_flow(plain)}" + (f"  # {beside}" if beside else "")


def read_meanings(kind: type[BaseModel]) -> dict[str, str]:
    """What each field means, by the `Attributes` in the docstrings of the class and of those it extends."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        _, _, block = inspect.cleandoc(base.__doc__ or "").partition("\nAttributes:\n")
        name = ""
        for line in block.splitlines():
            if line and not line.startswith(" "):
                break
            if match := re.fullmatch(r" {4}(\w+): (.+)", line):
                name, found[match[1]] = match[1], match[2]
            elif name and line.strip():
                found[name] += f" {line.strip()}"
    return {name: text.rstrip(".") for name, text in found.items() if name in kind.model_fields}


def _choices(annotation: Any) -> str:
    if get_origin(annotation) is not Literal:
        return ""
    *others, last = map(str, get_args(annotation))
    return f"{', '.join(others)} or {last}" if others else last


def _default(field: FieldInfo, value: object) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    return "" if value == default else f"default {_flow(to_jsonable_python(default))}"


def _flow(value: object) -> str:
    """A plain value as YAML on one line."""
    return yaml.safe_dump([value], default_flow_style=True, width=10**6, sort_keys=False).strip()[1:-1]


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
