"""Archives: which recordings a pattern means, what a part is keyed by, and what becomes of a damaged one."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest
from velora_runtime.app.archive import ArchivedRecording, ArchivePredictor, find_recordings, make_plan
from velora_runtime.app.session import RunOptions
from velora_runtime.engines.base import EngineOptions
from velora_runtime.inference.decision import DecisionSettings

from tests.fakes import write_tiny_bundle
from tests.recordings import write_events
from tests.videos import write_video
from velora_edge.bundle import EngineFile, write_manifest
from velora_edge.errors import InputError, SourceError
from velora_edge.events.filters.event_preprocessing import EventPreprocessing
from velora_edge.preprocessing.sync import SyncOptions

if TYPE_CHECKING:
    from pathlib import Path

    from velora_runtime.app.archive import ArchivePlan

pq = pytest.importorskip("pyarrow.parquet", reason="needs the archive extra: pip install -e '.[archive]'")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of three pairs, windows of 10 ms."""
    folder = tmp_path_factory.mktemp("models") / "tiny.velora"
    event = write_tiny_bundle(folder).manifest.event.model_copy(update={"window_us": 10_000})
    return write_tiny_bundle(folder, 3, event=event).path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def options(model: Path, **changes: Any) -> RunOptions:
    return RunOptions(str(model), engine=EngineOptions("cpu", 1), backend="onnxruntime", **changes)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def found(*patterns: str) -> list[tuple[str, str, str]]:
    """Name, and the last part of both sources."""
    return [
        (r.name, r.events.rpartition("/")[2], r.rgb.rpartition("/")[2]) for r in find_recordings(patterns)
    ]


def test_a_pattern_finds_recordings_of_every_kind_once_each(here: Path) -> None:
    touch(here, "a/rec/recording.json", "a/rec/events.raw", "a/rec/video.mp4", "a/rec/timestamps.txt")
    touch(
        here, "a/door.raw", "a/door.mp4", "a/deep/er/alone.h5", "a/film.mkv", "a/segments.csv", "a/notes.md"
    )
    touch(here, "a/pictures/timestamps.txt", "a/pictures/1.png", "a/bag/metadata.yaml", "a/bag/0.mcap")
    expected = [
        ("a/bag", "bag", "none"),
        ("a/deep/er/alone.h5", "alone.h5", "none"),
        ("a/door.raw", "door.raw", "door.mp4"),
        ("a/film.mkv", "none", "film.mkv"),
        ("a/pictures", "none", "pictures"),
        ("a/rec", "rec", "rec"),
    ]
    assert found("a/**") == found("a") == found("./a/", "a/*") == expected


def test_a_file_that_is_named_is_taken_whatever_its_ending(here: Path) -> None:
    touch(here, "a/events.csv", "a/other.csv", "a/plain", "a/x.raw")
    assert found("a/events.csv") == [("a/events.csv", "events.csv", "none")]
    assert found("a/plain") == [("a/plain", "plain", "none")]
    assert [name for name, _, _ in found("a/*.csv")] == ["a/events.csv", "a/other.csv"]
    assert [name for name, _, _ in found("a/*")] == ["a/x.raw"]


def test_a_model_beside_recordings_is_none(here: Path) -> None:
    touch(here, "a/m.velora/manifest.json", "a/m.velora/weights.bin", "a/door.raw")
    assert [name for name, _, _ in found("a/**", "a")] == ["a/door.raw"]


def test_files_under_construction_and_hidden_folders_are_no_recordings(here: Path) -> None:
    touch(here, "a/.door.raw.12345678.part", "a/.cache/x.raw", "a/door.raw")
    assert [name for name, _, _ in found("a")] == ["a/door.raw"]


@pytest.mark.parametrize("pattern", ["a/*.h5", "nowhere", "a"])
def test_a_pattern_without_a_recording_is_refused(here: Path, pattern: str) -> None:
    touch(here, "a/notes.md")
    with pytest.raises(SourceError, match="matches no recording"):
        find_recordings([pattern])


def test_sources_are_absolute_and_names_are_as_they_were_given(here: Path) -> None:
    touch(here, "a/x.raw")
    assert find_recordings(["a/*.raw"]) == [ArchivedRecording("a/x.raw", f"{here}/a/x.raw", "none")]


def test_a_digest_follows_from_content_alone_and_not_from_what_was_predicted(here: Path) -> None:
    touch(here, "a/recording.json", "a/events.raw", "b/recording.json", "b/events.raw", "b/predictions.jsonl")
    first, second = (ArchivedRecording(name, f"{here}/{name}", f"{here}/{name}") for name in "ab")
    assert first.digest() == second.digest()
    (here / "b" / "events.raw").write_bytes(b"y")
    assert first.digest() != second.digest()


def test_the_run_s_folder_is_the_same_for_the_same_model_and_options(model: Path, here: Path) -> None:
    plan = make_plan(options(model), here / "out")
    assert make_plan(options(model), here / "out") == plan
    assert plan.folder.parent == here / "out"
    assert plan.folder.name.startswith("tiny-")


CHANGES: list[dict[str, Any]] = [
    {"sync": SyncOptions("trigger")},
    {"rate_hz": 30},
    {"duration_s": 2.0},
    {"start_s": 0.5},
    {"sensor": (64, 48)},
    {"stride": 2},
    {"idle_below": 100},
    {"provisional_hz": Fraction(120)},
    {"backend": "openvino"},
    {"decide": DecisionSettings()},
    {"preprocessing": EventPreprocessing(flip="both")},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_another_option_has_a_folder_of_its_own(model: Path, here: Path, change: dict[str, Any]) -> None:
    plain = options(model)
    assert make_plan(replace(plain, **change), here).folder != make_plan(plain, here).folder


def test_one_camera_alone_has_a_folder_of_its_own_and_threads_have_none(model: Path, here: Path) -> None:
    plain = options(model)
    assert make_plan(plain, here, "events").folder != make_plan(plain, here).folder
    more = replace(plain, engine=EngineOptions("cpu", 4))
    assert make_plan(more, here).folder == make_plan(plain, here).folder


def test_a_file_that_an_option_names_counts_by_its_content(model: Path, here: Path) -> None:
    mask = here / "hot.json"
    folders = []
    for text in ("[]", "[]", "[[1, 2]]"):
        mask.write_text(text)
        plan = make_plan(options(model, preprocessing=EventPreprocessing(hot_pixels="hot.json")), here)
        folders.append(plan.folder)
    assert folders[0] == folders[1] != folders[2]
    assert plan.options.preprocessing.hot_pixels == str(mask)
    with pytest.raises(InputError, match="no such file"):
        make_plan(options(model, preprocessing=EventPreprocessing(hot_pixels="none.json")), here)


def test_another_model_has_a_folder_of_its_own_and_an_engine_built_of_it_has_not(here: Path) -> None:
    bundle = write_tiny_bundle(here / "tiny.velora")
    folder = make_plan(options(bundle.path), here).folder
    (bundle.path / "engines").mkdir()
    (bundle.path / "engines" / "rgb.plan").write_bytes(b"plan")
    engine = EngineFile(
        graph="rgb",
        file="engines/rgb.plan",
        sha256="0" * 64,
        model="0" * 64,
        precision="fp32",
        tensorrt="10.3.0",
    )
    files = {**bundle.manifest.files, "engines/rgb.plan": "0" * 64}
    changed = bundle.manifest.model_copy(update={"engines": (engine,), "files": files})
    assert plan_of(bundle.path, changed, here) == folder
    window = bundle.manifest.event.model_copy(update={"window_us": 5_000})
    assert plan_of(bundle.path, bundle.manifest.model_copy(update={"event": window}), here) != folder


def plan_of(path: Path, manifest: Any, out: Path) -> Path:
    """The folder of a bundle with another manifest; digests of its files are set right."""
    import hashlib

    files = {name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in manifest.files}
    write_manifest(path, manifest.model_copy(update={"files": files}))
    return make_plan(options(path), out).folder


def predict(plan: ArchivePlan, *patterns: str) -> Any:
    plan.folder.mkdir(parents=True, exist_ok=True)
    predictor = ArchivePredictor(plan)
    outcomes = [predictor.predict(recording) for recording in find_recordings(patterns)]
    predictor.close()
    return outcomes


def test_a_part_that_is_there_is_kept_and_one_of_other_content_is_replaced(model: Path, here: Path) -> None:
    write_events(here / "a.raw", seed=3)
    plan = make_plan(options(model), here / "out")
    [first], [second] = predict(plan, "a.raw"), predict(plan, "a.raw")
    assert (first.state, second.state, first.part) == ("done", "kept", second.part)
    assert second.rows == first.rows == 37
    write_events(here / "a.raw", seed=4)
    [third] = predict(plan, "a.raw")
    assert (third.state, third.part != first.part) == ("done", True)
    assert [path.name for path in plan.folder.glob("*")] == [third.part]


def test_two_recordings_of_one_content_have_a_part_each(model: Path, here: Path) -> None:
    write_events(here / "a.raw")
    (here / "b.raw").write_bytes((here / "a.raw").read_bytes())
    plan = make_plan(options(model), here / "out")
    parts = [outcome.part for outcome in predict(plan, "*.raw")]
    names = {pq.read_table(plan.folder / part)["recording"][0].as_py() for part in parts}
    assert names == {"a.raw", "b.raw"}


def test_an_engine_leaves_nothing_of_a_recording_for_the_next(model: Path, here: Path) -> None:
    """Events alone, then pictures alone: the ring holds tokens of both."""
    write_events(here / "a.raw")
    write_events(here / "c.raw", seed=9)
    write_video(here / "b.mp4", [10_000 * k for k in range(12)])
    together, apart = make_plan(options(model), here / "one"), make_plan(options(model), here / "each")
    assert [o.state for o in predict(together, "a.raw", "b.mp4", "c.raw")] == ["done"] * 3
    for name in ("c.raw", "b.mp4", "a.raw"):
        predict(apart, name)
    assert contents(together) == contents(apart)


def contents(plan: ArchivePlan) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in plan.folder.glob("*.parquet")}


def test_a_damaged_recording_costs_its_own_outcome(model: Path, here: Path) -> None:
    write_events(here / "a.raw")
    (here / "b.raw").write_bytes(b"% evt 3.0\n% geometry 0x0\n% end\n")
    (here / "c.mp4").write_bytes(b"no video")
    write_events(here / "d.raw")
    outcomes = predict(make_plan(options(model), here / "out"), "*.raw", "c.mp4")
    assert [outcome.state for outcome in outcomes] == ["done", "failed", "failed", "done"]
    assert f"{here}/c.mp4: cannot be read as a video" in (outcomes[2].error or "")
    assert [path.suffix for path in (here / "out").rglob("*.*")].count(".parquet") == 2


def test_a_bug_costs_a_recording_with_its_traceback(
    model: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_events(here / "a.raw")

    def fail(*args: object, **named: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("velora_runtime.app.archive.run_session", fail)
    [outcome] = predict(make_plan(options(model), here / "out"), "a.raw")
    assert (outcome.state, outcome.error) == ("failed", "ZeroDivisionError: a bug")
    assert "in fail" in "\n".join(outcome.notes)
    assert list((here / "out").rglob("*.p*")) == []  # neither a part nor one under construction


def test_an_engine_that_fails_is_opened_anew_for_the_next_recording(
    model: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from velora_runtime.engines.base import RetryingEngine

    from velora_edge.errors import EngineError

    write_events(here / "a.raw")
    write_events(here / "b.raw")
    encode, failures = RetryingEngine.encode, [EngineError("the GPU fell off the bus")]

    def fail_once(self: RetryingEngine, *given: Any) -> None:
        if failures:
            raise failures.pop()
        encode(self, *given)

    monkeypatch.setattr(RetryingEngine, "encode", fail_once)
    outcomes = predict(make_plan(options(model), here / "out"), "*.raw")
    assert [(one.state, one.error) for one in outcomes] == [
        ("failed", "the GPU fell off the bus"),
        ("done", None),
    ]


def test_one_camera_of_a_recording_that_has_both(model: Path, here: Path) -> None:
    write_events(here / "a.raw", start_us=0)
    write_video(here / "a.mp4", [10_000 * k for k in range(1, 30)])
    rows = {}
    for only in (None, "events", "rgb"):
        plan = make_plan(options(model), here / "out", only)  # type: ignore[arg-type]
        [outcome] = predict(plan, "a.raw")
        table = pq.read_table(plan.folder / str(outcome.part)).to_pylist()
        rows[only] = {(row["skew_us"] is None, row["events"] > 0) for row in table}
    assert rows == {None: {(False, True)}, "events": {(True, True)}, "rgb": {(True, False)}}


def test_a_camera_that_a_recording_lacks_fails_it(model: Path, here: Path) -> None:
    write_events(here / "a.raw")
    [outcome] = predict(make_plan(options(model), here / "out", "rgb"), "a.raw")
    assert (outcome.state, outcome.error) == ("failed", "a.raw: holds no rgb; leave out --only")


def test_a_recording_that_is_too_short_has_a_part_without_rows(model: Path, here: Path) -> None:
    write_events(here / "a.raw", duration_us=15_000, count=50)
    plan = make_plan(options(model), here / "out")
    [outcome] = predict(plan, "a.raw")
    assert (outcome.state, outcome.rows) == ("done", 0)
    assert pq.read_table(plan.folder / str(outcome.part)).num_rows == 0
    assert "no prediction: a clip is 3 pairs" in outcome.notes[-1]


def test_a_part_tells_what_it_was_made_of(model: Path, here: Path) -> None:
    write_events(here / "a.raw")
    plan = make_plan(options(model), here / "out")
    [outcome] = predict(plan, "a.raw")
    told = json.loads(pq.read_schema(plan.folder / str(outcome.part)).metadata[b"velora"])
    assert (told["model"], told["recording"], told["digest"]) == ("tiny", "a.raw", outcome.digest)
    assert told["options"]["backend"] == "onnxruntime"
