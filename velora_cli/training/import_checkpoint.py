"""`velora import-checkpoint`: the authors' published file to a checkpoint of ours; and corrections of inputs.

What a model says of its images can be corrected at import, export and evaluation, by the same options.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from velora_edge.console import Command, StrideType, add_options, overwrite_option, refuse_existing
from velora_edge.errors import InputError

if TYPE_CHECKING:
    from velora_edge.bundle import EventInput, Palette, RGBInput
    from velora_edge.datatypes import FitMode
    from velora_edge.model.checkpoint import Inputs


_INPUTS = (
    click.option(
        "--labels",
        type=click.Path(path_type=Path),
        help="Other class names, in the order of the logits: a text file, one a line.",
    ),
    click.option(
        "--fit",
        type=click.Choice(["crop", "letterbox", "stretch"]),
        help="How pictures and events are brought to the model's size, where the model says otherwise.",
    ),
    click.option(
        "--stride",
        type=StrideType(),
        metavar="N",
        help="Pairs from one of a clip's pairs to the next, where the model says otherwise; auto: so many "
        "that a clip covers the time that it covered in training.",
    ),
    click.option(
        "--span",
        "span_s",
        type=click.FloatRange(0, min_open=True),
        metavar="S",
        help="Seconds from a clip's first pair to its last in training, where the model does not say.",
    ),
    click.option(
        "--rate",
        "rate_hz",
        type=click.FloatRange(0, min_open=True),
        metavar="HZ",
        help="Pairs a second of the recordings, where neither they nor the model say.",
    ),
    click.option(
        "--palette",
        metavar="BACKGROUND,OFF,ON",
        help="Colours of the event image in training, such as ffffff,0000ff,ff0000.",
    ),
)


def input_options(command: Command) -> Command:
    """A command with the options that correct what a model says of its inputs."""
    return add_options(command, _INPUTS)


@dataclass(frozen=True)
class InputCorrections:
    """What a user knows better than a model's files; None where nothing is corrected.

    Attributes:
        labels: class names in the order of the logits.
        fit: of pictures and of events.
        stride: pairs from one of a clip's pairs to the next, or auto.
        palette: of the polarity image.
        span_s: seconds that a clip covered in training.
        rate_hz: pairs a second of the recordings.
    """

    labels: tuple[str, ...] | None
    fit: FitMode | None
    stride: int | str | None
    palette: Palette | None
    span_s: float | None = None
    rate_hz: float | None = None

    def event(self, given: EventInput) -> EventInput:
        """The event input, corrected."""
        changes = {"fit": self.fit, "palette": self.palette}
        return given.model_copy(update={key: value for key, value in changes.items() if value is not None})

    def rgb(self, given: RGBInput) -> RGBInput:
        """The picture's input, corrected."""
        return given if self.fit is None else given.model_copy(update={"fit": self.fit})

    def inputs(self, given: Inputs, clip_length: int, sampling: str) -> Inputs:
        """A checkpoint's inputs, corrected.

        Args:
            given: of the checkpoint.
            clip_length: pairs in a clip.
            sampling: of the clips in training; by `stride` their span follows from the rate.

        Raises:
            InputError: if the stride is auto, and the span or the rate is not known.
        """
        from velora_edge.preprocessing.windows import auto_stride, clip_span_s

        span_s, rate_hz = self.span_s or given.span_s, self.rate_hz or given.rate_hz
        if span_s is None and rate_hz is not None and sampling == "stride":
            span_s = clip_span_s(clip_length, given.stride, rate_hz)
        stride = auto_stride(span_s, clip_length, rate_hz) if self.stride == "auto" else self.stride
        return given.model_copy(
            update={
                "event": self.event(given.event),
                "rgb": self.rgb(given.rgb),
                "stride": stride or given.stride,
                "span_s": span_s,
                "rate_hz": rate_hz,
            }
        )


def read_corrections(
    labels: Path | None,
    fit: FitMode | None,
    stride: int | str | None,
    palette: str | None,
    span_s: float | None,
    rate_hz: float | None,
) -> InputCorrections:
    """What a user gave to `input_options`, as a value.

    Raises:
        InputError: if the file of labels cannot be used, or the palette is not three colours.
    """
    from velora_edge.config import read_labels

    names = None if labels is None else read_labels(labels)
    colours = None if palette is None else _read_palette(palette)
    return InputCorrections(names, fit, stride, colours, span_s, rate_hz)


def _read_palette(text: str) -> Palette:
    from velora_edge.bundle import Palette

    colours = [part.strip().removeprefix("#") for part in text.split(",")]
    if len(colours) != 3 or not all(re.fullmatch("[0-9a-fA-F]{6}", colour) for colour in colours):
        raise InputError(
            f"expected three colours of six hexadecimal digits each, got {text!r}",
            place="--palette",
            remedy="give background, OFF and ON, such as ffffff,0000ff,ff0000",
        )
    background, off, on = (tuple(bytes.fromhex(colour)) for colour in colours)
    return Palette(background=background, off=off, on=on)


@click.command(
    epilog="Examples:  velora import-checkpoint published.pth runs/published  |  "
    "velora import-checkpoint published.pth runs/published --allow-unknown"
)
@click.argument("published", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@input_options
@click.option("--heads", type=click.IntRange(1), help="Attention heads of the towers; by default width / 64.")
@click.option("--fusion-heads", type=click.IntRange(1), help="Those of the fusion block.")
@click.option("--alpha", default=8.0, show_default=True, help="LoRA's alpha, which the file does not hold.")
@click.option("--clip-length", default=8, show_default=True, help="Pairs in a clip.")
@click.option("--allow-unknown", is_flag=True, help="Pass over names that nobody here knows, and list them.")
@overwrite_option
@click.option("--verbose", is_flag=True, help="List the names that have no effect on a prediction.")
def command(
    published: Path,
    out: Path,
    labels: Path | None,
    fit: FitMode | None,
    stride: int | str | None,
    palette: str | None,
    span_s: float | None,
    rate_hz: float | None,
    heads: int | None,
    fusion_heads: int | None,
    alpha: float,
    clip_length: int,
    allow_unknown: bool,
    overwrite: bool,
    verbose: bool,
) -> None:
    """Turn PUBLISHED, a .pth file of VELoRA's authors, into the checkpoint folder OUT.

    The model computes what the published code does for one clip at a time (compat="reference"), and takes
    its images as that code does: stretched, mean and standard deviation 0.5, clips of the whole recording.
    Every tensor is taken over by name and shape; a missing or an unknown one is an error that names it.
    """
    from velora_edge.model.checkpoint import CHECKPOINT, save_checkpoint
    from velora_edge.model.published import INPUTS, import_published

    if (out / CHECKPOINT).is_file():  # anything else is never replaced
        refuse_existing(out, overwrite=overwrite)
    corrections = read_corrections(labels, fit, stride, palette, span_s, rate_hz)
    imported = import_published(
        published,
        labels=corrections.labels,
        heads=heads,
        fusion_heads=fusion_heads,
        alpha=alpha,
        clip_length=clip_length,
        allow_unknown=allow_unknown,
    )
    inputs = corrections.inputs(INPUTS, clip_length, "spread")
    run = {
        "imported_from": published.name,
        "epoch": imported.epoch,
        "data": {"sampling": "spread", "event_frames": "files"},
    }
    save_checkpoint(imported.model, out, include_base=True, inputs=inputs, run=run)
    config = imported.model.config
    unused = sum(len(names) for names in imported.unused.values())
    click.echo(
        f"{out}: {imported.used} tensors taken over, {unused} without effect on a prediction; "
        f"{config.image_size[1]}x{config.image_size[0]} images, {len(config.labels)} classes, "
        f"LoRA rank {config.lora.rank}"
    )
    click.echo(
        f"images by {inputs.rgb.fit}, mean and std 0.5, clips spread over a recording, "
        f"labels from {config.labels[0]} to {config.labels[-1]}; "
        "--fit, --stride, --palette, --labels correct it"
    )
    is_timed = inputs.span_s is not None and inputs.rate_hz is not None
    how = " --stride auto" if is_timed else " --stride N" if inputs.stride == 1 else ""
    for name in imported.passed_over:
        click.echo(f"passed over: {name}")
    if verbose:
        for part, names in imported.unused.items():
            click.echo(f"without effect in {part}: {', '.join(names)}")
    click.echo(f"next: velora eval {out} --data Poker_Event")
    click.echo(f"      velora export {out} {out.name}.velora{how}")
