"""Plots of a result: PNG files, and one page that shows them with the text."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from velora_edge.errors import InputError, MissingExtraError
from velora_runtime.bench.report import lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from velora_runtime.bench.figures import Part
    from velora_runtime.bench.result import BenchResult

PAGE = "index.html"
INK, HOST, ENGINE, MARK = "#333333", "#4477aa", "#ee7733", "#cc3311"
STEP = "streaming step"
_STYLE = "body{font:15px sans-serif;max-width:1000px;margin:2em auto}img{max-width:100%}pre{overflow:auto}"


def load_figure() -> Any:
    """Matplotlib's Figure, which draws without a window.

    Raises:
        MissingExtraError: naming the extra to install, if it is not there.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot", "--plot") from error
    return Figure


def write_page(result: BenchResult, folder: Path) -> Path:
    """Write a PNG for each plot that the result has figures for, and a page; gives the page.

    Raises:
        MissingExtraError: if matplotlib is not installed.
        InputError: if the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = [_write_plot(draw, result, folder / f"{name}.png") for name, draw in _wanted(result)]
        page = folder / PAGE
        page.write_text(_page(result, names), encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"cannot be written: {error.strerror}", path=folder, remedy="choose another place with --plot"
        ) from error
    return page


def _write_plot(draw: Callable[[Any, BenchResult], None], result: BenchResult, path: Path) -> str:
    figure = load_figure()(figsize=(9, 4.5), layout="constrained")
    draw(figure, result)
    figure.savefig(path, dpi=110)
    return path.name


def _page(result: BenchResult, names: Sequence[str]) -> str:
    title = html.escape(f"velora bench, {result.machine.board}, {result.date}")
    text = html.escape("\n".join(lines(result)))
    images = "\n".join(f'<p><img src="{name}" alt="{name.removesuffix(".png")}"></p>' for name in names)
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>"
    command = f"<p><code>{html.escape(result.reproduce)}</code></p>"
    return f"{head}\n<h1>{title}</h1>\n{command}\n{images}\n<pre>{text}</pre>\n"


def _wanted(result: BenchResult) -> Iterator[tuple[str, Callable[[Any, BenchResult], None]]]:
    """Names of files and what draws them; those alone that the result has figures for."""
    if result.live is not None and result.live.samples_ms:
        yield "latency", _latency
        if result.live.stages:
            yield "stages", _stages
    if result.parts:
        yield "parts", _parts
    for key in ("event_rate_hz", "fps"):
        if result.sweeps.get(key):
            yield f"cost_against_{key}", _sweep(key)
    steps = [part for part in result.parts if part.name == STEP]
    for key, label in _MODEL_AXES:
        if len({getattr(model, key) for model in result.models}) > 1 and steps:
            yield f"cost_against_{key}", _cost(key, label, steps)
    if result.limits:
        yield "saturation", _saturation
    if result.roofline is not None and result.roofline.shares:
        yield "roofline", _shares


_MODEL_AXES = (
    ("megabytes", "model, MB"),
    ("clip_length", "clip length T, pairs"),
    ("stride", "stride, pairs"),
)


def _axes(figure: Any, title: str, x: str, y: str) -> Any:
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", color=INK)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _latency(figure: Any, result: BenchResult) -> None:
    live = result.live
    assert live is not None
    latency = live.exposure_ms or live.last_event_ms
    what = "exposure" if live.exposure_ms is not None else "last event"
    title = f"{what} to decision, {live.fps:g} fps, {live.event_rate_hz / 1e6:g} Mev/s"
    axes = _axes(figure, title, "ms", "decisions")
    axes.hist(live.samples_ms, bins=60, color=HOST)
    if latency is not None:
        for name in ("p50", "p99"):
            axes.axvline(getattr(latency, name), color=MARK, linewidth=1)
            axes.annotate(name, (getattr(latency, name), 1.0), xycoords=("data", "axes fraction"), color=MARK)


def _stages(figure: Any, result: BenchResult) -> None:
    assert result.live is not None
    stages = [stage for stage in result.live.stages if stage.cpu_ms is not None]
    axes = _axes(figure, "a decision's CPU time by stage (blue: host, orange: within the engine)", "ms", "")
    colours = [ENGINE if stage.side == "engine" else HOST for stage in stages]
    axes.barh([stage.name for stage in stages], [stage.cpu_ms for stage in stages], color=colours)
    axes.invert_yaxis()


def _parts(figure: Any, result: BenchResult) -> None:
    parts = result.parts
    figure.set_size_inches(9, 1.5 + 0.3 * len(parts))
    axes = _axes(figure, "parts, warm, in turn: p50, and p99 as a line", "ms", "")
    colours = [HOST if part.backend is None else ENGINE for part in parts]
    places = range(len(parts))
    axes.barh(places, [part.p50_ms for part in parts], color=colours)
    axes.hlines(places, [part.p50_ms for part in parts], [part.p99_ms for part in parts], color=INK)
    axes.set_yticks(places, [part.title for part in parts])
    axes.set_xscale("log")
    axes.invert_yaxis()


def _sweep(key: str) -> Callable[[Any, BenchResult], None]:
    labels = {"event_rate_hz": "events a second", "fps": "pictures a second"}

    def draw(figure: Any, result: BenchResult) -> None:
        rows = result.sweeps[key]
        axes = _axes(figure, f"cost against {labels[key]}", labels[key], "ms")
        for share in ("p50_ms", "p99_ms"):
            told = [(row["at"], row[share]) for row in rows if share in row]
            axes.plot([x for x, _ in told], [y for _, y in told], marker="o", label=share.removesuffix("_ms"))
        axes.set_xscale("log")
        axes.legend(frameon=False, loc="upper left")
        cores = axes.twinx()
        used = [(row["at"], row["cores"]) for row in rows if "cores" in row]
        cores.plot([x for x, _ in used], [y for _, y in used], color=INK, linestyle=":")
        cores.set_ylim(bottom=0)
        cores.set_ylabel("cores in use (dotted)")

    return draw


def _cost(key: str, label: str, steps: Sequence[Part]) -> Callable[[Any, BenchResult], None]:
    def draw(figure: Any, result: BenchResult) -> None:
        axes = _axes(figure, f"a streaming step against {label}", label, "ms, p50")
        at = {(model.name, model.precision): getattr(model, key) for model in result.models}
        backends = sorted({str(part.backend) for part in steps})
        for backend in backends:
            told = sorted(
                (at[str(p.model), str(p.precision)], p.p50_ms) for p in steps if p.backend == backend
            )
            axes.plot([x for x, _ in told], [y for _, y in told], marker="o", label=backend)
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False)

    return draw


def _saturation(figure: Any, result: BenchResult) -> None:
    for place, limit in enumerate(result.limits, 1):
        axes = figure.add_subplot(1, len(result.limits), place)
        steps = range(1, len(limit.probes) + 1)
        colours = [HOST if probe.fits else MARK for probe in limit.probes]
        axes.scatter(steps, [probe.rate for probe in limit.probes], color=colours)
        axes.set_yscale("log")
        stage = "no limit was found" if limit.stage is None else f"{limit.stage} gives way"
        axes.set_title(f"{limit.of}: {limit.highest or 0:.4g}; {stage}", loc="left", fontsize=9)
        axes.set_xlabel("step of the search (red: does not fit)")


def _shares(figure: Any, result: BenchResult) -> None:
    assert result.roofline is not None
    shares = result.roofline.shares
    figure.set_size_inches(9, 1.5 + 0.3 * len(shares))
    axes = _axes(figure, "share of the device's measured rates (orange: arithmetic, blue: memory)", "%", "")
    places = range(len(shares))
    axes.barh(places, [100 * (share.arithmetic or 0) for share in shares], 0.4, color=ENGINE)
    axes.barh([p + 0.4 for p in places], [100 * share.memory for share in shares], 0.4, color=HOST)
    titles = [f"{share.part}, {share.model}, {share.backend}, {share.precision}" for share in shares]
    axes.set_yticks([p + 0.2 for p in places], titles)
    axes.invert_yaxis()
