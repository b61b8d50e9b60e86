"""Reference pages made of the code: every command with its options, every key of every configuration file."""

from __future__ import annotations

import inspect
import re
import types
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Union, get_args, get_origin

import click
import yaml
from mkdocs.structure.files import File
from pydantic import BaseModel
from pydantic_core import to_jsonable_python
from velora_runtime.cameras.camera_settings import CameraSettings
from velora_runtime.inference.decision import DecisionSettings

from velora_cli.main import COMMANDS as COMMAND_LINE
from velora_cli.main import velora
from velora_edge.config import read_meanings
from velora_edge.train.settings import PretrainConfig, TrainConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from pydantic.fields import FieldInfo


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    for uri, text in {**command_pages(), **configuration_pages()}.items():
        files.append(File.generated(config, uri, content=text))
    return files


# ---- commands ---------------------------------------------------------------------------------------------


COMMANDS = """# Command line
`velora-live` is `velora live`. Common to all: [command line](../../guides/command_line.md).

| command | |
|---|---|
"""


def command_pages() -> dict[str, str]:
    """A page for each command of `velora`, with its own commands on it, and one that lists them."""
    context = click.Context(velora, info_name="velora", **velora.context_settings)
    pages, rows = {}, []
    for command in COMMAND_LINE.all():
        made = click.Context(command.load(), info_name=command.name, parent=context)
        pages[f"reference/cli/{command.name}.md"] = "\n".join(_describe(made, "#"))
        rows.append(f"| [`velora {command.name}`]({command.name}.md) | {command.help} |")
    pages["reference/cli/index.md"] = COMMANDS + "\n".join(rows)
    return pages


def _describe(context: click.Context, level: str) -> Iterator[str]:
    """Lines about a command and the commands in it."""
    command = context.command
    yield f"{level} {context.command_path}"
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"```text\n{context.command_path} {usage}\n```\n"
    yield from _paragraphs(command.help or "")
    options = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
    if options:
        yield "| option | value | default | meaning |\n|---|---|---|---|"
        yield from (_option_row(option, context) for option in options)
    yield from _below_options(command.epilog or "")
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield "\n" + "\n".join(
                _describe(click.Context(child, info_name=name, parent=context), level + "#")
            )


def _paragraphs(text: str) -> Iterator[str]:
    r"""Paragraphs of a help text; those that begin with \b keep their lines."""
    for block in re.split(r"\n\s*\n", inspect.cleandoc(text.replace("\f", ""))):
        if block.startswith("\b"):
            yield f"```text\n{block.removeprefix(chr(8)).strip(chr(10))}\n```\n"
        else:
            yield f"{escape(' '.join(block.split()))}\n"


def _below_options(epilog: str) -> Iterator[str]:
    """Lines about what stands below a command's options: examples as code, all else as paragraphs."""
    for block in re.split(r"\n\s*\n", epilog.strip()):
        examples = examples_of(block)
        if examples:
            yield "\n**Examples**\n\n```sh\n" + "\n".join(examples) + "\n```\n"
        else:
            yield ""
            yield from _paragraphs(block)


def examples_of(block: str) -> list[str]:
    """The commands of a paragraph of examples, under where they run; none of any other paragraph."""
    found = re.match(r"[\b\s]*Examples?(?:, )?([^:]*):\s+(.*)", block, re.DOTALL)
    if found is None:
        return []
    lines = [part.strip() for line in found[2].splitlines() for part in line.split("  |  ")]
    return [*([f"# {found[1]}"] if found[1] else []), *filter(None, lines)]


def _option_row(option: click.Option, context: click.Context) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    again = " May be given again." if option.multiple else ""
    told = cell(escape(option.help or ""))
    return f"| {names} | {_value_text(option, context)} | {_default_text(option)} | {told}{again} |"


def _value_text(option: click.Option, context: click.Context) -> str:
    """What an option takes as code: one of its choices, or what stands for it; empty for a flag."""
    if option.is_flag or option.count:
        return ""
    if isinstance(option.type, click.Choice):
        return ", ".join(f"`{choice}`" for choice in option.type.choices)
    return f"`{option.make_metavar(context)}`"


def _default_text(option: click.Option) -> str:
    """An option's default as code; empty where it has none."""
    default = option.to_info_dict()["default"]
    return "" if option.is_flag or default in (None, ()) or callable(default) else f"`{default}`"


# ---- configuration ----------------------------------------------------------------------------------------


class Kind(NamedTuple):
    """A kind of configuration file: the page's title, what it is for, where there is more, and its form."""

    title: str
    purpose: str
    more: str
    schema: type[BaseModel]


KINDS = {
    "training": Kind(
        "Training",
        "The file that `velora train` takes.",
        "`velora init SET` writes one that fits a set, `velora train --print-config` prints all of this. "
        "How to choose: [training](../../guides/training.md).",
        TrainConfig,
    ),
    "pretraining": Kind(
        "Pre-training",
        "The file that `velora pretrain` takes, to make a tower from single images.",
        "More: [training](../../guides/training.md).",
        PretrainConfig,
    ),
    "cameras": Kind(
        "Cameras",
        "The file of `--cameras`: what a camera is set to when it is opened.",
        "What is not given stays as the camera has it. More: [cameras](../../guides/cameras.md).",
        CameraSettings,
    ),
    "decisions": Kind(
        "Decisions",
        "The file of `--decide`, whose keys may also be given as `--decide KEY=VALUE`.",
        "More: [decisions](../../guides/decisions.md).",
        DecisionSettings,
    ),
}
"""By the names of their pages."""
CONFIGURATION = """# Configuration
YAML files. A key that is not known is an error, and all errors of a file are told at once. What `velora.toml`
gives are options of [commands](../cli/index.md): [command line](../../guides/command_line.md).
"""


def configuration_pages() -> dict[str, str]:
    """A page for each kind of configuration file, with each of its keys, and one that lists them."""
    folder = "reference/configuration"
    pages = {
        f"{folder}/{name}.md": f"# {kind.title}\n{kind.purpose} {kind.more}\n\n"
        + "\n".join(_keys(kind.schema, ""))
        for name, kind in KINDS.items()
    }
    rows = [f"- [{kind.title}]({name}.md): {kind.purpose}" for name, kind in KINDS.items()]
    pages[f"{folder}/index.md"] = "\n".join([CONFIGURATION, *rows])
    return pages


def _keys(kind: type[BaseModel], prefix: str) -> Iterator[str]:
    """A table of a section's own keys, then its sections, each under its dotted name."""
    meanings, inner, rows = read_meanings(kind), [], []
    for name, field in kind.model_fields.items():
        section = section_of(field.annotation)
        if section is not None:
            inner.append((name, section))
        if section is None or is_many(field.annotation):
            form, default = cell(form_of(field)), default_of(field)
            rows.append(
                f"| `{prefix}{name}` | {form} | {cell(default)} | {cell(escape(meanings.get(name, '')))} |"
            )
    if rows:
        yield "| key | value | default | meaning |\n|---|---|---|---|"
        yield from rows
    for name, section in inner:
        yield f"\n## {prefix}{name}\n{escape(meanings.get(name, ''))}\n"
        yield from _keys(section, f"{prefix}{name}.")


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section in an annotation such as `Section`, `Section | None` or `tuple[Section, ...]`."""
    if isinstance(annotation, type) and not get_args(annotation):
        return annotation if issubclass(annotation, BaseModel) else None
    return next((found for part in get_args(annotation) if (found := section_of(part)) is not None), None)


def is_many(annotation: Any) -> bool:
    """Whether an annotation is of several sections."""
    return get_origin(annotation) in (tuple, list, dict)


def form_of(field: FieldInfo) -> str:
    """What a key's value may be."""
    bounds = []
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    for limit in field.metadata:
        bounds += [f"{sign} {getattr(limit, name):g}" for name, sign in signs.items() if hasattr(limit, name)]
    told = _form(field.annotation)
    return f"{told}, {', '.join(bounds)}" if bounds else told


NAMES = {int: "integer", float: "number", str: "text", bool: "true or false", type(None): "null"}


def _form(annotation: Any) -> str:
    origin, given = get_origin(annotation), get_args(annotation)
    if annotation in NAMES:
        return NAMES[annotation]
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in given)
    if origin in (Union, types.UnionType):
        return " or ".join(_form(part) for part in given)
    if origin is tuple and given[-1:] == (Ellipsis,):
        return f"list of {_form(given[0])}"
    if origin is tuple:
        return f"{len(given)} of {_form(given[0])}"
    if origin is dict:
        return f"keys with {_form(given[1])}"
    if section_of(annotation) is not None:
        return "section"
    return "any"


def default_of(field: FieldInfo) -> str:
    """A key's default as YAML."""
    if field.is_required():
        return "required"
    value = to_jsonable_python(field.get_default(call_default_factory=True))
    return f"`{yaml.safe_dump([value], default_flow_style=True, width=10**6).strip()[1:-1]}`"


def escape(text: str) -> str:
    """Text for Markdown, in which < and * outside code are themselves."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if i % 2 else re.sub(r"([<*_\[\]])", r"\\\1", part) for i, part in enumerate(parts))


def cell(text: str) -> str:
    """Text for a cell of a table; within code, Python-Markdown takes a | as it is."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if i % 2 else part.replace("|", "\\|") for i, part in enumerate(parts))
