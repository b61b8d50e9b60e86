"""The TensorRT backend against ONNX Runtime on the CPU, on a GPU that lives in host memory."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
from fakes_tensorrt import FakeTensorRT, make_plan
from tensorrt_streams import SOME_ABSENT, build, copy_bundle, same_stream, stream
from toy_bundle import write_toy_bundle
from velora_export.tensorrt.tensorrt_builder import BuildOptions
from velora_runtime.engines.base import EngineOptions
from velora_runtime.engines.registry import open_engine
from velora_runtime.engines.ring import Presence, Slot

from velora_edge.bundle import Bundle, open_bundle, write_manifest
from velora_edge.errors import EngineError
from velora_edge.gpu.signing import find_signer, public_key, sign

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from velora_runtime.engines.base import Engine


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeTensorRT:
    return FakeTensorRT.install(monkeypatch, tmp_path)


def toy(tmp_path: Path, *, stride: int = 1, half: bool = False) -> Bundle:
    return build(write_toy_bundle(tmp_path / "toy.velora", stride=stride, half=half))


def open_tensorrt(bundle: Bundle, *, cuda_graph: bool = True) -> Engine:
    return open_engine(bundle, "tensorrt", EngineOptions(cuda_graph=cuda_graph)).engine


@pytest.mark.parametrize("is_integrated", [True, False], ids=["jetson", "card"])
@pytest.mark.parametrize("cuda_graph", [True, False])
@pytest.mark.parametrize("stride", [1, 3])
def test_streaming_equals_the_cpu_backend(
    fake: FakeTensorRT, tmp_path: Path, stride: int, cuda_graph: bool, is_integrated: bool
) -> None:
    fake.gpu.properties.integrated = int(is_integrated)
    bundle = toy(tmp_path, stride=stride)
    engine = open_tensorrt(bundle, cuda_graph=cuda_graph)
    same_stream(bundle, engine, pairs=14, absent=SOME_ABSENT)
    assert engine.has_graphs is cuda_graph  # type: ignore[attr-defined]
    engine.close()
    assert fake.gpu.leftovers() == []


def test_streaming_the_demo_model_equals_the_cpu_backend(fake: FakeTensorRT, tmp_path: Path) -> None:
    bundle = build(copy_bundle(open_bundle("demo"), tmp_path / "demo.velora"))
    same_stream(bundle, open_tensorrt(bundle), pairs=12, absent=SOME_ABSENT)


def test_tokens_of_half_precision_stay_so_on_the_device(fake: FakeTensorRT, tmp_path: Path) -> None:
    bundle = toy(tmp_path, half=True)
    engine = open_tensorrt(bundle)
    engine.warm_up()
    reference = open_tensorrt(write_wide_twin(bundle, tmp_path))
    reference.warm_up()
    expected = stream(reference, bundle, 8, SOME_ABSENT)
    np.testing.assert_allclose(stream(engine, bundle, 8, SOME_ABSENT), expected, atol=2e-2, rtol=0)


def write_wide_twin(bundle: Bundle, tmp_path: Path) -> Bundle:
    return build(write_toy_bundle(tmp_path / "wide.velora", stride=bundle.manifest.stride))


def test_every_slot_and_head_is_replayed_as_a_graph_after_warm_up(fake: FakeTensorRT, tmp_path: Path) -> None:
    bundle = toy(tmp_path, stride=2)
    engine = open_tensorrt(bundle)
    engine.warm_up()
    T, stride = bundle.manifest.clip_length, bundle.manifest.stride
    assert len(fake.gpu.executables) == stride * (T + T + (T - 1) + 1)
    assert fake.gpu.graphs == {}
    fake.gpu.calls.clear()
    stream(engine, bundle, 6, frozenset())
    assert "cudaMemcpyAsync" in fake.gpu.calls  # logits come back
    assert fake.gpu.calls.count("cudaGraphLaunch") == 6 + 6 + 4 + 2
    assert {"cudaMalloc", "cudaHostAlloc", "cudaStreamBeginCapture"}.isdisjoint(fake.gpu.calls)


def test_warm_up_leaves_the_rings_empty(fake: FakeTensorRT, tmp_path: Path) -> None:
    bundle = toy(tmp_path)
    engine = open_tensorrt(bundle)
    engine.warm_up()
    T = bundle.manifest.clip_length
    nothing = engine.decide(0, Presence.none(T)).copy()
    everything = Presence(np.ones(T, np.float32), np.ones(T, np.float32), np.ones(T - 1, np.float32))
    assert engine.decide(0, everything).tolist() == nothing.tolist()


@pytest.mark.parametrize("trouble", ["refuse_recording", "empty_graphs", "cudaGraphInstantiate"])
def test_what_cannot_be_recorded_is_run_step_by_step(
    fake: FakeTensorRT, tmp_path: Path, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = toy(tmp_path)
    if trouble == "refuse_recording":
        fake.refuse_recording = True
    elif trouble == "empty_graphs":
        fake.gpu.empty_graphs = True
    else:
        fake.gpu.fail.add(trouble)
    engine = open_tensorrt(bundle)
    same_stream(bundle, engine, pairs=8, absent=SOME_ABSENT)
    assert engine.has_graphs is False  # type: ignore[attr-defined]
    assert [record.levelname for record in caplog.records if "CUDA graphs" in record.message] == ["WARNING"]
    engine.close()
    assert fake.gpu.leftovers() == []


def test_a_graph_that_replays_stale_output_is_not_used(
    fake: FakeTensorRT, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = toy(tmp_path)
    engine = open_tensorrt(bundle)
    launch = fake.gpu.module.cudaGraphLaunch
    fake.gpu.module.cudaGraphLaunch = lambda executable, stream: (0,)
    engine.warm_up()
    assert engine.has_graphs is False  # type: ignore[attr-defined]
    assert "does not compute" in caplog.text
    fake.gpu.module.cudaGraphLaunch = launch


def test_a_refused_run_is_an_error_and_never_the_output_before(fake: FakeTensorRT, tmp_path: Path) -> None:
    bundle = toy(tmp_path)
    engine = open_tensorrt(bundle, cuda_graph=False)
    engine.warm_up()
    stream(engine, bundle, 4, frozenset())
    fake.refuse_runs = True
    with pytest.raises(EngineError, match=r"refused to run 'velora rgb fp32 .*enqueue was refused"):
        engine.encode("rgb", (np.zeros((4, 4, 3), np.uint8),), Slot(0, 0, 0))


def test_closing_in_the_middle_of_a_pair_waits_for_what_is_queued(fake: FakeTensorRT, tmp_path: Path) -> None:
    engine = open_tensorrt(toy(tmp_path))
    engine.warm_up()
    engine.encode("rgb", (np.zeros((4, 4, 3), np.uint8),), Slot(0, 0, 0))
    engine.close()
    assert fake.gpu.leftovers() == []


@pytest.mark.parametrize("is_integrated", [True, False], ids=["jetson", "card"])
def test_images_are_copied_to_a_card_and_read_in_place_on_a_jetson(
    fake: FakeTensorRT, tmp_path: Path, is_integrated: bool
) -> None:
    fake.gpu.properties.integrated = int(is_integrated)
    engine = open_tensorrt(toy(tmp_path), cuda_graph=False)
    engine.warm_up()
    copies: list[int] = []
    copy = fake.gpu.module.cudaMemcpyAsync

    def count(target: int, source: int, size: int, kind: int, stream: int) -> tuple[object, ...]:
        copies.append(kind)
        return copy(target, source, size, kind, stream)

    fake.gpu.module.cudaMemcpyAsync = count
    engine.encode("rgb", (np.zeros((4, 4, 3), np.uint8),), Slot(0, 0, 0))
    assert copies.count(1) == (0 if is_integrated else 1)  # cudaMemcpyHostToDevice


@pytest.mark.parametrize("is_integrated", [True, False], ids=["jetson", "card"])
def test_images_may_be_reused_at_once(fake: FakeTensorRT, tmp_path: Path, is_integrated: bool) -> None:
    fake.gpu.properties.integrated = int(is_integrated)
    bundle = toy(tmp_path)
    engine = open_tensorrt(bundle)
    engine.warm_up()
    T = bundle.manifest.clip_length
    image: NDArray[np.uint8] = np.zeros((4, 4, 3), np.uint8)
    presence = Presence.none(T)
    presence.rgb[:] = 1
    logits = []
    for reuse in (True, False):
        for place in range(T):
            image[:] = 10 + place
            engine.encode("rgb", (image if reuse else image.copy(),), Slot(0, place, 0))
        image[:] = 255
        logits.append(engine.decide(0, presence).tolist())
    assert logits[0] == logits[1]


def test_an_image_of_another_size_is_refused(fake: FakeTensorRT, tmp_path: Path) -> None:
    engine = open_tensorrt(toy(tmp_path))
    with pytest.raises(EngineError, match=r"expects image \(1, 4, 4, 3\), got \(5, 4, 3\)"):
        engine.encode("rgb", (np.zeros((5, 4, 3), np.uint8),), Slot(0, 0, 0))


def test_auto_prefers_tensorrt_where_the_bundle_has_engines(fake: FakeTensorRT, tmp_path: Path) -> None:
    choice = open_engine(toy(tmp_path), "auto", EngineOptions())
    assert (choice.engine.name, choice.passed_over) == ("tensorrt 10.3.0 on NVIDIA Fake GPU", ())


def test_auto_says_why_tensorrt_was_passed_over(fake: FakeTensorRT, tmp_path: Path) -> None:
    bundle = write_toy_bundle(tmp_path / "toy.velora")
    choice = open_engine(bundle, "auto", EngineOptions())
    assert choice.engine.name == "onnxruntime on the CPU"
    assert [line.partition(":")[0] for line in choice.passed_over] == [
        *("tensorrt", "tensorrt-rtx", "onnxruntime with CUDA", "openvino"),
    ]
    assert choice.passed_over[0] == (
        "tensorrt: no TensorRT engine for rgb, event, diff, head: none was built for TensorRT 10.3.0 "
        f"on NVIDIA Fake GPU (compute capability 8.7); run velora build {bundle.path}"
    )


def test_without_a_gpu_tensorrt_is_not_touched(fake: FakeTensorRT, tmp_path: Path) -> None:
    bundle = toy(tmp_path)
    fake.gpu.devices = 0
    with pytest.raises(EngineError, match="CUDA finds no GPU: fake cudaErrorNoDevice"):
        open_tensorrt(bundle)


def test_another_tensorrt_and_another_gpu_are_one_error_with_both_sides(
    fake: FakeTensorRT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = toy(tmp_path)
    other = FakeTensorRT.install(monkeypatch, tmp_path, version="11.4.0.106")
    other.gpu.properties.name, other.gpu.properties.minor = b"NVIDIA Thor\0\0", 9
    with pytest.raises(EngineError) as error:
        open_tensorrt(bundle)
    assert str(error.value) == (
        "no engine for device auto: tensorrt: no TensorRT engine for rgb, event, diff, head: "
        "built for TensorRT 10.3.0.26 on NVIDIA Fake GPU (compute capability 8.7); "
        "this machine has TensorRT 11.4.0.106 on NVIDIA Thor (compute capability 8.9); "
        f"run velora build {bundle.path}"
    )


def test_a_version_compatible_engine_runs_on_a_newer_tensorrt(
    fake: FakeTensorRT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = build(write_toy_bundle(tmp_path / "toy.velora"), BuildOptions(version_compatible=True))
    newer = FakeTensorRT.install(monkeypatch, tmp_path, version="10.13.3.9")
    newer.loads_also.add("10.3.0")
    engine = open_tensorrt(bundle)
    assert engine.name == "tensorrt 10.13.3.9 on NVIDIA Fake GPU"
    older = FakeTensorRT.install(monkeypatch, tmp_path, version="10.2.0")
    with pytest.raises(EngineError, match=r"TensorRT 10\.3\.0\.26 .* has TensorRT 10\.2\.0"):
        open_tensorrt(bundle)
    assert older.gpu.leftovers() == []


def test_a_hardware_compatible_engine_runs_on_another_gpu(
    fake: FakeTensorRT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = build(write_toy_bundle(tmp_path / "toy.velora"), BuildOptions(hardware_compatible=True))
    fake.gpu.properties.name, fake.gpu.properties.minor = b"NVIDIA Other", 9
    assert open_tensorrt(bundle).name == "tensorrt 10.3.0 on NVIDIA Other"
    fake.gpu.properties.major, fake.gpu.properties.minor = 7, 5
    with pytest.raises(EngineError, match="built for"):
        open_tensorrt(bundle)


def changed(bundle: Bundle, graph: str, **values: object) -> Bundle:
    """The bundle with one engine's entry changed."""
    engines = [
        entry.model_copy(update=values) if entry.graph == graph else entry
        for entry in bundle.manifest.engines
    ]
    write_manifest(bundle.path, bundle.manifest.model_copy(update={"engines": tuple(engines)}))
    return open_bundle(bundle.path)


def engine_file(bundle: Bundle, graph: str) -> Path:
    (name,) = [entry.file for entry in bundle.manifest.engines if entry.graph == graph]
    return bundle.path / name


def test_a_changed_byte_in_an_engine_is_refused_before_tensorrt_sees_it(
    fake: FakeTensorRT, tmp_path: Path
) -> None:
    bundle = toy(tmp_path)
    file = engine_file(bundle, "diff")
    plan = bytearray(file.read_bytes())
    plan[40] ^= 1
    file.write_bytes(plan)
    with pytest.raises(EngineError, match=r"diff-.*: expected SHA-256 .*: the engine was changed or damaged"):
        open_tensorrt(bundle)
    assert fake.gpu.leftovers() == []


def test_a_missing_engine_file_is_one_error(fake: FakeTensorRT, tmp_path: Path) -> None:
    bundle = toy(tmp_path)
    engine_file(bundle, "head").unlink()
    with pytest.raises(EngineError, match=r"head-.*: the engine is missing; run velora build"):
        open_tensorrt(bundle)


def test_an_engine_whose_header_is_of_another_version_is_not_deserialized(
    fake: FakeTensorRT, tmp_path: Path
) -> None:
    bundle = toy(tmp_path)
    plan = make_plan("10.7.0.23", {"name": "x", "onnx": "x"})
    resign(bundle, "rgb", plan)
    with pytest.raises(
        EngineError, match=r"its header says TensorRT 10\.7\.0\.23, the manifest TensorRT 10\.3\.0\.26"
    ):
        open_tensorrt(open_bundle(bundle.path))


def test_an_engine_of_another_graph_is_refused(fake: FakeTensorRT, tmp_path: Path) -> None:
    bundle = toy(tmp_path)
    resign(bundle, "rgb", engine_file(bundle, "event").read_bytes())
    with pytest.raises(EngineError, match=r"expected the engine 'velora rgb fp32 .*', got 'velora event"):
        open_tensorrt(open_bundle(bundle.path))


def resign(bundle: Bundle, graph: str, plan: bytes) -> None:
    """Put another plan in an engine's place, with an entry that fits it, signed by this machine."""
    engine_file(bundle, graph).write_bytes(plan)
    engines = [
        sign(entry.model_copy(update={"sha256": hashlib.sha256(plan).hexdigest()}))
        if entry.graph == graph
        else entry
        for entry in bundle.manifest.engines
    ]
    write_manifest(bundle.path, bundle.manifest.model_copy(update={"engines": tuple(engines)}))


def test_an_engine_that_tensorrt_does_not_load_is_one_error(fake: FakeTensorRT, tmp_path: Path) -> None:
    bundle = toy(tmp_path)
    fake.version = "10.3.1"  # what is installed differs from what it says
    with pytest.raises(EngineError, match=r"10\.3\.0 cannot load 'velora rgb .*Version tag does not match"):
        open_tensorrt(bundle)
    assert fake.gpu.leftovers() == []


def test_an_engine_from_elsewhere_runs_only_when_the_key_that_signed_it_is_trusted(
    fake: FakeTensorRT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = toy(tmp_path)
    key = find_signer(bundle.manifest.engines[0])
    assert key is not None
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "another-machine"))
    asked = f"set VELORA_TRUST_ENGINES={key} if you trust that machine"
    with pytest.raises(EngineError, match=re.escape(asked)):
        open_tensorrt(bundle)
    monkeypatch.setenv("VELORA_TRUST_ENGINES", f"{public_key()},{key}")
    open_tensorrt(bundle).close()


def test_an_entry_that_somebody_edited_is_not_this_machines(fake: FakeTensorRT, tmp_path: Path) -> None:
    bundle = changed(toy(tmp_path), "rgb", hardware_compatible=True)
    with pytest.raises(EngineError, match="no TensorRT engine for rgb: it was built elsewhere"):
        open_tensorrt(bundle)


def test_engines_of_an_earlier_export_are_not_used(fake: FakeTensorRT, tmp_path: Path) -> None:
    bundle = toy(tmp_path)
    other = write_toy_bundle(tmp_path / "other.velora", half=True)
    manifest = other.manifest.model_copy(update={"engines": bundle.manifest.engines})
    write_manifest(other.path, manifest)
    with pytest.raises(EngineError, match="it was built from another export of the model"):
        open_tensorrt(open_bundle(other.path))
