"""velora doctor on boards that a test lays out as files: what fits, and the commands that get the rest."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from velora_runtime.cameras.drivers.registry import Attached

from velora_cli.main import velora
from velora_edge.console import run
from velora_edge.doctor import advice as module
from velora_edge.doctor import host
from velora_edge.doctor.advice import Advice, advise, as_commands, as_json, as_text, requirements
from velora_edge.doctor.boards import (
    board,
    driver_cuda,
    fastest_mode,
    find_line,
    parse_driver,
    why_no_tensorrt_here,
)
from velora_edge.doctor.probes import Finding

ROOT = Path(__file__).parents[1]


def package(name: str, version: str, status: str = "install ok installed") -> str:
    return f"Package: {name}\nStatus: {status}\nVersion: {version}\nDescription: of\n it\n\n"


def release(major: int, revision: str) -> str:
    return f"# R{major} (release), REVISION: {revision}, GCID: 1, BOARD: generic, EABI: aarch64\n"


NVPMODEL = "< POWER_MODEL ID=0 NAME=15W >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n"
JETPACK_6 = {
    "etc/nv_tegra_release": release(36, "4.4"),
    "etc/nvpmodel.conf": NVPMODEL,
    "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
    "var/lib/dpkg/status": package("nvidia-jetpack", "6.2.1+b38")
    + package("libnvinfer10", "10.3.0.30-1+cuda12.5")
    + package("python3-libnvinfer", "10.3.0.30-1+cuda12.5"),
}
JETPACK_7_ORIN = {
    "etc/nv_tegra_release": release(39, "2.2"),
    "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
    "var/lib/dpkg/status": package("nvidia-jetpack", "7.2.2-b12")
    + package("libnvinfer11", "11.4.1.12-1+cuda13.2")
    + package("python3-libnvinfer", "10.16.2.10-1+cuda13.2", "deinstall ok config-files"),
}
THOR = {
    "etc/nv_tegra_release": release(38, "2.1"),
    "proc/device-tree/model": "NVIDIA Jetson AGX Thor Developer Kit\0",
}
PC = {
    "etc/os-release": 'NAME="Ubuntu"\nID=ubuntu\nVERSION_ID="24.04"\n',
    "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  560.35.03  Fri Aug 16\n",
    "sys/class/dmi/id/product_name": "Z790\n",
    "sys/bus/pci/devices/0000:00:02.0/class": "0x030000\n",
    "sys/bus/pci/devices/0000:00:02.0/vendor": "0x8086\n",
    "sys/bus/pci/devices/0000:01:00.0/class": "0x030000\n",
    "sys/bus/pci/devices/0000:01:00.0/vendor": "0x10de\n",
    "sys/bus/pci/devices/0000:02:00.0/class": "0x010802\n",
    "sys/bus/pci/devices/0000:02:00.0/vendor": "0x144d\n",
}


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_a_jetson_with_jetpack_6(tmp_path: Path) -> None:
    assert board(write(tmp_path, JETPACK_6)) == {
        "kind": "jetson",
        "board": "Jetson AGX Orin",
        "chip": "Orin",
        "l4t": "36.4.4",
        "jetpack": "6.2.1",
        "python": "3.10",
        "cuda": "12.6",
        "tensorrt": "10.3.0.30",
        "tensorrt_python": True,
        "fastest_mode": 2,
        "fits": [
            "JetPack's TensorRT 10.3",
            "Python 3.10 that sees the system's packages",
            "cuda-python <12.7",
        ],
        "extras": ["cpu", "jetpack6"],
    }


def test_an_orin_with_jetpack_7_2_2(tmp_path: Path) -> None:
    assert board(write(tmp_path, JETPACK_7_ORIN)) == {
        "kind": "jetson",
        "board": "Jetson AGX Orin",
        "chip": "Orin",
        "l4t": "39.2.2",
        "jetpack": "7.2.2",
        "python": "3.12",
        "cuda": "13.2",
        "tensorrt": "11.4.1.12",
        "tensorrt_python": False,
        "fastest_mode": None,
        "fits": [
            "JetPack's TensorRT 10.16",
            "TensorRT 11.4.1 for Arm servers (SBSA)",
            "Python 3.12 that sees the system's packages",
            "cuda-python <13.3",
            "a tower on the DLA by TensorRT 11.4.1",
        ],
        "extras": ["cpu", "jetpack7"],
    }


def test_a_thor_that_was_only_flashed(tmp_path: Path) -> None:
    assert board(write(tmp_path, THOR)) == {
        "kind": "jetson",
        "board": "Jetson AGX Thor",
        "chip": "Thor",
        "l4t": "38.2.1",
        "jetpack": "7",
        "python": "3.12",
        "cuda": "13.0",
        "tensorrt": None,
        "tensorrt_python": False,
        "fastest_mode": None,
        "fits": [
            "JetPack's TensorRT 10.13",
            "Python 3.12 that sees the system's packages",
            "cuda-python <13.1",
        ],
        "extras": ["cpu", "jetpack7"],
    }


def test_a_pc_with_a_driver_for_cuda_12_and_intel_graphics(tmp_path: Path) -> None:
    assert board(write(tmp_path, PC)) == {
        "kind": "pc",
        "board": "Z790",
        "system": "ubuntu",
        "graphics": ["Intel", "NVIDIA"],
        "driver": "560.35.03",
        "cuda": "12.6",
        "fits": [
            "TensorRT for CUDA 12",
            "cuda-python <12.7",
            "ONNX Runtime on the CPU",
            "OpenVINO on Intel graphics",
        ],
        "extras": ["cpu", "openvino"],
    }


def test_an_empty_tree_is_a_pc_that_runs_on_its_processor(tmp_path: Path) -> None:
    facts = board(tmp_path)
    assert (facts["kind"], facts["fits"], facts["extras"]) == ("pc", ["ONNX Runtime on the CPU"], ["cpu"])


@pytest.mark.parametrize(
    ("l4t", "line", "extra"),
    [
        ("32.7.1", None, None),
        ("35.6.1", "5", ""),
        ("36.3.0", "6.0", ""),
        ("36.4.0", "6", "jetpack6"),
        ("36.5", "6", "jetpack6"),
        ("38.4", "7", "jetpack7"),
        ("39.2.1", "7.2", "jetpack7"),
        ("", None, None),
    ],
)
def test_a_release_of_jetson_linux_belongs_to_a_line(l4t: str, line: str | None, extra: str | None) -> None:
    found = find_line(l4t)
    assert (found and found.name, found and found.extra) == (line, extra)


@pytest.mark.parametrize(
    ("jetpack", "name", "tensorrt", "reason"),
    [
        ("6.2.1", "Jetson AGX Orin", "10.3.0.30", None),
        ("6.2.1", "Jetson AGX Orin", "11.4.1.12", "JetPack 6.2.1 stays on TensorRT 10.x"),
        ("7.2.1", "Jetson Orin Nano", "10.16.2", None),
        (
            *("7.2.2", "Jetson AGX Orin", "11.4.0.106"),
            "TensorRT 11.4.0.106 supports no JetPack; 11.4.1 does, from JetPack 7.2.2 on",
        ),
        (
            *("7.2.1", "Jetson AGX Thor", "11.4.1"),
            "TensorRT 11.4.1 needs JetPack 7.2.2 or later, this is 7.2.1",
        ),
        ("7.2.2", "Jetson AGX Thor", "11.4.1", None),
        (
            *("7.2.2", "Jetson Orin Nano", "11.4.1"),
            "TensorRT 11.4.1 supports AGX Orin and Thor, this is Jetson Orin Nano",
        ),
    ],
)
def test_which_tensorrt_a_jetson_takes(jetpack: str, name: str, tensorrt: str, reason: str | None) -> None:
    assert why_no_tensorrt_here(jetpack, name, tensorrt) == reason


@pytest.mark.parametrize(
    ("text", "driver", "cuda"),
    [
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n",
            "580.65.06",
            "13.0",
        ),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  595.10  Thu\n", "595.10", "13.1"),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.256.02  Thu\n", "470.256.02", None),
        ("", None, None),
    ],
)
def test_a_driver_tells_the_newest_cuda(text: str, driver: str | None, cuda: str | None) -> None:
    assert parse_driver(text) == driver
    assert (driver and driver_cuda(driver)) == cuda


def test_the_fastest_power_mode_is_the_longest_maxn() -> None:
    assert fastest_mode("< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=3 NAME=50W >\n") == 0
    assert fastest_mode(f"< POWER_MODEL ID=1 NAME=MAXN >\n{NVPMODEL}") == 2
    assert fastest_mode("") is None


def test_an_environment_sees_the_systems_packages_if_its_settings_say_so(tmp_path: Path) -> None:
    assert host.sees_system(tmp_path)  # no environment: the system's own Python
    (tmp_path / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    assert not host.sees_system(tmp_path)
    (tmp_path / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = true\n")
    assert host.sees_system(tmp_path)


# ---- the commands ----------------------------------------------------------------------------------------

RUNTIME = {"version": "1.23", "built_with": ["CPUExecutionProvider"]}
ENVIRONMENT = {
    "python": "3.10.12",
    "executable": "/v/bin/python",
    "prefix": "/v",
    "is_venv": True,
    "sees_system": False,
    "checkout": "/src",
    "packages": {},
}


def commands(root: Path, files: dict[str, str], **probes: dict[str, Any]) -> list[str]:
    """What --fix prints on a board, without its comments."""
    facts = {"board": board(write(root, files)), "python": ENVIRONMENT, "onnxruntime": RUNTIME, **probes}
    text = as_commands(advise({name: Finding(found) for name, found in facts.items()}))
    return [line for line in text.splitlines() if not line.startswith("#")]


def jetson(files: dict[str, str]) -> dict[str, dict[str, Any]]:
    """What the other probes find on a Jetson where nothing was installed."""
    jetpack = "6" if "R36" in files["etc/nv_tegra_release"] else "7"
    return {"gpu": {"has_gpu": True}, "jetson": {"is_jetson": True, "jetpack": jetpack}}


def test_jetpack_6_lacks_cuda_python_and_an_environment_that_sees_tensorrt(tmp_path: Path) -> None:
    assert commands(tmp_path, JETPACK_6, **jetson(JETPACK_6)) == [
        "/v/bin/python -m pip install -e '/src[jetpack6]' 'cuda-python<12.7'",
        "sed -i 's/^include-system-site-packages.*/include-system-site-packages = true/' /v/pyvenv.cfg",
    ]


def test_jetpack_7_on_orin_needs_its_own_python_and_tensorrts_bindings(tmp_path: Path) -> None:
    assert commands(tmp_path, JETPACK_7_ORIN, **jetson(JETPACK_7_ORIN)) == [
        "sudo apt-get install -y python3-libnvinfer",
        "sudo apt-get install -y python3.12-venv",
        "python3.12 -m venv --system-site-packages velora-env",
        "velora-env/bin/python -m pip install -e '/src[cpu,jetpack7]'",
    ]


def test_a_thor_that_was_only_flashed_needs_jetpack_first(tmp_path: Path) -> None:
    python = {**ENVIRONMENT, "python": "3.12.3", "sees_system": True}
    probes = {**jetson(THOR), "python": python, "cuda": {"usable": True}}
    assert commands(tmp_path, THOR, **probes) == [
        "sudo apt-get update",
        "sudo apt-get install -y nvidia-jetpack",
        "sudo apt-get install -y python3-libnvinfer",
    ]


def test_a_pc_for_cuda_12_gets_tensorrt_and_cuda_python_for_its_driver(tmp_path: Path) -> None:
    assert commands(tmp_path, PC, gpu={"has_gpu": True}, jetson={"is_jetson": False}) == [
        "/v/bin/python -m pip install tensorrt-cu12 'cuda-python<12.7' onnx-ir cryptography"
    ]


def test_a_pc_for_cuda_13_gets_the_extra(tmp_path: Path) -> None:
    files = {**PC, "proc/driver/nvidia/version": PC["proc/driver/nvidia/version"].replace("560", "580")}
    assert commands(tmp_path, files, gpu={"has_gpu": True}, jetson={"is_jetson": False}) == [
        "/v/bin/python -m pip install -e '/src[tensorrt]' 'cuda-python<13.1'"
    ]


@pytest.mark.parametrize(
    ("system", "command"),
    [
        ("ubuntu", ["sudo ubuntu-drivers install"]),
        ("debian", ["sudo apt-get install -y nvidia-driver"]),
        ("arch", []),
    ],
)
def test_a_card_without_a_driver_gets_its_distributions(
    tmp_path: Path, system: str, command: list[str]
) -> None:
    files = {**PC, "etc/os-release": f"ID={system}\n", "proc/driver/nvidia/version": ""}
    assert commands(tmp_path, files, gpu={"has_gpu": False}) == command


def test_a_machine_that_has_all_it_needs_gets_no_command(tmp_path: Path) -> None:
    python = {**ENVIRONMENT, "sees_system": True, "packages": {"cuda-bindings": "12.6.2"}}
    fine = {"usable": True, "version": "10.3.0"}
    probes = {**jetson(JETPACK_6), "python": python, "tensorrt": fine}
    cuda = {"usable": True, "driver_cuda": "12.6", "runtime_cuda": "12.6"}
    assert commands(tmp_path, JETPACK_6, **probes, cuda=cuda) == []


def test_cuda_python_of_a_later_minor_than_a_jetsons_driver_is_pinned(tmp_path: Path) -> None:
    cuda = {"usable": True, "driver_cuda": "12.6", "runtime_cuda": "12.9"}
    probes = {**jetson(JETPACK_6), "tensorrt": {"usable": True}, "cuda": cuda}
    assert commands(tmp_path, JETPACK_6, **probes) == ["/v/bin/python -m pip install 'cuda-python<12.7'"]


def test_tensorrt_11_on_jetpack_6_is_removed(tmp_path: Path) -> None:
    packages = {"tensorrt": "11.4.1", "tensorrt-cu13": "11.4.1"}
    python = {**ENVIRONMENT, "sees_system": True, "packages": packages}
    probes = {**jetson(JETPACK_6), "python": python, "cuda": {"usable": True}}
    found = commands(tmp_path, JETPACK_6, **probes, tensorrt={"usable": False, "version": "11.4.1"})
    assert found == ["/v/bin/python -m pip uninstall -y tensorrt tensorrt-cu13"]


def test_a_jetpack_before_6_1_is_to_be_flashed_anew(tmp_path: Path) -> None:
    files = {**JETPACK_6, "etc/nv_tegra_release": release(35, "6.1")}
    facts = {"board": Finding(board(write(tmp_path, files))), "onnxruntime": Finding(RUNTIME)}
    (one,) = advise(facts)
    assert (one.level, one.command, one.commands) == ("error", "flash JetPack 6.1 or later", ())


def test_the_power_mode_without_a_limit_is_the_boards_own(tmp_path: Path) -> None:
    slow = {"is_jetson": True, "jetpack": "6", "power_mode": "15W"}
    assert commands(tmp_path, JETPACK_6, jetson=slow) == ["sudo nvpmodel -m 2"]


METAVISION = {"prophesee": {"usable": True, "versions": {"metavision_hal": "5.0"}}}


def test_numpy_2_beside_the_metavision_sdk_gives_way_to_1_26(tmp_path: Path) -> None:
    python = {**ENVIRONMENT, "packages": {"numpy": "2.2.6"}}
    install = ["/v/bin/python -m pip install -e '/src[metavision]'"]
    assert commands(tmp_path, {}, python=python, **METAVISION) == install
    older = {**ENVIRONMENT, "packages": {"numpy": "1.26.4"}}
    assert commands(tmp_path, {}, python=older, **METAVISION) == []


def test_metavision_that_numpy_2_broke_is_an_error() -> None:
    facts = {
        "onnxruntime": Finding(RUNTIME),
        "python": Finding({**ENVIRONMENT, "packages": {"numpy": "2.2.6"}}),
        "prophesee": Finding(problem="ImportError: numpy.core.multiarray failed to import"),
    }
    (one,) = advise(facts)
    assert (one.level, one.commands) == ("error", ("/v/bin/python -m pip install -e '/src[metavision]'",))


def test_without_a_checkout_an_extra_is_what_it_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["numpy>=1.26", 'onnxruntime>=1.18; extra == "cpu"', "cuda-python>=13,<14 ; extra == 'rtx'"]
    monkeypatch.setattr(module.metadata, "requires", lambda name: asked)
    assert requirements("cpu") == ["onnxruntime>=1.18"]
    facts = module.Facts({"python": Finding({**ENVIRONMENT, "checkout": None})})
    assert facts.install("cpu", "numpy<2") == "/v/bin/python -m pip install 'onnxruntime>=1.18' 'numpy<2'"


def test_a_checkout_is_found_by_its_project_file(tmp_path: Path) -> None:
    inside = tmp_path / "velora_edge" / "__init__.py"
    assert host.find_checkout(inside) is None
    (tmp_path / "pyproject.toml").touch()
    assert host.find_checkout(inside) == str(tmp_path)


def test_the_first_hour_shows_what_doctor_prints(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "guides" / "first_hour.md").read_text(encoding="utf-8")
    home = "/home/you/velora"
    python = {
        **ENVIRONMENT,
        "executable": f"{home}/bin/python",
        "prefix": home,
        "checkout": f"{home}-edge",
    }
    jetson = {"is_jetson": True, "jetpack": "6", "power_mode": "15W", "clocks_locked": False}
    facts = {
        "board": board(write(tmp_path, JETPACK_6)),
        "python": python,
        "onnxruntime": RUNTIME,
        "gpu": {"has_gpu": True},
        "jetson": jetson,
    }
    findings = {name: Finding(found) for name, found in facts.items()}
    report = as_text({"board": findings["board"]}, [])
    assert "```\n" + report.split("\n\n")[1] + "\n```" in page
    assert "```\n" + as_commands(advise(findings)) + "\n```" in page


def test_the_first_hour_shows_what_cameras_prints(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "guides" / "first_hour.md").read_text(encoding="utf-8")
    attached = [
        Attached("events", "neuromorphic://00051234", "by neuromorphic-drivers"),
        Attached("rgb", "/dev/video0", "HD Webcam"),
    ]
    for found in (attached, []):
        monkeypatch.setattr(
            "velora_runtime.cameras.drivers.registry.list_attached", lambda found=found: found
        )
        assert run(velora, ["cameras"]) == 0
        assert f"```\n{capsys.readouterr().out}```" in page


# ---- the form of --fix -----------------------------------------------------------------------------------


def test_fixes_are_commands_each_once_under_what_was_found() -> None:
    said = as_commands(
        [
            Advice("error", "no runtime", "pip install it", fix=("python -m pip install it",)),
            Advice("warning", "no permission", "join the group, then log in again", fix=()),
            Advice("hint", "no runtime either", "python -m pip install it"),
        ]
    )
    assert said.splitlines() == [
        "# error: no runtime",
        "python -m pip install it",
        "# warning: no permission",
        "# join the group, then log in again",
        "# hint: no runtime either",
    ]
    assert as_commands([]) == "# nothing to do"


def test_what_a_device_calls_itself_is_no_command() -> None:
    """The output is given to shells: a camera's name is what its maker, or somebody else, wrote into it."""
    camera = {"device": "/dev/video0", "name": "cam\nrm -rf ~\n", "allowed": False}
    event = {"name": "EVK4\r\nreboot", "maker": "Prophesee", "allowed": True}
    model = "m $(reboot).velora"
    findings = {
        "cameras": Finding({"video": [camera], "event": [event]}),
        "python": Finding(ENVIRONMENT),
        "onnxruntime": Finding(RUNTIME),
        "tensorrt": Finding({"usable": True}),
        "engines": Finding({"model": model, "engines": []}),
    }
    lines = as_commands(advise(findings)).splitlines()
    run_by_a_shell = [shlex.split(line) for line in lines if not line.startswith("#")]
    assert [words[:4] for words in run_by_a_shell] == [
        ["sudo", "usermod", "-aG", "video"],
        ["/v/bin/python", "-m", "pip", "install"],
        ["/v/bin/velora", "build", model],
    ]


def test_json_has_the_commands_of_each_advice() -> None:
    advice = [Advice("hint", "slow", "sudo jetson_clocks"), Advice("error", "broken", "mend it", fix=())]
    assert as_json({}, advice)["advice"] == [
        {"level": "hint", "text": "slow", "command": "sudo jetson_clocks", "fix": ["sudo jetson_clocks"]},
        {"level": "error", "text": "broken", "command": "mend it", "fix": []},
    ]


def test_the_command_prints_nothing_but_comments_and_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(velora, ["doctor", "--fix"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines
    programs = {shlex.split(line)[0].rpartition("/")[2] for line in lines if not line.startswith("#")}
    assert programs <= {
        "python",
        "python3",
        "python3.10",
        "python3.11",
        "python3.12",
        "sudo",
        "sed",
        "velora",
    }


def test_json_and_fix_are_one_too_many(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(velora, ["doctor", "--fix", "--json"]) == 2
    assert "two forms of one report" in capsys.readouterr().err
