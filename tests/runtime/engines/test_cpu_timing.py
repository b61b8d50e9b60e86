"""Which backend auto takes on a CPU: ONNX Runtime, unless OpenVINO was measured to be faster here."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import write_tiny_bundle
from velora_cli.main import velora
from velora_edge.console import run

if TYPE_CHECKING:
    from pathlib import Path

    from velora_edge.bundle import Bundle

pytest.importorskip("openvino", reason="needs the extra openvino")
from velora_runtime.engines import registry
from velora_runtime.engines.base import EngineOptions
from velora_runtime.engines.cpu_timing import CpuTiming, read_timing, timing_key, write_timing

ON_CPU = EngineOptions(device="cpu", threads=1)


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return write_tiny_bundle(tmp_path / "tiny.velora")


def timing(bundle: Bundle, openvino_ms: float, **changes: Any) -> CpuTiming:
    times = {"onnxruntime": 10.0, "openvino": openvino_ms}
    return CpuTiming({**timing_key(bundle, 1), **changes}, times, times)


def chosen(bundle: Bundle) -> tuple[str, str]:
    choice = registry.open_engine(bundle, "auto", ON_CPU)
    return choice.engine.name, choice.passed_over[-1]


def test_without_a_timing_auto_stays_with_onnxruntime_and_names_the_command(bundle: Bundle) -> None:
    assert chosen(bundle) == (
        "onnxruntime on the CPU",
        f"openvino: not measured here; velora build {bundle.path} --for cpu does it",
    )


@pytest.mark.parametrize(
    ("openvino_ms", "name", "passed_over"),
    [
        (6.0, "openvino", "onnxruntime: a step takes openvino 6.0 ms, onnxruntime 10.0 ms"),
        (9.8, "onnxruntime", "openvino: a step takes openvino 9.8 ms, onnxruntime 10.0 ms"),
        (12.0, "onnxruntime", "openvino: a step takes openvino 12.0 ms, onnxruntime 10.0 ms"),
    ],
)
def test_auto_takes_the_faster_one_and_tells_both_times(
    bundle: Bundle, openvino_ms: float, name: str, passed_over: str
) -> None:
    write_timing(timing(bundle, openvino_ms))
    assert chosen(bundle) == (f"{name} on the CPU", passed_over)


@pytest.mark.parametrize(
    "changes", [{"cpu": "another"}, {"cores": 99}, {"openvino": "2024.0"}, {"onnxruntime": "1.0"}]
)
def test_a_timing_of_another_machine_or_version_is_not_used(bundle: Bundle, changes: dict[str, Any]) -> None:
    write_timing(timing(bundle, 1.0, **changes))
    assert read_timing(bundle, ON_CPU) is None
    assert chosen(bundle)[0] == "onnxruntime on the CPU"


def test_a_timing_with_other_threads_is_not_used(bundle: Bundle) -> None:
    write_timing(timing(bundle, 1.0))
    assert read_timing(bundle, replace(ON_CPU, threads=2)) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"key": 1, "p50_ms": {}, "p99_ms": {}}'])
def test_a_spoilt_timing_is_not_used(bundle: Bundle, text: str) -> None:
    write_timing(timing(bundle, 1.0)).write_text(text)
    assert read_timing(bundle, ON_CPU) is None


def test_build_for_cpu_measures_both_and_keeps_the_result(
    bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(velora, ["build", str(bundle.path), "--for", "cpu", "--threads", "1"], name="velora") == 0
    found = read_timing(bundle, ON_CPU)
    assert found is not None
    assert set(found.p50_ms) == {"onnxruntime", "openvino"}
    assert all(0 < found.p50_ms[name] <= found.p99_ms[name] for name in found.p50_ms)
    assert capsys.readouterr().out.startswith(f"{found.describe()}; --backend auto takes {found.best} (")
    assert chosen(bundle)[0] == f"{found.best} on the CPU"
