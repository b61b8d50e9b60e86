"""Power by sensors that a test lays out: rails, a card's library, RAPL."""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, Any

import pytest
from velora_runtime.bench.machine import Nvml, open_nvml
from velora_runtime.bench.meters import Load, LoadMeter, PowerMeter, energy, find_sensors
from velora_runtime.bench.result import Clock

from tests.runtime.bench.results_by_hand import ORIN_6, ORIN_7, THOR, write

if TYPE_CHECKING:
    from pathlib import Path

RAPL = {
    "sys/class/powercap/intel-rapl:0/name": "package-0\n",
    "sys/class/powercap/intel-rapl:0/energy_uj": "900000\n",
    "sys/class/powercap/intel-rapl:0/max_energy_range_uj": "1000000\n",
    "sys/class/powercap/intel-rapl:0:0/name": "core\n",
    "sys/class/powercap/intel-rapl:0:0/energy_uj": "1\n",
}


class FakeLibrary:
    """libnvidia-ml as a card with its driver answers; what is not in `answers` is not supported."""

    def __init__(self, **answers: int) -> None:
        self.answers, self.is_open = answers, False

    def nvmlInit_v2(self) -> int:
        self.is_open = True
        return 0

    def nvmlShutdown(self) -> int:
        self.is_open = False
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: Any, handle: Any) -> int:
        return 0

    def nvmlDeviceGetName(self, card: Any, text: Any, size: Any) -> int:
        text.value = b"NVIDIA Test"
        return 0

    def __getattr__(self, name: str) -> Any:
        def answer(card: Any, *given: Any) -> int:
            kind = "".join(f"_{value.value}" for value in given[:-1] if isinstance(value, ctypes.c_uint))
            value = self.answers.get(f"{name.removeprefix('nvmlDeviceGet')}{kind}")
            if value is None:
                return 3  # NVML_ERROR_NOT_SUPPORTED
            given[-1]._obj.value = value
            return 0

        return answer


def watts(root: Path, nvml: Nvml | None = None) -> dict[str, tuple[float, bool]]:
    """Power by sensor over one second in which nothing changes."""
    sensors, _ = find_sensors(root, nvml)
    meter = PowerMeter(sensors, root, nvml)
    for now_s in (0.0, 0.5, 1.0):
        meter.sample(now_s)
    return {
        sensor.name: (round(value, 6), sensor.is_total)
        for sensor, value in zip(sensors, meter.watts(), strict=True)
    }


def test_an_orins_total_is_vdd_in_and_the_sum_of_shunts_is_no_rail(tmp_path: Path) -> None:
    assert watts(write(tmp_path, ORIN_6)) == {
        "VDD_IN": (5.0, True),
        "VDD_CPU_GPU_CV": (2.0, False),
        "VDD_SOC": (1.0, False),
    }


def test_without_a_rail_that_holds_all_the_total_is_their_sum_and_nc_is_none(tmp_path: Path) -> None:
    assert watts(write(tmp_path, ORIN_7)) == {
        "VDD_GPU_SOC": (6.0, True),
        "VDD_CPU_CV": (2.0, True),
        "VIN_SYS_5V0": (4.0, True),
        "VDDQ_VDD2_1V8AO": (0.5, True),
    }


def test_a_thor_has_its_own_rails(tmp_path: Path) -> None:
    assert watts(write(tmp_path, THOR)) == {
        "VDD_GPU": (18.0, True),
        "VDD_CPU_SOC_MSS": (12.0, True),
        "VIN_SYS_5V0": (3.0, True),
    }


def test_a_jetsons_rails_hold_its_gpu_so_that_nvml_is_not_added(tmp_path: Path) -> None:
    nvml = Nvml(FakeLibrary(PowerUsage=15_000))
    assert "NVIDIA Test" not in watts(write(tmp_path, THOR), nvml)


def test_power_that_changes_is_added_up_by_trapezoids(tmp_path: Path) -> None:
    root = write(tmp_path, ORIN_6)
    sensors, _ = find_sensors(root)
    meter = PowerMeter(sensors, root)
    meter.sample(0.0)
    current = root / "sys/bus/i2c/devices/1-0040/hwmon/hwmon1/curr1_input"
    current.write_text("3000\n")
    meter.sample(2.0)
    assert meter.watts()[0] == pytest.approx(10.0)  # from 5 to 15 W


def test_rapl_counts_over_its_end_and_only_whole_packages(tmp_path: Path) -> None:
    root = write(tmp_path, RAPL)
    sensors, _ = find_sensors(root)
    meter = PowerMeter(sensors, root)
    meter.sample(10.0)
    (root / "sys/class/powercap/intel-rapl:0/energy_uj").write_text("400000\n")
    meter.sample(10.5)
    assert [(sensor.name, sensor.source) for sensor in sensors] == [("package-0", "rapl")]
    assert meter.watts() == pytest.approx([1.0])  # 0.5 J in half a second


def test_rapl_that_only_root_reads_says_how_to_open_it(tmp_path: Path) -> None:
    tree = {name: text for name, text in RAPL.items() if "energy_uj" not in name}
    sensors, why = find_sensors(write(tmp_path, tree))
    assert sensors == []
    assert why is not None
    assert "chmod a+r" in why


def test_a_machine_without_sensors_says_so(tmp_path: Path) -> None:
    assert find_sensors(tmp_path)[1] == (
        "no sensor of power: no INA3221, no NVML, no RAPL (a virtual machine has none)"
    )


def test_a_card_with_a_counter_is_read_by_it(tmp_path: Path) -> None:
    library = FakeLibrary(PowerUsage=100_000, TotalEnergyConsumption=1_000)
    nvml = Nvml(library)
    meter = PowerMeter(find_sensors(tmp_path, nvml)[0], tmp_path, nvml)
    meter.sample(0.0)
    library.answers["TotalEnergyConsumption"] = 31_000
    meter.sample(0.5)
    assert meter.watts() == pytest.approx([60.0])


def test_a_card_without_a_counter_is_read_by_its_power(tmp_path: Path) -> None:
    assert watts(tmp_path, Nvml(FakeLibrary(PowerUsage=75_000))) == {"NVIDIA Test": (75.0, True)}


def test_a_card_tells_clocks_temperature_and_why_it_is_slow() -> None:
    nvml = Nvml(
        FakeLibrary(
            ClockInfo_1=1410, MaxClockInfo_1=1980, Temperature_0=63, CurrentClocksThrottleReasons=0x24
        )
    )
    assert nvml.clocks() == [Clock(name="nvml sm", min_mhz=None, now_mhz=1410, max_mhz=1980)]
    assert nvml.temperatures() == {"nvml gpu": 63.0}
    assert nvml.throttling() == {
        "nvml power cap": 1,
        "nvml hardware slowdown": 0,
        "nvml thermal slowdown": 1,
        "nvml hardware thermal slowdown": 0,
        "nvml hardware power brake": 0,
    }


def test_a_card_that_answers_nothing_tells_nothing() -> None:
    nvml = Nvml(FakeLibrary())
    assert (nvml.watts(), nvml.joules(), nvml.clocks(), nvml.temperatures(), nvml.throttling()) == (
        None,
        None,
        [],
        {},
        {},
    )


def test_without_the_drivers_library_there_is_no_card() -> None:
    assert open_nvml("libno-such-library.so.1") is None


def test_energy_a_decision_is_above_the_baseline_of_the_total_rail(tmp_path: Path) -> None:
    sensors, _ = find_sensors(write(tmp_path, ORIN_6))
    power = energy(sensors, [5.0, 1.0, 1.0], [8.0, 3.0, 1.5], 30.0, None)
    assert (power.mj_per_decision, power.total_mj_per_decision) == (100.0, 266.667)


def test_power_counts_only_within_the_stretches(tmp_path: Path) -> None:
    root = write(tmp_path, ORIN_6)
    meter = PowerMeter(find_sensors(root)[0], root)
    current = root / "sys/bus/i2c/devices/1-0040/hwmon/hwmon1/curr1_input"
    for now_s, milliamperes in ((0.0, 1000), (1.0, 1000), (2.0, 4000), (3.0, 4000), (4.0, 1000)):
        current.write_text(f"{milliamperes}\n")
        meter.sample(now_s)
    assert meter.watts([(2.0, 3.0)])[0] == pytest.approx(20.0)


def test_clocks_and_heat_between_are_kept(tmp_path: Path) -> None:
    root = write(tmp_path, ORIN_6)
    meter = PowerMeter([], root)
    meter.sample(0.0)
    write(
        root,
        {
            "sys/class/devfreq/17000000.gpu/cur_freq": "918000000\n",
            "sys/class/thermal/thermal_zone0/temp": "61000\n",
        },
    )
    write(root, {"sys/class/thermal/cooling_device1/cur_state": "2\n"})
    meter.sample(1.0)
    assert meter.during.clocks_mhz == {"policy0": (1113, 1113), "17000000.gpu": (306, 918)}
    assert meter.during.hottest_c == 61.0
    assert meter.during.throttled["cooling devfreq-17000000.gpu"] == 2


def write_proc(root: Path, busy: int, stolen: int, ours: dict[int, int]) -> None:
    """/proc of a machine: ticks that its cores were busy, that its host took, and that processes used."""
    files = {"stat": f"cpu  {busy} 0 0 900 0 0 0 {stolen} 0 0\n"}
    files |= {f"{pid}/stat": f"{pid} (a b) S {' '.join(['0'] * 10)} {n} 0\n" for pid, n in ours.items()}
    write(root, files)


def test_load_is_told_apart_into_ours_others_and_what_a_host_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_ns = iter([0, 2_000_000_000])
    monkeypatch.setattr("velora_runtime.bench.meters.time.monotonic_ns", lambda: next(now_ns))
    monkeypatch.setattr("velora_runtime.bench.meters.os.sysconf", lambda name: 100)
    me = os.getpid()
    meter = LoadMeter({"session": 7}, tmp_path)
    write_proc(tmp_path, 1000, 50, {7: 100, me: 10})
    meter.sample()
    write_proc(tmp_path, 1300, 90, {7: 220, me: 30})
    meter.sample()
    load = meter.between(0, 2_000_000_000)
    assert load == Load({"session": 0.6, "bench": 0.1}, others=0.8, taken=0.2)


def test_a_process_that_has_ended_used_what_it_had_used(tmp_path: Path) -> None:
    meter = LoadMeter({"session": 7}, tmp_path)
    write_proc(tmp_path, 100, 0, {7: 50, os.getpid(): 0})
    meter.sample()
    (tmp_path / "7" / "stat").unlink()
    meter.sample()
    assert meter.between(0, 2**62).cores["session"] == 0.0


def test_load_is_not_known_where_proc_does_not_tell(tmp_path: Path) -> None:
    meter = LoadMeter({}, tmp_path / "nothing")
    meter.sample()
    assert meter.between(0, 2**62) == Load()
