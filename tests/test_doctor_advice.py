"""What velora doctor advises, and how it says what it found."""

from __future__ import annotations

from typing import Any

import pytest

from velora_edge.doctor.advice import Advice, advise, as_text
from velora_edge.doctor.probes import Finding
from velora_edge.errors import install_line


def found(**probes: dict[str, Any]) -> dict[str, Finding]:
    return {name: Finding(facts) for name, facts in probes.items()}


CPU = {"version": "1.20", "built_with": ["CPUExecutionProvider"]}
CAMERA = {"name": "EVK4", "maker": "Prophesee", "allowed": True}


@pytest.mark.parametrize(
    ("probes", "advice"),
    [
        (found(onnxruntime=CPU), []),
        (found(), [("error", "nothing here can run a model", "pip install -e '.[cpu]' in a checkout")]),
        (
            found(onnxruntime=CPU, python={"packages": {"onnxruntime": "1", "onnxruntime-gpu": "1"}}),
            [
                (
                    "warning",
                    "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files",
                    "pip uninstall -y onnxruntime onnxruntime-gpu onnxruntime-openvino; "
                    "pip install the one you want",
                )
            ],
        ),
        (
            found(
                onnxruntime=CPU,
                python={"packages": {}},
                gpu={"has_gpu": True},
                jetson={"is_jetson": True, "jetpack": "6"},
            ),
            [
                ("hint", "the GPU needs cuda-python", "pip install -e '.[jetpack6]' in a checkout"),
                (
                    "hint",
                    "TensorRT comes with JetPack, and an ordinary virtual environment does not see it",
                    "sudo apt install python3-libnvinfer; python3 -m venv --system-site-packages .venv",
                ),
            ],
        ),
        (
            found(
                onnxruntime=CPU,
                python={"packages": {"cuda-bindings": "13.5.0"}},
                gpu={"has_gpu": True},
                cuda={"usable": False, "driver_cuda": "12.6", "runtime_cuda": "13.5"},
                tensorrt={"usable": False, "version": "10.3.0"},
            ),
            [
                (
                    "error",
                    "cuda-python is made for CUDA 13.5, the driver knows CUDA 12.6",
                    "pip install tensorrt-cu12 'cuda-python<13', or a newer driver",
                )
            ],
        ),
        (
            found(
                gpu={"has_gpu": True},
                cuda={"usable": True},
                tensorrt={"usable": True},
                engines={"model": "m.velora", "engines": [{"graph": "rgb", "fits": True}]},
            ),
            [
                (
                    "hint",
                    "m.velora has no TensorRT engine for this machine for event, diff, head",
                    "velora build m.velora",
                )
            ],
        ),
        (
            found(onnxruntime=CPU, jetson={"power_mode": "15W", "clocks_locked": False}),
            [
                (
                    "warning",
                    "the clocks are not locked: latencies will vary, and benchmarks cannot be compared",
                    "sudo jetson_clocks",
                ),
                ("hint", "the power mode is 15W, not the fastest", "sudo nvpmodel -m 0"),
            ],
        ),
        (found(onnxruntime=CPU, jetson={"power_mode": "MAXN_SUPER", "clocks_locked": True}), []),
        (
            found(
                onnxruntime=CPU,
                cameras={
                    "video": [{"device": "/dev/video0", "name": "Cam", "allowed": False}],
                    "event": [CAMERA],
                },
                neuromorphic={"usable": False, "reason": "neuromorphic_drivers is not installed"},
            ),
            [
                (
                    "warning",
                    "no permission to use /dev/video0 (Cam)",
                    "sudo usermod -aG video $USER, then log in again",
                ),
                (
                    "warning",
                    "EVK4 is attached, but neuromorphic_drivers is not installed",
                    install_line("cameras"),
                ),
            ],
        ),
        (
            {"onnxruntime": Finding(CPU), "cuda": Finding(problem="gave no answer within 30 s")},
            [("warning", "the cuda probe gave no answer within 30 s", "velora doctor --time-limit 60")],
        ),
    ],
)
def test_advice_follows_from_facts(probes: dict[str, Finding], advice: list[tuple[Any, str, str]]) -> None:
    assert [(one.level, one.text, one.command) for one in advise(probes)] == advice


def test_text_shows_facts_failures_and_what_to_do() -> None:
    findings = {
        "python": Finding({"python": "3.11", "packages": {"numpy": "2.0"}, "empty": None, "is_venv": True}),
        "gpu": Finding(problem="was killed by signal 11"),
        "cameras": Finding({"video": [{"device": "/dev/video0", "allowed": False}], "event": []}),
    }
    text = as_text(findings, [Advice("hint", "something", "do it")])
    assert text.splitlines()[1:] == [
        "",
        "python",
        "  python: 3.11",
        "  packages: numpy 2.0",
        "  is_venv: yes",
        "",
        "gpu",
        "  probe failed: was killed by signal 11",
        "",
        "cameras",
        "  video:",
        "    device /dev/video0, allowed no",
        "  event: none",
        "",
        "what to do",
        "  hint: something",
        "    do it",
    ]
