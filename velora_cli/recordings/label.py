"""`velora label`: a page to label a recording in the browser."""

from __future__ import annotations

import threading
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from velora_edge.console import note
from velora_edge.errors import MissingExtraError, SourceError, VeloraError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from velora_runtime.web.labelling import Suggestions
    from velora_runtime.web.overview import Overview
    from velora_runtime.web.server import MakeSite

EXAMPLES = """\b
Examples, in a checkout:
  D=velora_edge/assets
  velora record today --events $D/demo.raw --rgb $D/demo.mp4 --pace max
  velora label today
  velora label today --model demo --labels rest
"""


@click.command("label", epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("recording", type=click.Path(path_type=Path))
@click.option(
    "--model", metavar="MODEL", help="Show what this model says as suggestions: a bundle's folder, or demo."
)
@click.option(
    "--labels", default="", metavar="A,B,...", help="Labels to offer, beside those that are in use."
)
@click.option(
    "--serve",
    default="127.0.0.1:0",
    metavar="HOST:PORT",
    help="Where the page is. 0.0.0.0:8080 for other machines, which then need a token.  "
    "[default: this machine, a free port]",
)
@click.option(
    "--token",
    envvar="VELORA_TOKEN",
    metavar="TEXT",
    help="The token to ask for, also $VELORA_TOKEN; none: ask for none.  "
    "[default: a random one, but none on 127.0.0.1]",
)
def command(recording: Path, model: str | None, labels: str, serve: str, token: str | None) -> None:
    """Label a recording on a page in the browser.

    RECORDING is a folder that --record wrote, or one with an event file and its video. The segments are
    saved as they are made, in the folder's segments.csv, which velora dataset and velora train read. Ctrl-C
    ends it.
    """
    from velora_edge.data.layouts.recording_index import find_recording

    if not recording.exists():
        raise SourceError("no such file or folder", path=recording, remedy="check the path")
    try:
        from velora_runtime.web.labelling import Suggestions
        from velora_runtime.web.overview import Overview
        from velora_runtime.web.server import WebServer
    except ImportError as error:
        raise MissingExtraError(error.name or "starlette", "web", "velora label") from error
    folder = recording if recording.is_dir() else recording.parent
    events, video = find_recording(folder)
    if recording.is_file() and recording != events:
        raise SourceError(
            "is no recording of events", path=recording, remedy=f"give the folder: velora label {folder}"
        )
    names, suggestions = _labels(labels, model, folder), Suggestions()
    with ExitStack() as closing:
        overview = Overview(events, video, note)
        closing.callback(overview.close)
        server = WebServer(serve, token, _label_site(folder, overview, suggestions, names), note)
        closing.callback(server.close)
        if model is not None:
            ended = threading.Event()
            suggestions.is_coming = True
            asking = threading.Thread(
                target=_suggest, args=(model, events, video, suggestions, ended), daemon=True
            )
            asking.start()
            closing.callback(asking.join, 20.0)
            closing.callback(ended.set)
        else:
            _take_recorded(folder, suggestions)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


def _label_site(
    folder: Path, overview: Overview, suggestions: Suggestions, names: tuple[str, ...]
) -> MakeSite:
    from velora_runtime.web.labelling import LabelSite, SegmentFile

    from velora_edge.preprocessing.segments import SEGMENTS

    name = folder.resolve().name
    make = partial(LabelSite, name, overview, SegmentFile(folder / SEGMENTS), suggestions, names)
    return lambda gate, refused: make(gate)


def _labels(given: str, model: str | None, folder: Path) -> tuple[str, ...]:
    """Labels that are offered: those given, the model's, and those of the recordings beside this one."""
    from velora_edge.bundle import open_bundle
    from velora_edge.preprocessing.segments import SEGMENTS, read_segments

    names = [name.strip() for name in given.split(",") if name.strip()]
    if model is not None:
        names += open_bundle(model).manifest.labels
    for file in sorted(folder.resolve().parent.glob(f"*/{SEGMENTS}")):
        names += [segment.label for segment in read_segments(file).segments]
    return tuple(dict.fromkeys(names))


def _suggest(
    model: str, events: Path, video: Path | None, suggestions: Suggestions, ended: threading.Event
) -> None:
    """Let a model look at the recording; what goes wrong is told, and the page goes on without it."""
    import velora_runtime

    rgb = "none" if video is None else str(video)
    try:
        with velora_runtime.live(
            model, events=str(events), rgb=rgb, pace="max", note=lambda line: None
        ) as run:
            for prediction in run:
                suggestions.take(prediction.t_us, prediction.label, prediction.score)
                if ended.is_set():
                    return
    except (VeloraError, OSError) as error:
        note(f"no suggestions: {error}")
    finally:
        suggestions.is_coming = False


def _take_recorded(folder: Path, suggestions: Suggestions) -> None:
    """Take the predictions that were recorded with the cameras."""
    for line in _predictions(folder):
        t_us, label, score = line.get("t_us"), line.get("label"), line.get("score")
        if isinstance(t_us, int) and isinstance(label, str) and isinstance(score, float | int):
            suggestions.take(t_us, label, float(score))


def _predictions(folder: Path) -> Iterator[dict[str, Any]]:
    from velora_edge.limits import load_json, read_text
    from velora_edge.preprocessing.folder import PREDICTIONS

    file = folder / PREDICTIONS
    if not file.is_file():
        return
    for text in read_text(file).splitlines():
        try:
            line = load_json(text)
        except ValueError:
            continue
        if isinstance(line, dict):
            yield line
