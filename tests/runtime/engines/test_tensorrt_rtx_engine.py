"""The backend of TensorRT for RTX, on a GPU that lives in host memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fakes_tensorrt import FakeTensorRT
from tensorrt_streams import SOME_ABSENT, same_stream
from toy_bundle import write_toy_bundle
from velora_export.tensorrt.tensorrt_builder import BuildOptions, BuildProgress
from velora_export.tensorrt.tensorrt_engines import BundleBuilder, rtx_gpus
from velora_export.tensorrt.tensorrt_parity import noise_clips
from velora_runtime.engines.base import EngineOptions
from velora_runtime.engines.registry import open_engine

from velora_edge.bundle import open_bundle
from velora_edge.errors import EngineError
from velora_edge.gpu.kinds import RTX, parse_targets, why_not_rtx

if TYPE_CHECKING:
    from pathlib import Path

    from velora_runtime.engines.tensorrt import TensorRTEngine

    from velora_edge.bundle import Bundle

GRAPHS = ("rgb", "event", "diff", "head")


def install(monkeypatch: pytest.MonkeyPatch, home: Path, version: str = "1.7.1") -> FakeTensorRT:
    fake = FakeTensorRT.install(monkeypatch, home, version, RTX)
    fake.gpu.properties.minor = 9
    return fake


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeTensorRT:
    return install(monkeypatch, tmp_path)


def build(tmp_path: Path, targets: str = "sm89", stride: int = 1) -> Bundle:
    bundle = write_toy_bundle(tmp_path / "toy.velora", stride=stride)
    clips = noise_clips(bundle.manifest, count=1)
    with BundleBuilder(bundle, BuildOptions(), clips, rtx_gpus(parse_targets(targets))) as builder:
        list(builder.build(GRAPHS, BuildProgress(), force=False))
    return open_bundle(bundle.path)


def open_rtx(bundle: Bundle, *, cuda_graph: bool = True) -> TensorRTEngine:
    engine: TensorRTEngine = open_engine(bundle, "tensorrt-rtx", EngineOptions(cuda_graph=cuda_graph)).engine  # type: ignore[assignment]
    return engine


@pytest.mark.parametrize("cuda_graph", [True, False])
def test_streaming_equals_the_cpu_backend(fake: FakeTensorRT, tmp_path: Path, cuda_graph: bool) -> None:
    engine = open_rtx(bundle := build(tmp_path, stride=3), cuda_graph=cuda_graph)
    assert engine.name == "tensorrt-rtx 1.7.1 on NVIDIA Fake GPU"
    same_stream(bundle, engine, pairs=14, absent=SOME_ABSENT)
    assert engine.has_graphs is cuda_graph
    engine.close()
    assert fake.gpu.leftovers() == []


def test_an_engine_is_built_for_the_gpus_that_were_named(fake: FakeTensorRT, tmp_path: Path) -> None:
    bundle = build(tmp_path, "sm89,sm120")
    assert [one["targets"] for one in fake.builds] == [["SM89", "SM120"]] * 4
    entry = bundle.manifest.engines[0]
    assert (entry.kind, entry.targets, entry.gpu) == ("tensorrt-rtx", ("8.9", "12.0"), "")
    assert entry.file.startswith("engines/rgb-rtx1.7.1-sm89-sm120-fp32-")
    assert entry.parity["relative"] == 0


def test_kernels_are_compiled_at_the_first_start_alone(fake: FakeTensorRT, tmp_path: Path) -> None:
    bundle = build(tmp_path)
    fake.compiled.clear()
    for _ in range(2):
        engine = open_rtx(bundle)
        engine.warm_up()
        engine.close()
    assert [name.split()[1] for name in fake.compiled] == list(GRAPHS)
    files = sorted((tmp_path / "cache" / "velora" / "tensorrt-rtx").iterdir())
    assert [file.name for file in files] == sorted(
        f"1.7.1-nvidia-fake-gpu-{entry.sha256[:16]}.cache" for entry in bundle.manifest.engines
    )


@pytest.mark.parametrize("trouble", ["spoilt", "folder", "unwritable"])
def test_a_cache_of_no_use_costs_nothing_but_time(
    fake: FakeTensorRT, tmp_path: Path, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    bundle, cache = build(tmp_path), tmp_path / "cache" / "velora" / "tensorrt-rtx"
    open_rtx(bundle).warm_up()
    fake.compiled.clear()
    for file in cache.iterdir():
        if trouble == "spoilt":
            file.write_bytes(b"\xff\x00 no cache")
            continue
        file.unlink()
        if trouble == "folder":
            file.mkdir()
    if trouble == "unwritable":
        cache.rmdir()
        cache.write_bytes(b"a file where the folder was")
    same_stream(bundle, open_rtx(bundle), pairs=6, absent=SOME_ABSENT)
    assert len(fake.compiled) == len(GRAPHS)
    warned = {record.levelname for record in caplog.records if "kernels" in record.message}
    assert ("WARNING" in warned) == (trouble != "spoilt")


def test_a_stream_that_cannot_be_recorded_is_run_step_by_step(fake: FakeTensorRT, tmp_path: Path) -> None:
    bundle = build(tmp_path)
    fake.refuse_recording = True
    engine = open_rtx(bundle)
    same_stream(bundle, engine, pairs=8, absent=SOME_ABSENT)
    assert engine.has_graphs is False


def test_auto_takes_it_where_the_bundle_has_no_engine_of_tensorrt(fake: FakeTensorRT, tmp_path: Path) -> None:
    choice = open_engine(build(tmp_path), "auto", EngineOptions())
    assert choice.engine.name.startswith("tensorrt-rtx")
    assert [line.partition(":")[0] for line in choice.passed_over] == ["tensorrt"]


def test_another_gpu_than_the_targets_is_one_error(fake: FakeTensorRT, tmp_path: Path) -> None:
    bundle = build(tmp_path, "sm120")
    assert bundle.manifest.engines[0].parity == {}
    with pytest.raises(EngineError) as error:
        open_rtx(bundle)
    assert str(error.value) == (
        "no engine for device auto: tensorrt-rtx: no TensorRT for RTX engine for rgb, event, diff, head: "
        "built for TensorRT for RTX 1.7.1.26 on GPUs of compute capability 12.0; this machine has "
        "TensorRT for RTX 1.7.1 on NVIDIA Fake GPU (compute capability 8.9); "
        f"run velora build {bundle.path} --for rtx"
    )


def test_another_version_is_one_error(
    fake: FakeTensorRT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = build(tmp_path)
    install(monkeypatch, tmp_path, "1.8.0")
    with pytest.raises(
        EngineError, match=r"built for TensorRT for RTX 1\.7\.1\.26 .* has TensorRT for RTX 1\.8\.0"
    ):
        open_rtx(bundle)


def test_a_changed_byte_is_one_error(fake: FakeTensorRT, tmp_path: Path) -> None:
    bundle = build(tmp_path)
    file = bundle.path / bundle.manifest.engines[2].file
    plan = bytearray(file.read_bytes())
    plan[-1] ^= 1
    file.write_bytes(plan)
    with pytest.raises(
        EngineError, match=r"diff-.*: the engine was changed or damaged; run velora build .* --for rtx"
    ):
        open_rtx(bundle)


@pytest.mark.parametrize(
    ("capability", "name"), [("8.7", "Jetson Orin"), ("9.0", "H100, H200"), ("11.0", "Jetson Thor")]
)
def test_gpus_that_it_does_not_serve_are_told_what_to_use(
    fake: FakeTensorRT, tmp_path: Path, capability: str, name: str
) -> None:
    bundle = build(tmp_path)
    fake.gpu.properties.major, fake.gpu.properties.minor = (int(part) for part in capability.split("."))
    with pytest.raises(EngineError) as error:
        open_rtx(bundle)
    assert str(error.value) == (
        "no engine for device auto: tensorrt-rtx: TensorRT for RTX does not serve compute capability "
        f"{capability} ({name}): use TensorRT there (velora build MODEL, --backend tensorrt)"
    )


def test_a_gpu_that_nobody_has_heard_of_is_refused_too() -> None:
    assert why_not_rtx("13.0") == (
        "TensorRT for RTX does not serve compute capability 13.0: use TensorRT there "
        "(velora build MODEL, --backend tensorrt)"
    )
