"""Workers of an archive: processes that come and go, a Ray cluster, and a run that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from velora_runtime.app import workers
from velora_runtime.app.archive import find_recordings, make_plan
from velora_runtime.app.session import RunOptions
from velora_runtime.app.workers import predict_archive, predict_on_processes
from velora_runtime.engines.base import EngineOptions

from tests.fakes import write_tiny_bundle
from tests.recordings import write_events
from velora_edge.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from velora_runtime.app.archive import ArchivedRecording, ArchivePlan

pytest.importorskip("pyarrow", reason="needs the archive extra: pip install -e '.[archive]'")

CODE = "from velora_cli.main import main; main()"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of three pairs a clip, and a folder of 12 recordings, one of them damaged."""
    folder = tmp_path_factory.mktemp("archive")
    event = write_tiny_bundle(folder / "tiny.velora").manifest.event.model_copy(update={"window_us": 10_000})
    write_tiny_bundle(folder / "tiny.velora", 3, event=event)
    (folder / "recordings").mkdir()
    for k in range(11):
        write_events(folder / "recordings" / f"{k:02}.raw", duration_us=100_000, count=500, seed=k)
    (folder / "recordings" / "damaged.raw").write_bytes(b"% evt 3.0\n% geometry 0x0\n% end\n")
    return folder


def plan_for(archive: Path, out: Path) -> ArchivePlan:
    model = str(archive / "tiny.velora")
    return make_plan(RunOptions(model, engine=EngineOptions("cpu", 1), backend="onnxruntime"), out)


def parts(plan: ArchivePlan) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in plan.folder.glob("*.parquet")}


def in_process(plan: ArchivePlan) -> Any:
    """Work without processes."""
    from velora_runtime.app.archive import ArchivePredictor

    def work(todo: Sequence[ArchivedRecording]) -> Iterator[Any]:
        predictor = ArchivePredictor(plan)
        yield from (predictor.predict(recording) for recording in todo)
        predictor.close()

    return work


@pytest.fixture(scope="module")
def undisturbed(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The parts of a run that nothing happens to, in one process."""
    plan = plan_for(archive, tmp_path_factory.mktemp("undisturbed"))
    recordings = find_recordings([str(archive / "recordings")])
    counts = predict_archive(plan, recordings, in_process(plan), lambda outcome: None)
    assert (counts.done, counts.kept, counts.failed, counts.rows) == (11, 0, 1, 77)
    return parts(plan)


def test_what_is_done_and_unchanged_is_not_given_to_workers_again(archive: Path, tmp_path: Path) -> None:
    plan = plan_for(archive, tmp_path)
    recordings = find_recordings([str(archive / "recordings")])[:3]
    told: list[str] = []
    predict_archive(plan, recordings, in_process(plan), lambda outcome: told.append(outcome.state))
    os.utime(archive / "recordings" / "01.raw", ns=(1, 1))
    given: list[str] = []

    def work(todo: Sequence[ArchivedRecording]) -> Iterator[Any]:
        given.extend(recording.name.rpartition("/")[2] for recording in todo)
        return in_process(plan)(todo)

    counts = predict_archive(plan, recordings, work, lambda outcome: told.append(outcome.state))
    assert given == ["01.raw"]
    assert told == ["done"] * 3 + ["kept"] * 3
    assert (counts.done, counts.kept, counts.rows) == (0, 3, 0)


@pytest.fixture
def poisoned(archive: Path, tmp_path: Path) -> list[ArchivedRecording]:
    """Three recordings, of which one ends the process that opens it."""
    folder = tmp_path / "poisoned"
    folder.mkdir()
    for name in ("a.raw", "poison.raw", "z.raw"):
        (folder / name).write_bytes((archive / "recordings" / "00.raw").read_bytes())
    return find_recordings([str(folder)])


@pytest.mark.usefixtures("deadly")
def test_a_worker_that_dies_costs_its_recording_alone(
    archive: Path, tmp_path: Path, poisoned: list[ArchivedRecording]
) -> None:
    plan = plan_for(archive, tmp_path)
    plan.folder.mkdir(parents=True)
    outcomes = {one.recording: one for one in predict_on_processes(plan, poisoned, 2)}
    assert [outcomes[one.name].state for one in poisoned] == ["done", "failed", "done"]
    assert outcomes[poisoned[1].name].error == "its worker ended: signal SIGKILL"


def test_a_model_that_no_worker_can_run_ends_it(archive: Path, tmp_path: Path) -> None:
    model = str(archive / "tiny.velora")
    plan = make_plan(RunOptions(model, backend="onnxruntime-cuda", engine=EngineOptions("cuda")), tmp_path)
    with pytest.raises(EngineError, match="no engine for device cuda"):
        list(predict_on_processes(plan, find_recordings([str(archive / "recordings")]), 1))


def test_gpus_are_named_as_the_process_sees_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-8f3a")
    assert workers.list_gpus() == ["2", "GPU-8f3a"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert workers.list_gpus() == []


@pytest.fixture(scope="module")
def deadly(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Processes that are started meanwhile end by a signal when they open poison.raw."""
    folder = tmp_path_factory.mktemp("deadly")
    (folder / "sitecustomize.py").write_text(
        "import os\n"
        "import velora_edge.events.registry as registry\n"
        "read_head = registry._read_head\n"
        "def read(path):\n"
        "    if path.name == 'poison.raw':\n"
        "        os.kill(os.getpid(), 9)\n"
        "    return read_head(path)\n"
        "registry._read_head = read\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *filter(None, sys.path)]))
        yield


def predict(archive: Path, out: Path, *options: str, source: Path | None = None) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-c",
        CODE,
        "predict",
        str(archive / "tiny.velora"),
        str(source or archive / "recordings"),
    ]
    command += ["--out", str(out), "--backend", "onnxruntime", "--device", "cpu", "--quiet", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_ended_in_the_middle_goes_on_to_the_same_parts(
    archive: Path, undisturbed: dict[str, bytes], tmp_path: Path, number: signal.Signals
) -> None:
    plan = plan_for(archive, tmp_path)
    process = predict(archive, tmp_path, "--workers", "2")
    deadline = time.monotonic() + 120
    while len(parts(plan)) < 5:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == (-9 if number == signal.SIGKILL else 130), err
    assert set(parts(plan)) < set(undisturbed)
    process = predict(archive, tmp_path, "--workers", "2")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert parts(plan) == undisturbed
    assert [path.name for path in plan.folder.iterdir() if path.name.endswith(".part")] == []
    report = (plan.folder / "report.jsonl").read_text().splitlines()
    assert len(report) == 12
    assert len([line for line in report if '"state":"failed"' in line]) == 1
    assert out.startswith("12 recordings: ")


@pytest.fixture(scope="module")
def cluster(deadly: None) -> Iterator[str]:
    """The address of a Ray cluster of two nodes on this machine, one processor each."""
    ray = pytest.importorskip("ray", reason="needs the ray extra: pip install -e '.[ray]'")
    from ray.cluster_utils import Cluster

    store = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}
    nodes = Cluster(initialize_head=True, head_node_args=store)
    nodes.add_node(num_cpus=1, object_store_memory=100 << 20)
    nodes.wait_for_nodes()
    yield nodes.address
    ray.shutdown()
    nodes.shutdown()


@pytest.mark.slow
def test_a_ray_cluster_of_two_workers_writes_the_same_parts(
    archive: Path, undisturbed: dict[str, bytes], tmp_path: Path, cluster: str
) -> None:
    process = predict(archive, tmp_path, "--ray", cluster, "--workers", "2")
    out, err = process.communicate(timeout=240)
    assert (process.returncode, out.splitlines()[0]) == (
        1,
        "12 recordings: 11 predicted, 77 rows; 0 were there already; 1 failed",
    ), err
    assert parts(plan_for(archive, tmp_path)) == undisturbed
    assert "damaged.raw: " in err


@pytest.mark.slow
def test_a_recording_that_ends_its_actor_costs_its_own_line(
    archive: Path, tmp_path: Path, cluster: str, poisoned: list[ArchivedRecording]
) -> None:
    process = predict(archive, tmp_path, "--ray", cluster, "--workers", "1", source=tmp_path / "poisoned")
    out, err = process.communicate(timeout=280)
    assert process.returncode == 1, err
    expected = "3 recordings: 2 predicted, 14 rows; 0 were there already; 1 failed"
    assert expected in out.splitlines()  # beside what Ray says of its actors
    [folder] = [path for path in tmp_path.iterdir() if path.name.startswith("tiny-")]
    assert [path.name for path in folder.glob(".tries-*")] == []
    assert f"failed: {poisoned[1].name}: it ended its worker, 2 times" in err


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_one_line(archive: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs the ray extra: pip install -e '.[ray]'")
    process = predict(archive, tmp_path, "--ray", "127.0.0.1:9")
    _, err = process.communicate(timeout=280)
    assert process.returncode == 1
    assert err.splitlines()[-1].startswith("error: no Ray cluster at 127.0.0.1:9: ")
