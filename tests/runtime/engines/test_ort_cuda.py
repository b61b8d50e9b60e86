"""ONNX Runtime on a GPU: on one that is not there, beside the CPU; and what is said where there is none."""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
from velora_runtime.engines import ort as ort_graphs
from velora_runtime.engines import ort_cuda, ort_tensorrt, registry
from velora_runtime.engines import ort_cuda as ort_device
from velora_runtime.engines.base import EngineOptions
from velora_runtime.engines.ort import OnnxRuntimeEngine
from velora_runtime.engines.ort_cuda import open_engine, why_not
from velora_runtime.engines.ring import ClipRing

from tests import fakes_onnxruntime
from tests.fakes import relisted
from tests.fakes_onnxruntime import CPU, CUDA, FakeRuntime
from tests.toy_bundle import H, T, W, write_toy_bundle
from velora_edge import ort
from velora_edge.errors import EngineError
from velora_edge.manifest import Calibration, Report

if TYPE_CHECKING:
    from pathlib import Path

    from velora_edge.bundle import Bundle

TENSORRT = "TensorrtExecutionProvider"


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> FakeRuntime:
    fake = FakeRuntime()
    for module in (ort, ort_cuda, ort_device):
        monkeypatch.setattr(module, "load_runtime", lambda *_: fake)
    for name in ("InferenceSession", "get_available_providers"):  # the probe imports onnxruntime itself
        monkeypatch.setattr(onnxruntime, name, getattr(fake, name))
    monkeypatch.setattr(ort_cuda, "has_gpu", lambda: True)
    return fake


@pytest.fixture(params=[False, True], ids=["fp32", "fp16"])
def bundle(request: pytest.FixtureRequest, tmp_path: Path) -> Bundle:
    return write_toy_bundle(tmp_path / "toy.velora", stride=2, half=request.param)


def _stream(engine: Any, pairs: int = 9) -> list[list[float]]:
    """Logits after each pair; the event camera is away for one of them."""
    draw = np.random.default_rng(4)
    ring, logits = ClipRing(T, 2), []
    before: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for number in range(pairs):
        rgb, event = draw.integers(0, 256, (2, H, W, 3), np.uint8)
        entry = ring.enter(rgb=True, event=number != 5)
        slot = entry.slot
        engine.encode("rgb", (rgb,), slot)
        if number != 5:
            engine.encode("event", (event,), slot)
        if slot.phase in before:
            rgb_before, event_before = before[slot.phase]
            engine.encode(
                "diff", (rgb, rgb_before, event, event_before if entry.event_moved else event), slot
            )
        before[slot.phase] = (rgb, event)
        logits.append(engine.decide(slot.phase, ring.presence[slot.phase]).tolist())
    return logits


@pytest.mark.parametrize("cuda_graph", [True, False])
def test_a_stream_gives_the_cpu_s_logits(runtime: FakeRuntime, bundle: Bundle, cuda_graph: bool) -> None:
    engine = open_engine(bundle, EngineOptions(cuda_graph=cuda_graph))
    engine.warm_up()
    assert engine.has_graphs == cuda_graph
    streamed = _stream(engine)
    replayed = [session.replayed for session in runtime.sessions]
    engine.close()
    assert all(replayed) if cuda_graph else not any(replayed)
    np.testing.assert_allclose(streamed, _cpu_logits(bundle), atol=1e-4)


def _cpu_logits(bundle: Bundle) -> list[list[float]]:
    with pytest.MonkeyPatch.context() as undo:
        undo.setattr(ort, "load_runtime", lambda *_: _Real)
        return _stream(OnnxRuntimeEngine(bundle, EngineOptions(threads=1)))


class _Real:
    """The real library, kept from being patched."""

    __version__ = onnxruntime.__version__
    SessionOptions, InferenceSession = onnxruntime.SessionOptions, onnxruntime.InferenceSession


def test_tokens_never_leave_the_device_and_have_the_graphs_type(runtime: FakeRuntime, bundle: Bundle) -> None:
    engine = open_engine(bundle, EngineOptions())
    rings = [value for value in runtime.values.values() if value.array.ndim == 4 and value.array.shape[1] < H]
    kind = np.float16 if bundle.manifest.precision == "fp16" else np.float32
    assert sorted((value.array.shape, value.array.dtype.type) for value in rings) == sorted(
        [*[((1, 2, 3, 5), kind)] * 2, *[((1, 3, 3, 5), kind)] * 4]
    )
    engine.close()


def test_warm_up_leaves_the_rings_empty_and_records_every_slot_once(
    runtime: FakeRuntime, bundle: Bundle
) -> None:
    engine = open_engine(bundle, EngineOptions())
    engine.warm_up()
    rings = [value for value in runtime.values.values() if value.array.ndim == 4 and value.array.shape[1] < H]
    assert not any(value.array.any() for value in rings)
    assert [len(session._recorded) for session in runtime.sessions] == [6, 6, 4, 2]  # two rings
    engine.close()


def test_closing_frees_the_device(runtime: FakeRuntime, bundle: Bundle) -> None:
    engine = open_engine(bundle, EngineOptions())
    engine.warm_up()
    assert runtime.values
    engine.close()
    runtime.sessions.clear()
    assert dict(runtime.values) == {}


def test_a_graph_that_replays_nothing_is_given_up_and_the_stream_is_right(
    runtime: FakeRuntime, bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    runtime.replays = False
    engine = open_engine(bundle, EngineOptions())
    with caplog.at_level(logging.WARNING, "velora.onnxruntime"):
        engine.warm_up()
    assert not engine.has_graphs
    assert [record.message for record in caplog.records] == [
        "CUDA graphs are not used, which costs some latency: the CUDA graph of rgb.onnx does not compute "
        "what it records"
    ]
    np.testing.assert_allclose(_stream(engine), _cpu_logits(bundle), atol=1e-4)


def test_sessions_may_not_use_the_cpu_nor_tf32(runtime: FakeRuntime, bundle: Bundle) -> None:
    open_engine(bundle, EngineOptions(cuda_graph=False))
    assert len(runtime.sessions) == 4
    for session in runtime.sessions:
        assert session.options.get_session_config_entry("session.disable_cpu_ep_fallback") == "1"
        assert (session.provider, session.provider_options) == (
            CUDA,
            {"device_id": "0", "use_tf32": "0", "enable_cuda_graph": "0"},
        )


def test_falling_back_to_the_cpu_is_an_error(runtime: FakeRuntime, bundle: Bundle) -> None:
    runtime.starts = [CPU]
    with pytest.raises(
        EngineError, match=f"expected onnxruntime on {CUDA}, got {CPU}; velora doctor tells more"
    ):
        open_engine(bundle, EngineOptions())


def test_no_memory_is_told(runtime: FakeRuntime, bundle: Bundle) -> None:
    runtime.room = 3
    with pytest.raises(EngineError, match=r"^onnxruntime has no memory on the GPU: CUDA out of memory$"):
        open_engine(bundle, EngineOptions())


def test_an_image_of_another_size_is_told(runtime: FakeRuntime, bundle: Bundle) -> None:
    engine = open_engine(bundle, EngineOptions())
    slot = ClipRing(T, 2).enter(rgb=True, event=True).slot
    with pytest.raises(EngineError, match=r"rgb\.onnx expects image \[4, 4, 3\], got \(5, 4, 3\)"):
        engine.encode("rgb", (np.zeros((H + 1, W, 3), np.uint8),), slot)


def test_a_machine_that_can_is_not_passed_over(runtime: FakeRuntime, bundle: Bundle) -> None:
    assert why_not(bundle, EngineOptions()) is None
    assert why_not(bundle, EngineOptions(device="cuda")) is None
    assert (
        why_not(bundle, EngineOptions(device="cpu"))
        == "this backend computes on an NVIDIA GPU only (--device cuda)"
    )


@pytest.mark.parametrize(
    ("changes", "gpu", "reason"),
    [
        (
            {"providers": [CPU]},
            True,
            f"this onnxruntime was built without {CUDA} (pip install -e '.[gpu]' in a checkout)",
        ),
        ({}, False, "there is no NVIDIA GPU"),
        (
            {"starts": [CPU]},
            True,
            f"{CUDA} does not start: onnxruntime fell back to {CPU}; velora doctor tells more",
        ),
    ],
)
def test_reasons_to_pass_it_over(
    runtime: FakeRuntime,
    bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    changes: Any,
    gpu: bool,
    reason: str,
) -> None:
    for name, value in changes.items():
        setattr(runtime, name, value)
    monkeypatch.setattr(ort_cuda, "has_gpu", lambda: gpu)
    assert why_not(bundle, EngineOptions()) == reason


def test_auto_prefers_the_gpu_and_cuda_is_never_replaced_by_the_cpu(
    runtime: FakeRuntime, bundle: Bundle
) -> None:
    choice = registry.open_engine(bundle, "auto", EngineOptions())
    assert choice.engine.name == "onnxruntime, CUDA on the GPU"
    assert [reason.split(":")[0] for reason in choice.passed_over] == ["tensorrt", "tensorrt-rtx"]
    runtime.starts = [CPU]
    with pytest.raises(
        EngineError, match=r"no engine for device cuda: onnxruntime with CUDA: .* does not start"
    ):
        registry.open_engine(bundle, "onnxruntime", EngineOptions(device="cuda"))


def test_a_bf16_bundle_is_not_run_on_a_cpu(tmp_path: Path) -> None:
    plain = write_toy_bundle(tmp_path / "toy.velora")
    plain.manifest = plain.manifest.model_copy(update={"precision": "bf16"})
    with pytest.raises(
        EngineError, match="onnxruntime: no CPU kernels compute bf16; export the model in fp32 or int8"
    ):
        registry.open_engine(plain, "onnxruntime", EngineOptions(device="cpu"))


@pytest.mark.parametrize(
    ("backend", "device", "reason"),
    [
        ("onnxruntime", "cpu", "no CPU kernels compute fp8; export the model in fp32 or int8"),
        (
            "onnxruntime",
            "cuda",
            r"it does not multiply fp8; run velora build .*toy\.velora, or export the model in fp16",
        ),
        ("onnxruntime-tensorrt", "cuda", r"it does not multiply fp8; run velora build .*toy\.velora"),
    ],
)
def test_an_fp8_bundle_is_for_engines_alone(
    runtime: FakeRuntime, tmp_path: Path, backend: str, device: Any, reason: str
) -> None:
    plain = write_toy_bundle(tmp_path / "toy.velora")
    plain.manifest = plain.manifest.model_copy(update={"precision": "fp8"})
    with pytest.raises(EngineError, match=reason):
        registry.open_engine(plain, backend, EngineOptions(device=device))


@pytest.mark.parametrize(
    ("backend", "device", "reason"),
    [
        ("onnxruntime", "cpu", "no CPU kernels compute bf16; export the model in fp32 or int8"),
        ("onnxruntime", "cuda", "it does not round bf16 to int8; export the model with --floats fp16"),
        ("onnxruntime-tensorrt", "cuda", "it does not round bf16 to int8"),
    ],
)
def test_an_int8_bundle_in_bf16_is_not_for_onnxruntime(
    runtime: FakeRuntime, tmp_path: Path, backend: str, device: Any, reason: str
) -> None:
    plain = write_toy_bundle(tmp_path / "toy.velora")
    calibration = Calibration(method="max", source="noise", clips=1, layers=1, floats="bf16")
    report = Report.model_construct(calibration=calibration)
    plain.manifest = plain.manifest.model_copy(update={"precision": "int8", "report": report})
    with pytest.raises(EngineError, match=reason):
        registry.open_engine(plain, backend, EngineOptions(device=device))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
def test_tensorrt_s_provider_is_told_what_the_graphs_need(
    precision: Any, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    manifest = bundle.manifest.model_copy(update={"precision": precision})
    (first, options), (second, _) = ort_tensorrt.tensorrt_providers(manifest, cuda_graph=True)
    assert (first, second) == (TENSORRT, CUDA)
    cache = str(tmp_path / "velora" / "onnxruntime")
    assert (options["trt_engine_cache_path"], options["trt_cuda_graph_enable"]) == (cache, "1")
    enabled = {key for key in options if key.startswith(("trt_fp16", "trt_bf16", "trt_int8"))}
    assert enabled == (set() if precision == "fp32" else {f"trt_{precision}_enable"})


def test_tensorrt_s_provider_runs_the_stream_too(runtime: FakeRuntime, bundle: Bundle) -> None:
    runtime.providers = runtime.starts = [TENSORRT, CUDA, CPU]
    choice = registry.open_engine(bundle, "onnxruntime-tensorrt", EngineOptions())
    choice.engine.warm_up()
    assert choice.engine.name == "onnxruntime, TensorRT on the GPU"
    np.testing.assert_allclose(_stream(choice.engine), _cpu_logits(bundle), atol=1e-4)


def test_towers_and_head_must_agree_on_tokens(tmp_path: Path) -> None:
    fp32, fp16 = (write_toy_bundle(tmp_path / f"{half}.velora", half=half) for half in (False, True))
    fp32 = relisted(fp32, "head.onnx", fp16.read("head.onnx"))
    fp32 = relisted(fp32, "head.bin", fp16.read("head.bin"))
    with pytest.raises(
        ValueError, match=r"towers give tokens of tensor\(float\), the head takes tensor\(float16\)"
    ):
        OnnxRuntimeEngine(fp32, EngineOptions(threads=1))
    assert ort_graphs.TYPES.keys() == {"tensor(float)", "tensor(float16)"}


@pytest.mark.parametrize(
    ("fake", "real"),
    [
        (fakes_onnxruntime.FakeValue, onnxruntime.OrtValue),
        (fakes_onnxruntime.FakeBinding, onnxruntime.IOBinding),
        (fakes_onnxruntime.FakeSession, onnxruntime.InferenceSession),
    ],
)
def test_the_fake_has_the_real_library_s_names_and_parameters(fake: type, real: type) -> None:
    methods = {name: method for name, method in vars(fake).items() if inspect.isfunction(method)}
    for name, method in methods.items():
        if name.startswith("_"):
            continue
        theirs = list(inspect.signature(getattr(real, name)).parameters)
        ours = inspect.signature(method).parameters.values()
        assert len(ours) <= len(theirs), name
        # What is only ever given by place has other names in other versions.
        by_name = [(o.name, t) for o, t in zip(ours, theirs, strict=False) if o.kind is not o.POSITIONAL_ONLY]
        assert [o for o, _ in by_name] == [t for _, t in by_name], name


@pytest.mark.gpu
def test_a_real_gpu_gives_the_cpu_s_logits(bundle: Bundle) -> None:
    reason = why_not(bundle, EngineOptions())
    if reason is not None:
        pytest.skip(reason)
    engine = open_engine(bundle, EngineOptions())
    engine.warm_up()
    np.testing.assert_allclose(_stream(engine), _cpu_logits(bundle), atol=1e-2)
