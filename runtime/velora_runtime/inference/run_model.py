"""Model of a run: its bundle, its stride, and its engine, opened once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from velora_edge import __version__
from velora_edge.bundle import EventInput, Manifest, Weights, open_bundle
from velora_edge.errors import InputError
from velora_edge.manifest import was_trained_on_files
from velora_edge.preprocessing.windows import clip_span_s, stride_for
from velora_runtime.engines.base import EngineOptions, RetryingEngine
from velora_runtime.engines.registry import open_engine

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

NO_MODEL = "none"


def no_model() -> Manifest:
    """Manifest of a run without a model: polarity images of 224x224, windows of 1/30 s."""
    return Manifest(
        name=NO_MODEL,
        version=__version__,
        labels=(NO_MODEL,),
        clip_length=2,
        image_size=(224, 224),
        tokens=1,
        token_size=1,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        event=EventInput(fit="letterbox"),
        weights=Weights(trained=True, architecture=NO_MODEL, sha256=""),
        opset=18,
    )


class RunModel:
    """A run's model: the bundle, where there is one, and its engine once it is opened.

    Use as a context manager, or call `close`. Single-threaded, and of one run at a time.

    Args:
        model: a bundle's folder, or demo; None for a run without a model.
        backend: the engine's, or auto.
        options: what it runs on.

    Attributes:
        bundle: None in a run without a model.
        manifest: the bundle's, or that of a run without a model.
        engine: None until it is opened.

    Raises:
        BundleError: if there is no such model, or it is damaged.
    """

    def __init__(
        self, model: str | None, backend: str = "auto", options: EngineOptions | None = None
    ) -> None:
        self._backend, self._options = backend, options or EngineOptions()
        self.bundle = None if model is None else open_bundle(model)
        self.manifest = no_model() if self.bundle is None else self.bundle.manifest
        self.engine: RetryingEngine | None = None

    def take_stride(
        self,
        stride: int | Literal["auto"] | None,
        find_rate_hz: Callable[[], float | None],
        note: Callable[[str], None],
    ) -> None:
        """Let clips be made by the stride that a user wants; an engine of another one is closed."""
        if self.bundle is None or stride is None:
            return
        manifest = with_stride(self.manifest, stride, find_rate_hz, note)
        if manifest.stride != self.manifest.stride:
            self.close()
        self.bundle.manifest = self.manifest = manifest

    def open_engine(self, note: Callable[[str], None], *, has_events: bool = True) -> RetryingEngine | None:
        """The engine, opened when it is first asked for; None without a model.

        Args:
            note: gets lines about it, now and at failures that are got over.
            has_events: it will see events.

        Raises:
            EngineError: if there is none for this machine.
        """
        if self.engine is not None or self.bundle is None:
            return self.engine
        manifest = self.manifest
        for line in model_warnings(manifest, has_events=has_events):
            note(line)
        choice = open_engine(self.bundle, self._backend, self._options)
        self.engine = RetryingEngine(choice.engine, note)
        note(f"{manifest.name} on {choice.engine.name}")
        for reason in choice.passed_over:
            note(f"passed over {reason}")
        self.engine.warm_up()
        return self.engine

    def close(self) -> None:
        """Let go of the engine; the next run opens another one."""
        engine, self.engine = self.engine, None
        if engine is not None:
            engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def model_warnings(manifest: Manifest, *, has_events: bool) -> list[str]:
    """Lines for people about a model whose labels may be wrong, whatever it is shown.

    Args:
        manifest: the model's.
        has_events: it will see events.
    """
    found = []
    if not manifest.weights.trained:
        found.append(f"the weights of {manifest.name} are random: its labels mean nothing")
    if has_events and was_trained_on_files(manifest):
        found.append(
            f"{manifest.name} was trained on event frames of image files, whose windows and colours are "
            "not known: packed here, events look different, and labels may be wrong; train on a set "
            "built from event files, or correct --palette at export"
        )
    return found


def why_silent(manifest: Manifest, pairs: int) -> str:
    """A line for people about a run of so few pairs that no clip was full."""
    needed = (manifest.clip_length - 1) * manifest.stride + 1
    stride = f" {manifest.stride} apart" if manifest.stride > 1 else ""
    return (
        f"no prediction: a clip is {manifest.clip_length} pairs{stride}, so the first needs {needed} pairs, "
        f"and there were {pairs}"
    )


def with_stride(
    manifest: Manifest,
    stride: int | Literal["auto"] | None,
    find_rate_hz: Callable[[], float | None],
    note: Callable[[str], None],
) -> Manifest:
    """The manifest with the stride that a user wants.

    Args:
        manifest: the model's.
        stride: what the user gave: pairs, `auto`, or None for the model's own.
        find_rate_hz: gives the pairs a second, where they are needed.
        note: gets a line about what `auto` found.

    Raises:
        InputError: if `auto` cannot be found.
    """
    if stride == "auto":
        if manifest.span_s is None:
            raise InputError(
                f"auto: {manifest.name} does not say how long a clip was in training",
                place="--stride",
                remedy="export it again with --span S, or give a number of pairs",
            )
        rate_hz = find_rate_hz()
        if rate_hz is None:
            raise InputError(
                "auto: nobody can tell how many frames a second the RGB source gives",
                place="--stride",
                remedy="give a number of pairs",
            )
        stride = stride_for(manifest.span_s, manifest.clip_length, rate_hz)
        span_s = clip_span_s(manifest.clip_length, stride, rate_hz)
        note(
            f"stride {stride}: a clip covers {span_s:.2f} s at {rate_hz:.3g} pairs a second, "
            f"{manifest.span_s:.2f} s in training"
        )
    return manifest if stride is None else manifest.model_copy(update={"stride": stride})
