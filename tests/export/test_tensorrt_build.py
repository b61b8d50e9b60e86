"""`velora build` and what it calls, on a GPU that lives in host memory."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fakes_tensorrt import FakeTensorRT
from toy_bundle import write_toy_bundle
from velora_export.tensorrt.tensorrt_builder import BuildOptions, BuildProgress, run_cancellable
from velora_export.tensorrt.tensorrt_engines import BuiltEngine, BundleBuilder, this_gpu
from velora_export.tensorrt.tensorrt_parity import noise_clips, read_clips

from tests.fakes import relisted
from velora_cli.main import velora
from velora_edge.bundle import GRAPHS, open_bundle, read_manifest
from velora_edge.console import run
from velora_edge.errors import EngineError, InputError
from velora_edge.gpu.matching import model_digest, why_no_fp8
from velora_edge.gpu.signing import public_key

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from velora_edge.bundle import Bundle

MB = 1 << 20


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeTensorRT:
    return FakeTensorRT.install(monkeypatch, tmp_path)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_toy_bundle(tmp_path / "toy.velora")


def build(
    bundle: Bundle,
    options: BuildOptions | None = None,
    graphs: Sequence[str] = ("rgb",),
    *,
    force: bool = False,
) -> list[BuiltEngine]:
    with BundleBuilder(
        bundle, options or BuildOptions(), noise_clips(bundle.manifest), this_gpu()
    ) as builder:
        return list(builder.build(graphs, BuildProgress(), force=force))


def test_each_graph_becomes_an_engine_that_the_manifest_describes(fake: FakeTensorRT, bundle: Bundle) -> None:
    built = build(bundle, graphs=GRAPHS)
    manifest = read_manifest(bundle.path)
    assert [engine.graph for engine in manifest.engines] == list(GRAPHS)
    assert tuple(one.entry for one in built) == manifest.engines
    entry = manifest.engines[3].model_dump()
    digest = model_digest(bundle.manifest, "head")
    file = f"engines/head-trt10.3.0-fake-gpu-sm87-fp32-{digest[:12]}.engine"
    origin, signature = entry.pop("origin"), entry.pop("signature")
    assert origin.startswith(socket.gethostname())
    assert signature.startswith(f"{public_key()}:")
    assert entry == {
        "graph": "head",
        "kind": "tensorrt",
        "file": file,
        "sha256": hashlib.sha256((bundle.path / file).read_bytes()).hexdigest(),
        "model": digest,
        "precision": "fp32",
        "tensorrt": "10.3.0.26",
        "gpu": "NVIDIA Fake GPU",
        "compute_capability": "8.7",
        "targets": (),
        "compiled": None,
        "version_compatible": False,
        "hardware_compatible": False,
        "dla_core": None,
        "parity": {
            "source": "noise, seed 0",
            "runs": 6,
            "max_abs": 0.0,
            "relative": 0.0,
            "top1_agreement": 1.0,
            "tolerance": 1e-3,
        },
    }
    assert fake.gpu.leftovers() == []


def test_engines_carry_the_digest_of_what_they_were_built_from(fake: FakeTensorRT, bundle: Bundle) -> None:
    build(bundle, graphs=("rgb", "event"))
    names = [one["name"] for one in fake.builds]
    assert names == [f"velora {g} fp32 {model_digest(bundle.manifest, g)}" for g in ("rgb", "event")]
    assert model_digest(bundle.manifest, "rgb") != model_digest(bundle.manifest, "event")


def test_a_bundle_with_engines_still_opens_and_an_engine_file_is_not_looked_at(
    fake: FakeTensorRT, bundle: Bundle
) -> None:
    (built,) = build(bundle)
    (bundle.path / built.entry.file).unlink()
    assert open_bundle(bundle.path).manifest.engines == (built.entry,)


BUILT: dict[str, Any] = {
    "pools": {"WORKSPACE": 2048 * MB},
    "flags": set(),
    "level": 3,
    "compatibility": "NONE",
    "was_timed": False,
    "threads": 0,
}


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        (BuildOptions(), {}),
        (BuildOptions(workspace_bytes=64 * MB), {"pools": {"WORKSPACE": 64 * MB}}),
        (
            BuildOptions(low_memory=True),
            {"pools": {"WORKSPACE": 512 * MB, "TACTIC_DRAM": 512 * MB}, "level": 2, "threads": 1},
        ),
        (BuildOptions(version_compatible=True), {"flags": {"VERSION_COMPATIBLE"}}),
        (BuildOptions(hardware_compatible=True), {"compatibility": "AMPERE_PLUS"}),
    ],
    ids=["default", "workspace", "low-memory", "version", "hardware"],
)
def test_options_become_the_builders_configuration(
    fake: FakeTensorRT, bundle: Bundle, options: BuildOptions, changes: dict[str, Any]
) -> None:
    (built,) = build(bundle, options)
    (asked,) = fake.builds
    del asked["name"]
    assert asked == {**BUILT, **changes}
    assert built.entry.version_compatible is options.version_compatible
    assert built.entry.hardware_compatible is options.hardware_compatible


def test_only_fp32_gives_up_tf32(fake: FakeTensorRT, tmp_path: Path) -> None:
    (built,) = build(write_toy_bundle(tmp_path / "half.velora", half=True))
    assert fake.builds[0]["flags"] == {"TF32"}
    assert (built.entry.precision, built.entry.parity["tolerance"]) == ("fp16", 2e-2)


def test_the_timing_cache_is_kept_between_builds(fake: FakeTensorRT, bundle: Bundle, tmp_path: Path) -> None:
    for _ in range(2):
        build(bundle, force=True)
    assert [one["was_timed"] for one in fake.builds] == [False, True]
    (cache,) = (tmp_path / "cache" / "velora" / "tensorrt").iterdir()
    assert cache.name == "timing-trt10.3.0-fake-gpu-sm87.cache"
    cache.write_bytes(b"damaged")
    build(bundle, force=True)
    assert [one["was_timed"] for one in fake.builds] == [False, True, False]
    assert json.loads(cache.read_bytes()) == ["rgb.onnx"]


def test_an_engine_that_is_there_is_not_built_again(fake: FakeTensorRT, bundle: Bundle) -> None:
    (first,) = build(bundle)
    (second,) = build(bundle)
    assert (first.is_new, second.is_new, len(fake.builds)) == (True, False, 1)
    assert second.entry == first.entry
    (third,) = build(bundle, BuildOptions(version_compatible=True))
    assert third.entry.file == first.entry.file.replace(".engine", "-vc.engine")
    assert len(read_manifest(bundle.path).engines) == 2


def test_a_damaged_engine_is_built_again(fake: FakeTensorRT, bundle: Bundle) -> None:
    (first,) = build(bundle)
    (bundle.path / first.entry.file).write_bytes(b"damaged")
    (second,) = build(bundle)
    assert second.is_new
    assert read_manifest(bundle.path).engines == (second.entry,)


def test_an_engine_that_is_not_its_graph_is_refused_with_the_figures(
    fake: FakeTensorRT, bundle: Bundle
) -> None:
    fake.spoil = 0.25
    with pytest.raises(
        EngineError, match=r"the rgb engine is not its graph: .* allowed 1e-03; --force keeps it"
    ):
        build(bundle)
    assert read_manifest(bundle.path).engines == ()
    assert [file.suffix for file in (bundle.path / "engines").iterdir()] == [".log"]
    (kept,) = build(bundle, force=True)
    assert kept.entry.parity["max_abs"] == pytest.approx(0.25, abs=1e-3)


def test_an_engine_without_numbers_is_refused_even_by_force(fake: FakeTensorRT, bundle: Bundle) -> None:
    fake.spoil = float("nan")
    with pytest.raises(EngineError, match="the rgb engine gives values that are no numbers"):
        build(bundle, force=True)


def test_ctrl_c_stops_the_build_at_its_next_step(fake: FakeTensorRT, bundle: Bundle) -> None:
    progress, steps = BuildProgress(), []

    def interrupt() -> None:
        if not steps:
            os.kill(os.getpid(), signal.SIGINT)
            deadline = time.monotonic() + 10
            while not progress.is_cancelled and time.monotonic() < deadline:
                time.sleep(0.001)
        steps.append(progress.is_cancelled)

    fake.on_step = interrupt
    # A shell starts what it runs in the background with Ctrl-C ignored, and Python leaves that so.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with (
            BundleBuilder(bundle, BuildOptions(), noise_clips(bundle.manifest), this_gpu()) as builder,
            pytest.raises(KeyboardInterrupt),
        ):
            list(builder.build(("rgb", "event"), progress, force=False))
    finally:
        signal.signal(signal.SIGINT, before)
    assert steps == [True]
    assert read_manifest(bundle.path).engines == ()
    assert fake.gpu.leftovers() == []


def test_what_tensorrt_says_is_in_the_error_and_in_the_log(fake: FakeTensorRT, bundle: Bundle) -> None:
    fake.fail_build = "Could not find any implementation for node Fake.\nmore"
    with pytest.raises(EngineError) as error:
        build(bundle)
    assert (
        str(error.value) == "TensorRT cannot build rgb.onnx: Could not find any implementation for node Fake."
    )
    (log,) = (bundle.path / "engines").iterdir()
    assert log.name == "build-trt10.3.0-fake-gpu-sm87.log"
    assert "[ERROR] Could not find any implementation for node Fake.\nmore\n" in log.read_text()


def test_a_graph_that_the_parser_does_not_read_is_one_error(fake: FakeTensorRT, bundle: Bundle) -> None:
    bundle = relisted(bundle, "rgb.onnx", b"")
    with pytest.raises(EngineError, match=r"TensorRT 10\.3\.0 cannot read rgb\.onnx: Fake: "):
        build(bundle)


def test_work_in_the_thread_raises_its_own_error() -> None:
    with pytest.raises(ZeroDivisionError):
        run_cancellable(lambda: 1 // 0, BuildProgress())


def test_phases_are_bars_while_they_last() -> None:
    progress = BuildProgress()
    progress.start("Building", None, 2)
    progress.start("Timing", "Building", 5)
    assert progress.step("Timing", 3) is True
    progress.finish("Timing")
    assert progress.step("Timing", 4) is True
    assert [(task.description, task.total) for task in progress._progress.tasks] == [("Building", 2)]
    progress.is_cancelled = True
    assert progress.step("Building", 0) is False


def test_given_clips_are_what_is_compared_on(fake: FakeTensorRT, bundle: Bundle, tmp_path: Path) -> None:
    clips = np.zeros((3, 3, 4, 4, 3), np.uint8)
    np.savez(tmp_path / "clips.npz", rgb=clips, event=clips)
    assert run(velora, ["build", str(bundle.path), "--clips", str(tmp_path / "clips.npz")]) == 0
    parity = {engine.graph: engine.parity for engine in read_manifest(bundle.path).engines}
    assert {name: (one["source"], one["runs"]) for name, one in parity.items()} == {
        "rgb": ("clips.npz", 9),
        "event": ("clips.npz", 9),
        "diff": ("clips.npz", 6),
        "head": ("clips.npz", 9),
        "clip": ("clips.npz", 3),
    }


@pytest.mark.parametrize(
    ("rgb", "event", "message"),
    [
        ((1, 3, 4, 4, 3), None, "no clips: "),
        (
            (1, 3, 8, 8, 3),
            (1, 3, 4, 4, 3),
            r"rgb: expected uint8 clips of \(3, 4, 4, 3\), got uint8 \(1, 3, 8, 8, 3\)",
        ),
        ((1, 3, 4, 4, 3), (2, 3, 4, 4, 3), "1 clips of rgb, but 2 of event"),
        ((0, 3, 4, 4, 3), (0, 3, 4, 4, 3), "rgb: expected uint8 clips"),
    ],
)
def test_clips_of_another_form_are_refused(
    tmp_path: Path, bundle: Bundle, rgb: tuple[int, ...], event: tuple[int, ...] | None, message: str
) -> None:
    arrays = {"rgb": np.zeros(rgb, np.uint8)}
    if event is not None:
        arrays["event"] = np.zeros(event, np.uint8)
    np.savez(tmp_path / "clips.npz", **arrays)
    with pytest.raises(InputError, match=message):
        read_clips(tmp_path / "clips.npz", bundle.manifest)


def test_the_command_says_what_it_built_and_what_comes_next(
    fake: FakeTensorRT, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(velora, ["build", str(bundle.path), "--low-memory"]) == 0
    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    log = bundle.path / "engines" / "build-trt10.3.0-fake-gpu-sm87.log"
    assert lines[0] == f"TensorRT 10.3.0 on NVIDIA Fake GPU (compute capability 8.7); log: {log}"
    assert [line.split()[0] for line in lines[1:]] == ["rgb", "event", "diff", "head"]
    figures = "head  built in 0 s, 0.0 MB, 0.0e+00 from ONNX Runtime's output, same label in 100%"
    assert lines[4].startswith(f"{figures}: engines/head-trt10.3.0-fake-gpu-sm87-fp32-")
    assert shown.out.splitlines() == [
        f"4 engines in {bundle.path / 'engines'}",
        f"next: velora-live {bundle.path} --backend tensorrt --events SOURCE --rgb SOURCE",
    ]


def test_another_precision_than_the_graphs_is_bad_usage(
    fake: FakeTensorRT, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(velora, ["build", str(bundle.path), "--precision", "fp16"]) == 2
    assert capsys.readouterr().err == (
        f"error: {bundle.path}: the graphs are fp32, and TensorRT takes the types that they have; "
        "export the model with --precision fp16 and build that\n"
    )


def test_without_a_gpu_the_command_says_so_in_one_line(
    fake: FakeTensorRT, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.gpu.devices = 0
    assert run(velora, ["build", str(bundle.path)]) == 1
    assert capsys.readouterr().err == (
        "error: TensorRT builds engines on the GPU that runs them: CUDA finds no GPU: fake cudaErrorNoDevice "
        "(cudaErrorNoDevice); velora doctor tells more. velora build --for rtx builds for GeForce "
        "and RTX cards without one\n"
    )
    assert not (bundle.path / "engines").exists()


def _as_fp8(bundle: Bundle) -> Bundle:
    """The same bundle under another precision: what refuses it looks no further."""
    bundle.manifest = bundle.manifest.model_copy(update={"precision": "fp8"})
    return bundle


def test_a_gpu_without_fp8_is_told_what_to_export_instead(fake: FakeTensorRT, bundle: Bundle) -> None:
    with pytest.raises(EngineError) as caught:
        build(_as_fp8(bundle))
    assert str(caught.value) == (
        "fp8 needs a GPU of compute capability 8.9 or more (Ada, Hopper, Blackwell), "
        "and NVIDIA Fake GPU has 8.7; export the model with --precision fp16, or int8 --floats fp16"
    )
    assert fake.builds == []
    assert fake.gpu.leftovers() == []


@pytest.mark.parametrize("capability", ["8.9", "9.0", "10.0", "11.0", "12.0"])
def test_gpus_from_ada_on_take_fp8_but_not_for_all_from_ampere_on(capability: str) -> None:
    gpus = {"GPU": capability}
    assert why_no_fp8("fp8", gpus) is None
    assert why_no_fp8("fp16", gpus, hardware_compatible=True) is None
    assert "leave out --hardware-compatible" in str(why_no_fp8("fp8", gpus, hardware_compatible=True))
