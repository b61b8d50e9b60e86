"""Predictions of whole archives: which recordings there are, what each is keyed by, and one after the other.

recordings/today/              a folder that velora record wrote
recordings/today.raw, .mp4     an event file, and a video of the same name beside it
recordings/door.aedat4         a DAVIS camera's file: its frames are the video
recordings/door.mp4            a video alone
recordings/door/               images with timestamps.txt, or a ROS 2 bag
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import time
import traceback
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from velora_edge.bundle import MANIFEST, file_sha256, open_bundle, values_sha256
from velora_edge.errors import EngineError, InputError, SourceError, VeloraError
from velora_edge.events.registry import open_events
from velora_edge.preprocessing.folder import EVENTS, INFO, TIMES, TRIGGERS, VIDEO, is_recording
from velora_edge.preprocessing.registry import find_sources
from velora_edge.preprocessing.sources import NONE
from velora_edge.preprocessing.sync import SyncOptions, parse_mode
from velora_runtime.app.parts import SCHEMA_VERSION, Outcome, ParquetPart, count_rows
from velora_runtime.app.session import RunOptions, run_session
from velora_runtime.inference.run_model import RunModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from velora_edge.bundle import Manifest

Only = Literal["events", "rgb"]

EVENT_FILES = (
    ".raw", ".dat", ".h5", ".hdf5", ".aedat", ".aedat4", ".es", ".bin", ".npz", ".npy", ".mat", ".bag",
    ".mcap",
)  # fmt: skip
VIDEO_FILES = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v")
"""Endings by which recordings are found in folders; a pattern that ends in another one finds those too."""
_BAG = "metadata.yaml"
_RECORDED = (INFO, EVENTS, VIDEO, TIMES, TRIGGERS)


@dataclass(frozen=True, slots=True)
class ArchivedRecording:
    """A recording of an archive.

    Attributes:
        name: its path, as the pattern gives it.
        events: absolute path of the events, or none. A folder that velora record wrote stands in both places.
        rgb: of the pictures, likewise.
    """

    name: str
    events: str
    rgb: str

    def files(self) -> Iterator[Path]:
        """The files that predictions follow from, in an order that stays."""
        for source in dict.fromkeys((self.events, self.rgb)):
            path = Path(source)
            if source == NONE:
                continue
            if is_recording(path):
                yield from (path / name for name in _RECORDED if (path / name).is_file())
            elif path.is_dir():
                yield from sorted(file for file in path.rglob("*") if file.is_file())
            else:
                yield path

    def stamp(self) -> str:
        """SHA-256 of its files' names, sizes and times of change, hexadecimal; reads none of them.

        Raises:
            OSError: if one is gone.
        """
        stats = [(str(file), file.stat()) for file in self.files()]
        return values_sha256([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])

    def digest(self) -> str:
        """SHA-256 of the content of its files, hexadecimal; reads all of them.

        Raises:
            OSError: if one cannot be read.
        """
        return values_sha256([(file.name, file_sha256(file)) for file in self.files()])


def find_recordings(patterns: Sequence[str]) -> list[ArchivedRecording]:
    """The recordings that patterns mean, by name.

    Args:
        patterns: paths, or shell patterns with `*`, `?`, `[...]` and `**` (any folders); a folder stands for
            all recordings in it.

    Raises:
        SourceError: if one matches nothing that is a recording.
    """
    found: dict[str, ArchivedRecording] = {}
    for pattern in patterns:
        here = {one.name: one for path in _matches(pattern) for one in _recordings_at(path, pattern)}
        if not here:
            raise SourceError(
                "matches no recording",
                path=pattern,
                remedy="give folders, files, or patterns in quotes, such as 'recordings/**'",
            )
        found.update(here)
    return [found[name] for name in sorted(found)]


def _matches(pattern: str) -> Iterator[Path]:
    if Path(pattern).exists():
        yield Path(pattern)
        return
    yield from (Path(os.path.normpath(path)) for path in sorted(glob.glob(pattern, recursive=True)))  # noqa: PTH207  (Path's has no absolute patterns)


def _recordings_at(path: Path, pattern: str) -> Iterator[ArchivedRecording]:
    """What a match stands for: itself, or all that a folder holds."""
    if path.is_dir():
        yield from _in_folder(path)
        return
    if _is_one(path.parent) or _is_bundle(path.parent):
        return  # a file of a folder that a pattern matches too
    is_meant = path == Path(pattern) or path.suffix == Path(pattern).suffix != ""
    one = _from_file(path, is_meant=is_meant)
    if one is not None:
        yield one


def _is_one(folder: Path) -> bool:
    """Whether a folder is a recording, and does not hold some."""
    return any((folder / name).is_file() for name in (INFO, TIMES, _BAG))


def _is_bundle(folder: Path) -> bool:
    return (folder / MANIFEST).is_file()


def _in_folder(folder: Path) -> Iterator[ArchivedRecording]:
    name, place = folder.as_posix(), str(folder.absolute())
    if _is_one(folder):
        is_both, is_bag = is_recording(folder), (folder / _BAG).is_file()
        yield ArchivedRecording(name, place if is_both or is_bag else NONE, NONE if is_bag else place)
    elif not _is_bundle(folder):
        for entry in sorted(folder.iterdir()):
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _in_folder(entry)
            elif (one := _from_file(entry, is_meant=False)) is not None:
                yield one


def _from_file(path: Path, *, is_meant: bool) -> ArchivedRecording | None:
    """The recording that a file is, with a video of its name; None where it is none, or such a video."""
    name, place, ending = path.as_posix(), str(path.absolute()), path.suffix.lower()
    if ending in VIDEO_FILES:
        is_beside = any(path.with_suffix(other).is_file() for other in EVENT_FILES)
        return None if is_beside else ArchivedRecording(name, NONE, place)
    if ending not in EVENT_FILES and not is_meant:
        return None
    videos = [video for other in VIDEO_FILES if (video := path.with_suffix(other)).is_file()]
    return ArchivedRecording(name, place, str(videos[0].absolute()) if videos else NONE)


@dataclass(frozen=True, slots=True)
class ArchivePlan:
    """What is predicted, how, and where it goes; the same for every recording. Pickled to the workers.

    Attributes:
        options: of the runs; sources and outputs are left out.
        folder: of the run, in the user's folder.
        about: the content of `run.json`.
        only: the one camera that is taken; None: both.
    """

    options: RunOptions
    folder: Path
    about: Mapping[str, Any]
    only: Only | None = None

    def part_name(self, recording: str, digest: str) -> str:
        """The file of a recording's rows."""
        readable = re.sub(r"[^A-Za-z0-9.]+", "_", recording).strip("_.")[-80:]
        return f"{readable}-{hashlib.sha256(recording.encode()).hexdigest()[:8]}-{digest[:12]}.parquet"


def make_plan(options: RunOptions, out: Path, only: Only | None = None) -> ArchivePlan:
    """A plan; its folder's name holds a digest of the model and of the options that predictions follow from.

    Args:
        options: the model, and how its runs are made; at pace max.
        out: the user's folder.
        only: the one camera that is taken.

    Raises:
        InputError: if the model or a file that an option names cannot be used.
    """
    assert options.model is not None
    _check(options)
    bundle = open_bundle(options.model)
    asked = _asked(options, only)
    model = _model_digest(bundle.manifest)
    key = values_sha256([SCHEMA_VERSION, model, asked])
    name = re.sub(r"[^A-Za-z0-9._]+", "_", bundle.manifest.name)
    about = {"v": SCHEMA_VERSION, "model": bundle.manifest.name, "model_digest": model, "options": asked}
    preprocessing = replace(
        options.preprocessing,
        calibration=_absolute(options.preprocessing.calibration),
        hot_pixels=_absolute(options.preprocessing.hot_pixels),
    )
    model_path = str(bundle.path.absolute())
    return ArchivePlan(
        replace(options, model=model_path, pace="max", outputs=(), preprocessing=preprocessing),
        out.absolute() / f"{name}-{key[:12]}",
        about,
        only,
    )


def _check(options: RunOptions) -> None:
    """Refuse once what would fail every recording.

    Raises:
        InputError: if there is no such synchronisation of recordings, or no such filter.
    """
    if parse_mode(options.sync.mode)[0] == "host":
        raise InputError(
            "--sync host is for live cameras", remedy="use auto, timestamps, trigger or offset=US"
        )
    replace(options.preprocessing, hot_pixels=None).filter_chain((8, 8))


def _model_digest(manifest: Manifest) -> str:
    """Of all that a model's labels follow from: engines that were built of its graphs are left out."""
    told = manifest.model_dump(mode="json", exclude={"engines", "report", "accuracy"})
    engines = {engine.file for engine in manifest.engines}
    told["files"] = {name: digest for name, digest in told["files"].items() if name not in engines}
    return values_sha256(told)


def _asked(options: RunOptions, only: Only | None) -> dict[str, Any]:
    """The options that predictions follow from, as plain values; files by their digests."""
    preprocessing = asdict(options.preprocessing)
    for key in ("calibration", "hot_pixels"):
        preprocessing[key] = _with_digest(preprocessing[key])
    return {
        "only": only,
        "sync": asdict(options.sync),
        "start_s": options.start_s,
        "duration_s": options.duration_s,
        "stride": options.stride,
        "idle_below": options.idle_below,
        "provisional_hz": None if options.provisional_hz is None else str(options.provisional_hz),
        "rate_hz": None if options.rate_hz is None else str(options.rate_hz),
        "sensor": None if options.sensor is None else list(options.sensor),
        "backend": options.backend,
        "device": options.engine.device,
        "preprocessing": {**preprocessing, "filters": list(preprocessing["filters"])},
        "decide": None if options.decide is None else options.decide.model_dump(mode="json"),
    }


def _with_digest(text: str | None) -> str | None:
    """A file with the digest of its content; `FILE#PART` keeps its part."""
    if text is None:
        return None
    name, _, part = text.partition("#")
    path = Path(text) if Path(text).is_file() else Path(name)
    if not path.is_file():
        raise InputError("no such file", path=text, remedy="check the path")
    return f"{path.name}#{part}:{file_sha256(path)}"


def _absolute(text: str | None) -> str | None:
    return None if text is None else os.path.abspath(text)  # noqa: PTH100  (may end in #PART)


class ArchivePredictor:
    """Predicts recordings one after the other with one engine. Single-threaded: its worker's main thread.

    Args:
        plan: the same for all.

    Raises:
        InputError: if the model cannot be used.
        EngineError: if there is no engine for it here.
    """

    def __init__(self, plan: ArchivePlan) -> None:
        self._plan, options = plan, plan.options
        self._model = RunModel(options.model, options.backend, options.engine)
        self._notes: list[str] = []
        self._model.open_engine(lambda line: self._notes.append(line))

    def predict(self, recording: ArchivedRecording) -> Outcome:
        """Write the part of a recording, unless it is there; what goes wrong is in the outcome."""
        start_s = time.monotonic()
        try:
            outcome = self._predict(recording)
        except EngineError as error:
            self._model.close()  # the next recording gets a fresh engine
            return Outcome(recording.name, "failed", error=str(error))
        except (VeloraError, OSError) as error:
            return Outcome(recording.name, "failed", error=str(error))
        except Exception as error:  # a bug of ours or of a library's, which one recording of many shows
            lines = traceback.format_exc().splitlines()
            return Outcome(
                recording.name, "failed", error=f"{type(error).__name__}: {error}", notes=tuple(lines[-12:])
            )
        return replace(outcome, wall_s=round(time.monotonic() - start_s, 3))

    def close(self) -> None:
        """Let go of the engine."""
        self._model.close()

    def _predict(self, recording: ArchivedRecording) -> Outcome:
        stamp = recording.stamp()
        digest = recording.digest()
        part = self._plan.part_name(recording.name, digest)
        path = self._plan.folder / part
        if path.exists():
            return Outcome(recording.name, "kept", part, digest, stamp, count_rows(path))
        notes, self._notes = self._notes, []
        options = self._options(recording, notes.append)
        metadata = {"velora": json.dumps({**self._plan.about, "recording": recording.name, "digest": digest})}
        with ParquetPart(path, recording.name, metadata) as sink:
            report = run_session(options, notes.append, model=self._model, sinks=(sink,))
            if report.was_stopped:
                raise InputError("was stopped before its end", path=recording.name)
            sink.commit()
        engine = self._model.engine
        return Outcome(
            recording.name,
            "done",
            part,
            digest,
            stamp,
            sink.rows,
            round(report.recording_s, 6),
            engine=None if engine is None else engine.name,
            notes=tuple(notes),
        )

    def _options(self, recording: ArchivedRecording, note: Callable[[str], None]) -> RunOptions:
        """The run's options with the recording's sources, less the camera that is not wanted.

        A synchronisation is for recordings of both cameras, a rate for those of events alone.
        """
        given = None if recording.rgb == recording.events else recording.rgb  # a folder brings its own video
        found = find_sources(str(self._plan.options.model), None, recording.events, given, note)
        events, rgb = found.events, found.rgb
        if rgb == NONE and _has_frames(events):
            rgb = events
        only = self._plan.only
        if only is not None and {"events": events, "rgb": rgb}[only] == NONE:
            raise SourceError(f"holds no {only}", path=recording.name, remedy="leave out --only")
        events, rgb = NONE if only == "rgb" else events, NONE if only == "events" else rgb
        options = self._plan.options
        if rgb == NONE:
            return replace(options, events=events, rgb=rgb, sync=SyncOptions())
        return replace(options, events=events, rgb=rgb, rate_hz=None)


def _has_frames(events: str) -> bool:
    """Whether an event file's camera took frames as well."""
    if Path(events).suffix.lower() != ".aedat4":
        return False
    with open_events(events) as reader:
        return bool(getattr(reader, "has_frames", False))
