"""Results that a test lays out by hand, and fake trees of boards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from velora_runtime.bench.figures import Latency, Live, LiveRun, Part
from velora_runtime.bench.result import BenchResult, Conditions, During, Machine, Verdict

if TYPE_CHECKING:
    from pathlib import Path


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def _rails(device: str, hwmon: str, rails: dict[int, tuple[str, int, int]]) -> dict[str, str]:
    files = {f"{device}/name": "ina3221\n"}
    for channel, (label, millivolts, milliamperes) in rails.items():
        files[f"{device}/hwmon/{hwmon}/in{channel}_label"] = f"{label}\n"
        files[f"{device}/hwmon/{hwmon}/in{channel}_input"] = f"{millivolts}\n"
        files[f"{device}/hwmon/{hwmon}/curr{channel}_input"] = f"{milliamperes}\n"
    return files


def _clock(node: str, low: int, now: int, high: int) -> dict[str, str]:
    return {f"{node}/min_freq": f"{low}\n", f"{node}/cur_freq": f"{now}\n", f"{node}/max_freq": f"{high}\n"}


def _cpu(low: int, now: int, high: int) -> dict[str, str]:
    policy = "sys/devices/system/cpu/cpufreq/policy0"
    return {
        f"{policy}/scaling_min_freq": f"{low}\n",
        f"{policy}/scaling_cur_freq": f"{now}\n",
        f"{policy}/scaling_max_freq": f"{high}\n",
        f"{policy}/scaling_governor": "schedutil\n",
    }


I2C, SUM = "sys/bus/i2c/devices", "sum of shunt voltages"
ORIN_6 = {
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\n",
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    **_cpu(729600, 1113600, 1728000),
    **_clock("sys/class/devfreq/17000000.gpu", 306000000, 306000000, 1020000000),
    **_rails(
        f"{I2C}/1-0040",
        "hwmon1",
        {
            1: ("VDD_IN", 5000, 1000),
            2: ("VDD_CPU_GPU_CV", 5000, 400),
            3: ("VDD_SOC", 5000, 200),
            7: (SUM, 0, 0),
        },
    ),
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "48500\n",
    "sys/class/thermal/thermal_zone1/type": "cv0-thermal\n",
    "sys/class/thermal/thermal_zone1/temp": "-256000\n",
    "sys/class/thermal/cooling_device0/type": "pwm-fan\n",
    "sys/class/thermal/cooling_device0/cur_state": "3\n",
    "sys/class/thermal/cooling_device1/type": "devfreq-17000000.gpu\n",
    "sys/class/thermal/cooling_device1/cur_state": "0\n",
    "sys/class/hwmon/hwmon2/name": "soctherm_oc\n",
    "sys/class/hwmon/hwmon2/oc1_event_cnt": "0\n",
    "sys/class/hwmon/hwmon2/oc3_event_cnt": "2\n",
}
"""An Orin Nano with JetPack 6, clocks free."""
ORIN_7 = {
    **ORIN_6,
    "etc/nv_tegra_release": "# R39 (release), REVISION: 2.1, GCID: 1, BOARD: generic\n",
    "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
    **_rails(
        f"{I2C}/1-0040",
        "hwmon3",
        {1: ("VDD_GPU_SOC", 20000, 300), 2: ("VDD_CPU_CV", 20000, 100), 3: ("NC", 0, 0)},
    ),
    **_rails(
        f"{I2C}/1-0041",
        "hwmon4",
        {1: ("NC", 0, 0), 2: ("VIN_SYS_5V0", 5000, 800), 3: ("VDDQ_VDD2_1V8AO", 5000, 100)},
    ),
}
"""An AGX Orin with JetPack 7: no rail holds all others."""
del ORIN_7[f"{I2C}/1-0040/hwmon/hwmon1/in1_label"]
ORIN_7 = {name: text for name, text in ORIN_7.items() if "/hwmon1/" not in name}
THOR = {
    "etc/nv_tegra_release": "# R39 (release), REVISION: 2.0, GCID: 2, BOARD: generic\n",
    "proc/device-tree/model": "NVIDIA Jetson AGX Thor Developer Kit\0",
    **_cpu(306000, 972000, 2601000),
    **_clock("sys/class/devfreq/gpu-gpc-0", 315000000, 315000000, 1575000000),
    **_clock("sys/class/devfreq/bwmgr", 665600000, 665600000, 4266000000),
    **_rails(
        f"{I2C}/2-0040",
        "hwmon0",
        {1: ("VDD_GPU", 12000, 1500), 2: ("VDD_CPU_SOC_MSS", 12000, 1000), 3: ("VIN_SYS_5V0", 5000, 600)},
    ),
    "sys/class/thermal/thermal_zone0/type": "gpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "55000\n",
}
"""An AGX Thor with JetPack 7, clocks free."""
LOCKED = {
    **{
        f"orin/{k}": v
        for k, v in (
            *_cpu(1728000, 1728000, 1728000).items(),
            *_clock("sys/class/devfreq/17000000.gpu", 1020000000, 1020000000, 1020000000).items(),
        )
    },
    **{
        f"thor/{k}": v
        for k, v in (
            *_cpu(2601000, 2601000, 2601000).items(),
            *_clock("sys/class/devfreq/gpu-gpc-0", 1575000000, 1575000000, 1575000000).items(),
            *_clock("sys/class/devfreq/bwmgr", 4266000000, 4266000000, 4266000000).items(),
        )
    },
}


def locked(tree: dict[str, str], kind: str) -> dict[str, str]:
    """The same board after jetson_clocks."""
    return {**tree, **{k.partition("/")[2]: v for k, v in LOCKED.items() if k.startswith(f"{kind}/")}}


def make_latency(p99: float = 20.0) -> Latency:
    return Latency(n=100, mean=10.0, p50=10.0, p90=15.0, p95=16.0, p99=p99, p999=p99, max=p99, jitter=1.0)


def make_run(p99: float = 20.0, **changes: Any) -> LiveRun:
    facts: dict[str, Any] = {
        "seconds": 10.0,
        "decisions": 300,
        "pictures": 300,
        "last_event_ms": make_latency(p99 - 1),
        "exposure_ms": make_latency(p99),
        "missed": 0,
        "due": 300,
        "dropped": {},
        "cores": 0.5,
        "memory_mb": 340.0,
        "cameras_late_ms": 1.0,
        "cameras_held_ms": 1.0,
        "cameras_cores": 0.1,
        "others_cores": 0.0,
        "taken_cores": 0.0,
    }
    return LiveRun(**{**facts, **changes})


def make_live(*runs: LiveRun) -> Live:
    return Live(
        events="demo.raw",
        event_rate_hz=5e6,
        fps=30.0,
        picture_px=(640, 480),
        deadline_ms=100.0,
        engine="fake on the CPU",
        passed_over=[],
        runs=list(runs),
        last_event_ms=make_latency(),
        exposure_ms=make_latency(),
        stages=[],
        samples_ms=[10.0, 11.0, 20.0],
    )


MACHINE = Machine(
    board="bench",
    jetpack=None,
    l4t=None,
    power_mode=None,
    gpu=None,
    cpu="cpu",
    cores=4,
    memory_gb=8.0,
    os="Linux",
    kernel="6",
    is_container=False,
    versions={},
)
STILL = Conditions(clocks=[], clocks_locked=None, temperatures_c={}, throttled={}, cores=4)
DURING = During(samples=10, hottest_c=None, clocks_mhz={}, throttled={})


def make_part(name: str, *rounds_ms: float) -> Part:
    p50 = sorted(rounds_ms)[len(rounds_ms) // 2]
    return Part(
        name=name,
        n=50,
        p50_ms=p50,
        p99_ms=max(rounds_ms),
        rounds_ms=list(rounds_ms),
        per_s=1e3 / p50,
        unit="runs",
    )


def make_result(**changes: Any) -> BenchResult:
    facts: dict[str, Any] = {
        "date": "2026-11-28T08:00:00+00:00",
        "reproduce": "velora bench",
        "quick": False,
        "seconds": 60.0,
        "stretches": {},
        "machine": MACHINE,
        "models": [],
        "parts": [],
        "live": None,
        "limits": [],
        "power": None,
        "before": STILL,
        "during": None,
        "after": STILL,
        "roofline": None,
        "verdict": Verdict(outcome="PASS", checks=[], reasons=[]),
    }
    return BenchResult(**{**facts, **changes})
