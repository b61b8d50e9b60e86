"""The examples of every `--help`: they are understood, name what exists, and run where they can."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tests.cli.help_texts import all_commands
from velora_cli.main import velora

ROOT = Path(__file__).parents[2]
MADE = {"run.json", "predictions.jsonl", "overlay.mp4", "part.h5", "part.csv", "hot.json", "clean.raw"}
MADE |= {"events.raw", "offset.png", "clips.h5", "report.json", "scores.json", "models/", "runs/published"}
MADE |= {"bench.json", "bench/", "runs/demo_model", "runs/demo_model/best", "my.velora", "my-int8.velora"}
MADE |= {"my.yaml", "clip.safetensors", "tower.safetensors"}
"""What examples write, and what others then read."""
DOWNLOADED = {"published.pth", "poker.txt", "dinov2_vits14_pretrain.pth", "ViT-B-16.pt"}
DOWNLOADED |= {"vit_base_patch16_clip_quickgelu_224.openai"}
"""A checkpoint that the authors published, and its labels; weights of towers, and timm's name of one."""
NOT_RUN = {
    "a person at the page": r"velora label ",
    "a camera": r"neuromorphic://|tcp://|/dev/video0|^velora-live demo $",
    "an hour of training": r"velora (train|pretrain) |runs/demo_model",
    "minutes for thousands of rendered clips": r"velora (eval|dataset (build|check)) ",
    "an NVIDIA GPU, or a model of one's own": r"velora build ",
    "the authors' checkpoint": r"published\.pth",
    "timm's hub, or weights that others published": r"velora weights ",
    "a machine that does nothing else": r"velora bench",
    "a Ray cluster": r"--ray ",
}
"""Examples that a test cannot run, by what they need."""


def examples_of(epilog: str | None) -> list[list[str]]:
    """The examples at the end of a help text, each as words; $D is put in."""
    text = re.sub(r"^.*?Examples?[^:]*:", "", epilog or "", flags=re.DOTALL).replace(
        "$D", "velora_edge/assets"
    )
    parts = [part.strip() for line in text.splitlines() for part in line.split("  |  ")]
    return [shlex.split(part) for part in parts if part.startswith("velora")]


EXAMPLES = {words: found for words, c in all_commands().items() if (found := examples_of(c.command.epilog))}
EVERY = [" ".join(example) for found in EXAMPLES.values() for example in found]


def as_velora(example: list[str]) -> list[str]:
    """The arguments of `velora`, without what the shell does."""
    example = example[: example.index(">")] if ">" in example else example
    return (["live"] if example[0] == "velora-live" else []) + example[1:]


def test_most_commands_have_examples() -> None:
    assert len(EXAMPLES) >= 12
    assert len(EVERY) >= 30


@pytest.mark.parametrize("example", EVERY)
def test_an_example_is_understood(example: str) -> None:
    words = as_velora(example.split())
    command: click.Command = velora
    context = click.Context(velora, info_name="velora", **velora.context_settings)
    while isinstance(command, click.Group):
        name = words.pop(0)
        child = command.get_command(context, name)
        assert child is not None, name
        command, context = child, click.Context(child, context, name)
    command.make_context(command.name, words, parent=context.parent)


@pytest.mark.parametrize("example", EVERY)
def test_an_example_names_files_that_exist_or_that_an_example_makes(example: str) -> None:
    words = [word for word in example.split() if re.search(r"/|\.[a-z]+[0-9]?$", word) and "://" not in word]
    files = [word for word in words if not word.startswith(("/dev/", "10.")) and "=" not in word]
    lost = [file for file in files if file not in MADE | DOWNLOADED and not any(ROOT.glob(file))]
    assert lost == []


def needs(example: list[str]) -> str | None:
    return next((what for what, told in NOT_RUN.items() if re.search(told, " ".join(example) + " ")), None)


@pytest.mark.slow
@pytest.mark.parametrize("words", [w for w, found in EXAMPLES.items() if not all(map(needs, found))])
def test_examples_run_one_after_the_other(tmp_path: Path, words: str) -> None:
    for name in ("velora_edge", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    for example in EXAMPLES[words]:
        if needs(example) is not None:
            continue
        port = ["127.0.0.1:0" if word == "127.0.0.1:8080" else word for word in as_velora(example)]
        done = subprocess.run(
            [sys.executable, "-c", "from velora_cli.main import main; main()", *port],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, (example, done.stderr)
