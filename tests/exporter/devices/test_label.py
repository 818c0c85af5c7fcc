"""What a device says of itself is read from files as a board's kernel writes them; what is not there is None."""

from __future__ import annotations

import copy
import os
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from exporter.devices import commands, label
from exporter.latency import environment
from exporter.latency.subjects import Extras


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
    "sys/class/thermal/cooling_device0/type": "thermal-cpufreq-0\n",
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
    assert moment["throttled"] == {
        "firmware now": "under-voltage + throttled", "firmware since boot": "under-voltage + throttled",
        "processors cooled by slowing": 1,
    }  # fmt: skip


def test_a_fan_that_turns_slows_nothing_down(tmp_path: Path) -> None:
    """Of a Raspberry Pi 5, whose firmware lies elsewhere, and of a server."""
    devices = [("pwm-fan", 3), ("intel_powerclamp", -1), ("Processor", 0), ("cpufreq-cpu0", 0), ("devfreq-gpu", 0)]
    files: dict[str, str | bytes] = {"sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled": "0\n"}
    for number, (kind, state) in enumerate(devices):
        files |= {f"sys/class/thermal/cooling_device{number}/type": f"{kind}\n",
                  f"sys/class/thermal/cooling_device{number}/cur_state": f"{state}\n"}  # fmt: skip
    assert label.moment(written(tmp_path, files))["throttled"] == {
        "firmware now": "nothing", "firmware since boot": "nothing", "processors cooled by slowing": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({label.EVENTS: 7}, {label.EVENTS: 9}, "core events since boot rose from 7 to 9"),
        ({label.QUOTA: 7}, {label.QUOTA: 8}, "microseconds held rose from 7 to 8"),
        ({label.COOLED: 0}, {label.COOLED: 2}, "processors cooled by slowing 2"),
        ({label.NOW: "nothing", label.SINCE_BOOT: "nothing"}, {label.NOW: "nothing", label.SINCE_BOOT: "throttled"},
         "its firmware says nothing, and since boot throttled"),
        ({label.EVENTS: 7, label.SINCE_BOOT: "throttled"}, {label.EVENTS: 7, label.SINCE_BOOT: "throttled"}, ""),
        ({label.EVENTS: "7"}, {label.EVENTS: 8}, ""),
        (None, None, ""),
        ([], "x", ""),
    ],
)  # fmt: skip
def test_clocks_that_were_held_down_meanwhile_are_told(before: object, after: object, said: str) -> None:
    warned = label.held_back({"throttled": before}, {"throttled": after})
    assert (warned is not None) == bool(said) and (warned is None or said in warned.what)


def test_a_profile_warns_of_clocks_that_were_held_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = {"schema": "exporter.profile/1", "stability": "STABLE", "noise_floor": None, "subjects": [], "ratios": [],
             "warnings": [], "environment": {}}  # fmt: skip
    moments = iter([{"throttled": {label.EVENTS: 1}}, {"throttled": {label.EVENTS: 2}}])
    held = SimpleNamespace(
        label="h", moment=lambda everything=False: {"moment": next(moments)},
        work=lambda *_: {"shown": copy.deepcopy(empty), "kept": copy.deepcopy(empty)},
    )  # fmt: skip
    kept: dict[str, dict[str, Any]] = {}
    bundle = SimpleNamespace(manifest=SimpleNamespace(targets={}))
    monkeypatch.setattr(commands, "Bundle", SimpleNamespace(open=lambda _: bundle))
    monkeypatch.setattr(commands, "shipping", SimpleNamespace(to_profile=lambda *_: None))
    monkeypatch.setattr(commands, "chosen", lambda *_: [])
    monkeypatch.setattr(commands, "session", lambda *_: nullcontext(held))
    monkeypatch.setattr(commands, "save_report", lambda *given: kept.update({f"{given[1]}-{given[5]}": given[4]}))
    shown = commands.profile("ssh://h", tmp_path, (), {"extras": Extras(layers=True).as_json()}, save=True)
    assert list(kept) == ["profile.layers-h"]
    for value in (shown, *kept.values()):
        assert [warning["code"] for warning in value["warnings"]] == ["held-back"]


def test_cores_of_two_kinds_and_of_none_that_is_known(tmp_path: Path) -> None:
    cores = [("41", "d03"), ("41", "d0b"), ("51", "804"), ("4e", "004")]
    text = "\n".join(f"CPU implementer\t: 0x{maker}\nCPU part\t: 0x{part}\n" for maker, part in cores)
    root = written(tmp_path, {"proc/cpuinfo": text})
    assert label.facts(root)["cpu"] == "Cortex-A53 + Cortex-A76 + implementer 0x51 part 0x804 + Carmel"


def test_a_profile_that_was_taken_on_a_board_names_it(tmp_path: Path) -> None:
    text = "CPU implementer\t: 0x41\nCPU part\t: 0xd0b\n"
    root = written(tmp_path, {"proc/cpuinfo": text, "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0"})
    assert environment.read(root=root).cpu == "Cortex-A76 of Raspberry Pi 5 Model B Rev 1.0"
    assert (label.facts(root)["cpu"], label.facts(root)["model"]) == ("Cortex-A76", "Raspberry Pi 5 Model B Rev 1.0")
    assert environment.read(root=tmp_path / "none").cpu is None


def test_a_server(tmp_path: Path) -> None:
    files = {"sys/class/dmi/id/sys_vendor": "Maker\n", "sys/class/dmi/id/product_name": "Box 9\n",
             "proc/cpuinfo": "model name\t: A Processor\n",
             "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "7\n",
             "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "4\n"}  # fmt: skip
    root = written(tmp_path, files)
    assert (label.facts(root)["model"], label.facts(root)["cpu"]) == ("Maker Box 9", "A Processor")
    assert label.moment(root)["throttled"] == {"core events since boot": 11}


def test_what_is_not_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANDROID_ROOT", raising=False)
    facts, moment = label.facts(tmp_path), label.moment(tmp_path)
    assert [facts[name] for name in ("model", "soc", "cpu", "memory_mb", "os")] == [None] * 5
    assert all(not value for value in moment.values()), moment


def test_a_phone_in_termux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANDROID_ROOT", "/system")
    monkeypatch.setenv("TERMUX_VERSION", "0.118.3")
    assert label.facts(tmp_path)["os"] == "Android, Termux 0.118.3"


@pytest.mark.parametrize(
    ("script", "model", "soc"),
    [
        (
            'case $1 in ro.product.*) echo "${1##*.} 8";; ro.soc.model) echo SM8550;; esac',
            "manufacturer 8 model 8",
            "SM8550",
        ),
        ("[ $1 = ro.board.platform ] && echo kona", None, "kona"),
        ("exec sleep 60", None, None),
        ("kill -9 $$", None, None),
    ],
)
def test_an_android_is_asked_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, model: str | None, soc: str | None
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "getprop").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "bin" / "getprop").chmod(0o755)
    monkeypatch.setattr(label, "PROPERTY_SECONDS", 0.5)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("ANDROID_ROOT", "/system")
    assert (label.facts(tmp_path)["model"], label.facts(tmp_path)["soc"]) == (model, soc)
    monkeypatch.delenv("ANDROID_ROOT")
    assert label.facts(tmp_path)["model"] is None, "nobody else is asked"


def test_an_android_that_cannot_be_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("ANDROID_ROOT", str(tmp_path))
    assert label.facts(tmp_path)["model"] is None
