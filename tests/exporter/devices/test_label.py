"""What a device says of itself is read from files as a board's kernel writes them; what is not there is None."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.devices import label


def written(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


RASPBERRY = {
    "proc/device-tree/model": b"Raspberry Pi 4 Model B Rev 1.4\0",
    "proc/device-tree/compatible": b"raspberrypi,4-model-b\0brcm,bcm2711\0",
    "proc/cpuinfo": "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n\nprocessor\t: 1\n"
    "CPU implementer\t: 0x41\nCPU part\t: 0xd08\n\nHardware\t: BCM2835\n",
    "proc/meminfo": "MemTotal:        3884360 kB\nMemAvailable:    3000000 kB\n",
    "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian"\n',
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "61341\n",
    "sys/class/thermal/thermal_zone1/temp": "-200000\n",
    "sys/class/thermal/cooling_device0/cur_state": "2\n",
    "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "600000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "1800000\n",
}


def test_a_raspberry(tmp_path: Path) -> None:
    root = written(tmp_path, RASPBERRY)
    facts, moment = label.facts(root), label.moment(root)
    assert (facts["model"], facts["soc"]) == ("Raspberry Pi 4 Model B Rev 1.4", "brcm,bcm2711")
    assert facts["cpu"] == "Cortex-A72" and facts["memory_mb"] == 3793
    assert facts["os"] == "Debian GNU/Linux 12 (bookworm)"
    assert moment["governor"] == "ondemand" and (moment["mhz"], moment["most_mhz"]) == (600, 1800)
    assert moment["zones"] == {"cpu-thermal": 61.341} and moment["celsius"] == 61.341
    assert moment["throttled"] == {"firmware flags": 0x50005, "cooling devices active": 1}


def test_cores_of_two_kinds_and_of_none_that_is_known(tmp_path: Path) -> None:
    cores = [("41", "d03"), ("41", "d0b"), ("51", "804"), ("4e", "004")]
    text = "\n".join(f"CPU implementer\t: 0x{maker}\nCPU part\t: 0x{part}\n" for maker, part in cores)
    root = written(tmp_path, {"proc/cpuinfo": text})
    assert label.facts(root)["cpu"] == "Cortex-A53 + Cortex-A76 + implementer 0x51 part 0x804 + Carmel"


def test_a_server(tmp_path: Path) -> None:
    files = {"sys/class/dmi/id/sys_vendor": "Maker\n", "sys/class/dmi/id/product_name": "Box 9\n",
             "proc/cpuinfo": "model name\t: A Processor\n",
             "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "7\n",
             "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "4\n"}  # fmt: skip
    root = written(tmp_path, files)
    assert (label.facts(root)["model"], label.facts(root)["cpu"]) == ("Maker Box 9", "A Processor")
    assert label.moment(root)["throttled"] == {"core events": 11}


def test_what_is_not_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANDROID_ROOT", raising=False)
    facts, moment = label.facts(tmp_path), label.moment(tmp_path)
    assert [facts[name] for name in ("model", "soc", "cpu", "memory_mb", "os")] == [None] * 5
    assert all(not value for value in moment.values()), moment


def test_a_phone_in_termux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANDROID_ROOT", "/system")
    monkeypatch.setenv("TERMUX_VERSION", "0.118.3")
    assert label.facts(tmp_path)["os"] == "Android, Termux 0.118.3"
