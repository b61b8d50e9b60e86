"""`velora convert IN OUT`: between event formats, and from a video to events."""

from __future__ import annotations

import contextlib
import functools
import glob
import itertools
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from velora_cli.options import preprocessing_options, rate_cap_option, read_preprocessing
from velora_edge.console import refuse_existing
from velora_edge.datatypes import EventBatch, TriggerBatch
from velora_edge.errors import InputError, VeloraError
from velora_edge.events.writers import WRITERS, format_of, open_writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from velora_edge.events.filters.filters import FilterChain
    from velora_edge.events.simulator import SensorModel
    from velora_edge.events.writers.base import EventWriter

VIDEOS = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")
"""Endings of files that are shown to the simulated sensor; and so is a folder of images."""


@dataclass(frozen=True, slots=True)
class EventSource:
    """Something that events come from.

    Attributes:
        width: of the sensor, pixels.
        height: likewise.
        batches: called once, gives the events.
        triggers: called at most once, before that; gives all trigger edges.
        warnings: what was wrong with it, complete after the last batch.
        share_done: how much of it was gone through, 0 to 1, once an event of the time that it is given has
            come; None where that cannot be told.
        first_us: time of the first event, where the batches do not begin with it.
    """

    width: int
    height: int
    batches: Callable[[], Iterator[EventBatch]]
    triggers: Callable[[], TriggerBatch]
    warnings: list[str]
    share_done: Callable[[int], float | None]
    first_us: int | None = None


@dataclass(frozen=True, slots=True)
class Cut:
    """Part of a source to keep.

    Attributes:
        start_us: counted from the first event.
        duration_us: from there on; None for all.
        rebases: let times begin at 0.
    """

    start_us: int = 0
    duration_us: int | None = None
    rebases: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left out."""
        return self.start_us == 0 and self.duration_us is None

    def span_us(self, first_us: int) -> tuple[int, int | None]:
        """Return start and end of the cut in a source whose first event is at `first_us`."""
        start_us = first_us + self.start_us
        return start_us, None if self.duration_us is None else start_us + self.duration_us


def from_recording(
    path: str, sensor: tuple[int, int] | None, format_name: str | None, cut: Cut
) -> EventSource:
    """The events of a file of any format that can be read, without reading far beyond the cut."""
    from velora_edge.events.registry import open_events

    reader = open_events(path, format=format_name, sensor=sensor)
    first_us = None if cut.is_whole else reader.first_us()
    if first_us is None:
        return EventSource(
            reader.width,
            reader.height,
            reader.__iter__,
            reader.triggers,
            reader.warnings,
            lambda _: reader.done,
        )
    start_us, end_us = cut.span_us(first_us)

    def share_done(t_us: int) -> float | None:
        return reader.done if end_us is None else (t_us - start_us) / (end_us - start_us)

    batches = functools.partial(reader.between, start_us, end_us)
    return EventSource(
        reader.width, reader.height, batches, reader.triggers, reader.warnings, share_done, first_us
    )


def from_pictures(path: str, sensor: tuple[int, int] | None, model: SensorModel, seed: int) -> EventSource:
    """The events that a simulated sensor gives when it is shown a video or a folder of images.

    Args:
        path: of the video or the folder.
        sensor: its width and height; the pictures are cropped to its shape and resized. By default it is of
            the pictures' size.
        model: what the sensor is like.
        seed: of its mismatch and noise.
    """
    from velora_edge.events.simulator import EventSimulator
    from velora_edge.preprocessing.registry import open_rgb_source
    from velora_edge.vision import Resizer

    pictures = open_rgb_source(path)
    if pictures is None:
        raise InputError("expected a recording, a video or a folder of images", path=path)
    source = pictures
    width, height = sensor or (source.width, source.height)
    simulator = EventSimulator(width, height, model, seed)
    resizer = Resizer((source.height, source.width), (height, width), "crop")
    image = np.empty((height, width, 3), np.uint8)
    seen, pictures_in_all = 0, len(source.times_us())

    def batches() -> Iterator[EventBatch]:
        nonlocal seen
        for frame in source:
            seen += 1
            resizer.resize_into(frame.image, image)
            yield simulator.push(image, frame.t_us)

    return EventSource(
        width, height, batches, TriggerBatch.empty, source.warnings, lambda _: seen / pictures_in_all
    )


def convert(
    source: EventSource,
    writer: EventWriter,
    cut: Cut,
    chain: FilterChain,
    advance: Callable[[EventBatch], None],
) -> None:
    """Write what the cut and the filters keep of the source; the writer is left open.

    Args:
        source: walked over once.
        writer: of a file of the size that the filters leave.
        cut: what is kept.
        chain: filters of the events, not of the trigger edges.
        advance: called after each batch of the source with what the cut kept of it.
    """
    triggers = source.triggers()
    triggers = _select(triggers, np.argsort(triggers.t_us, kind="stable"))
    batches = source.batches()
    first = next((batch for batch in batches if len(batch)), None)
    first_us = source.first_us if first is None or source.first_us is not None else int(first.t_us[0])
    start_us, end_us = cut.span_us(first_us or 0)
    if first_us is not None and not cut.is_whole:
        triggers = _select(triggers, _inside(triggers.t_us, start_us, end_us))
    shift_us = _first_us(start_us, triggers, cut) if cut.rebases and first_us is not None else 0
    writer.write_triggers(replace(triggers, t_us=triggers.t_us - shift_us))
    kept = _cut_batches(first, batches, (start_us, end_us), cut, advance)
    for batch in chain.filtered(kept):
        writer.write(replace(batch, t_us=batch.t_us - shift_us) if shift_us else batch)


def _cut_batches(
    first: EventBatch | None,
    others: Iterator[EventBatch],
    span_us: tuple[int, int | None],
    cut: Cut,
    advance: Callable[[EventBatch], None],
) -> Iterator[EventBatch]:
    start_us, end_us = span_us
    for batch in itertools.chain([] if first is None else [first], others):
        if len(batch) and end_us is not None and int(batch.t_us.min()) >= end_us:
            return
        kept = batch if cut.is_whole else batch[_inside(batch.t_us, start_us, end_us)]
        if len(kept):
            yield kept
        advance(kept)


def _inside(t_us: NDArray[Any], start_us: int, end_us: int | None) -> NDArray[Any]:
    inside: NDArray[Any] = t_us >= start_us
    return inside if end_us is None else inside & (t_us < end_us)


def _first_us(start_us: int, triggers: TriggerBatch, cut: Cut) -> int:
    if not cut.is_whole or not len(triggers):
        return start_us
    return min(start_us, int(triggers.t_us[0]))


def _select(triggers: TriggerBatch, which: NDArray[Any]) -> TriggerBatch:
    return TriggerBatch(triggers.t_us[which], triggers.id[which], triggers.p[which])


@contextlib.contextmanager
def _progress(source: EventSource, quiet: bool) -> Iterator[Callable[[EventBatch], None]]:
    """A bar on standard error that tells events and the time left; it swings where that is not known."""
    if quiet:
        yield lambda batch: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("0 events", total=None)
        events = 0

        def advance(batch: EventBatch) -> None:
            nonlocal events
            events += len(batch)
            share = source.share_done(int(batch.t_us[-1])) if len(batch) else None
            if share is None:
                bar.update(task, description=f"{events:,} events")
            else:
                bar.update(task, total=1.0, completed=share, description=f"{events:,} events")

        yield advance


def _report(writer: EventWriter, source: EventSource, chain: FilterChain) -> None:
    click.echo(
        f"{writer.path}: {writer.format}, {writer.width}x{writer.height}, {writer.events_written:,} events"
        + (f", {writer.triggers_written:,} trigger edges" if writer.triggers_written else "")
    )
    if writer.triggers_dropped:
        text = f"{writer.triggers_dropped:,} trigger edges left out: {writer.format} has no place for them"
        click.echo(f"warning: {text}", err=True)
    for text in (*source.warnings, *chain.sentences()):
        click.echo(f"warning: {text}", err=True)


def is_pictures(path: str) -> bool:
    """Whether the simulated sensor is needed: the path ends like a video, or is a folder and no ROS 2 bag."""
    if Path(path).is_dir():
        return not (Path(path) / "metadata.yaml").is_file()
    return Path(path).suffix.lower() in VIDEOS


EXAMPLES = """\b
Examples, in a checkout:
  D=velora_edge/assets
  velora convert $D/demo.raw part.h5 --start 0.5 --duration 1
  velora convert part.h5 part.csv
  velora info $D/demo.raw --hot-pixels hot.json
  velora convert $D/demo.raw clean.raw --filter background=3000 --hot-pixels hot.json
  velora convert $D/demo.mp4 events.raw --sensor 320x240 --threshold 0.25
  velora convert 'velora_edge/assets/*.raw' converted --format HDF5
"""


@click.command("convert", epilog=EXAMPLES)
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT")
@click.option(
    "--format", "format_name", metavar="NAME", help=f"Of OUT: {', '.join(WRITERS)}.  [default: by its ending]"
)
@click.option("--input-format", metavar="NAME", help="Of IN, for a file without its header.")
@click.option(
    "--sensor", metavar="WxH", help="IN's sensor, where it does not tell; or the simulated one's size."
)
@click.option(
    "--start", default=0.0, metavar="S", help="Leave out this many seconds from the first event on."
)
@click.option("--duration", type=float, metavar="S", help="Keep this many seconds.  [default: all]")
@click.option("--rebase", is_flag=True, help="Let times begin at 0.  [default: they stay as they are]")
@click.option("--overwrite", "--force", "overwrite", is_flag=True, help="Replace OUT where it exists.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@click.option("--threshold", default=0.2, show_default=True, help="Video: log-intensity step of an event.")
@click.option(
    "--refractory",
    default=500,
    show_default=True,
    metavar="US",
    help="Video: a pixel's silence after an event.",
)
@click.option(
    "--noise", default=0.1, show_default=True, metavar="HZ", help="Video: background activity of a pixel."
)
@click.option("--seed", default=0, show_default=True, help="Video: of mismatch and noise.")
@preprocessing_options
@rate_cap_option
def command(
    source: str, target: str, format_name: str | None, input_format: str | None, sensor: str | None,
    start: float, duration: float | None, rebase: bool, overwrite: bool, quiet: bool, threshold: float,
    refractory: int, noise: float, seed: int, **preprocessing: Any,
) -> None:  # fmt: skip
    """Write the events of IN, a recording of events, a video or a folder of images, to a new file OUT.

    IN may be a pattern in quotes, such as 'recordings/**/*.raw': then OUT is a folder, --format says what is
    written, and each file keeps its name and its place under the pattern's first folder.
    """
    from velora_cli.recordings.info import parse_sensor
    from velora_edge.events.simulator import SensorModel

    if start < 0 or (duration is not None and duration <= 0):
        raise InputError("--start: expected 0 or more seconds, and --duration: more than 0")
    size = parse_sensor(sensor)
    cut = Cut(round(start * 1e6), None if duration is None else round(duration * 1e6), rebase)
    model = SensorModel(threshold, threshold, refractory_us=refractory, noise_rate_hz=noise)

    def convert_one(one: str, to: Path) -> None:
        if is_pictures(one):
            events = from_pictures(one, size, model, seed)
        else:
            events = from_recording(one, size, input_format, cut)
        treatment = read_preprocessing(preprocessing)
        chain, (width, height) = treatment.rewriting_chain((events.width, events.height))
        with (
            open_writer(to, format_name or format_of(to), width=width, height=height) as writer,
            _progress(events, quiet) as advance,
        ):
            convert(events, writer, cut, chain, advance)
        _report(writer, events, chain)

    if is_pattern(source):
        _convert_all(list_outputs(source, Path(target), format_name), convert_one, overwrite=overwrite)
        return
    refuse_existing(Path(target), overwrite=overwrite)
    convert_one(source, Path(target))


def is_pattern(source: str) -> bool:
    """Whether it names files by a shell pattern, and none by itself."""
    return glob.has_magic(source) and not Path(source).exists()


def list_outputs(pattern: str, folder: Path, format_name: str | None) -> dict[str, Path]:
    """The file to write for each that a pattern matches.

    Args:
        pattern: with `*`, `?`, `[...]`, `**`.
        folder: where the files go.
        format_name: what is written.

    Raises:
        InputError: if no format is named, nothing matches, or two would be written to one place.
    """
    if format_name is None or format_name.upper() not in WRITERS:
        raise InputError(
            f"a pattern needs --format, one of {', '.join(WRITERS)}; got {format_name}", path=pattern
        )
    found = [Path(name) for name in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207  (absolute ones)
    root = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), Path(pattern).parts))
    ending = next(iter(WRITERS[format_name.upper()][2]), ".raw")
    outputs = {
        str(path): folder / path.relative_to(root).with_suffix(ending) for path in found if path.is_file()
    }
    if not outputs:
        raise InputError("matches no file", path=pattern, remedy="check the pattern; keep it in quotes")
    twice = [str(path) for path, count in Counter(outputs.values()).items() if count > 1]
    if twice:
        raise InputError(f"several files would become {twice[0]}", path=pattern, remedy="narrow the pattern")
    return outputs


def _convert_all(
    outputs: dict[str, Path], convert_one: Callable[[str, Path], None], *, overwrite: bool
) -> None:
    """Convert one after the other; what cannot be converted is told, and in nobody's way."""
    for target in outputs.values():
        refuse_existing(target, overwrite=overwrite)
    done = [_is_converted(source, target, convert_one) for source, target in outputs.items()]
    if not all(done):
        raise VeloraError(f"{done.count(False):,} of {len(done):,} files could not be converted")


def _is_converted(source: str, target: Path, convert_one: Callable[[str, Path], None]) -> bool:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        convert_one(source, target)
    except (VeloraError, OSError) as error:
        click.echo(f"failed: {error}", err=True)
        return False
    return True
