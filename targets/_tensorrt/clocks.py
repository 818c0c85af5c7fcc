"""What a GPU's timings depend on: clocks, temperature, power and what holds them down. Read, never changed.

A discrete GPU is asked through ``nvidia-smi``, which comes with every driver; a Jetson's integrated one through the
files of its kernel (https://docs.nvidia.com/jetson/), where there is no ``nvidia-smi`` or it says nothing.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

FIELDS = ("clocks.sm", "clocks.max.sm", "clocks.mem", "temperature.gpu", "power.draw", "power.limit", "pstate",
          "persistence_mode", "clocks_event_reasons.active")  # fmt: skip
# The name of the last field before driver 535; newer drivers still know it.
OLDER = "clocks_throttle_reasons.active"
SECONDS = 10

# https://docs.nvidia.com/deploy/nvml-api/group__nvmlClocksEventReasons.html
HOLDING = {0x04: "the power cap", 0x08: "a hardware slowdown", 0x20: "software for heat", 0x40: "hardware for heat",
           0x80: "the power brake"}  # fmt: skip
ROOT = Path("/")


def conditions(uuid: str, root: Path = ROOT) -> dict[str, Any]:
    """The GPU's state now, and what of it makes timings worse, each with a line of advice under ``problems``."""
    found = _discrete(uuid) or _integrated(root)
    return {**found, "problems": _problems(found)} if found else {}


def _discrete(uuid: str) -> dict[str, Any]:
    """What ``nvidia-smi`` says; nothing where there is none, or it cannot say."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return {}
    for last in (FIELDS[-1], OLDER):
        names = [*FIELDS[:-1], last]
        words = [program, f"--query-gpu={','.join(names)}", "--format=csv,noheader,nounits", f"--id={uuid}"]
        with suppress(OSError, subprocess.SubprocessError):
            said = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=True).stdout
            values = [value.strip() for value in said.strip().split(",")]
            if len(values) == len(FIELDS):
                return _named(values)
    return {}


def _named(values: list[str]) -> dict[str, Any]:
    numbers = ("clock_mhz", "max_clock_mhz", "memory_clock_mhz", "celsius", "watts", "watts_allowed")
    found: dict[str, Any] = {name: _number(value) for name, value in zip(numbers, values, strict=False)}
    active = int(values[-1], 16) if values[-1].startswith("0x") else 0
    held = [reason for bit, reason in HOLDING.items() if active & bit]
    return found | {"state": values[6], "persistent": values[7] == "Enabled", "held_down_by": held}


def _number(text: str) -> float | None:
    with suppress(ValueError):
        return float(text)
    return None


def _integrated(root: Path) -> dict[str, Any]:
    """A Jetson: its GPU's frequency, its power mode, the hottest of its sensors."""
    for folder in sorted((root / "sys/class/devfreq").glob("*")):
        if "gpu" in folder.name or folder.name.endswith((".gv11b", ".ga10b", ".gp10b")):
            hertz, most = (_read(folder / name) for name in ("cur_freq", "max_freq"))
            heat = [_read(path) for path in (root / "sys/class/thermal").glob("thermal_zone*/temp")]
            return {
                "clock_mhz": hertz / 1e6 if hertz else None,
                "max_clock_mhz": most / 1e6 if most else None,
                "celsius": max((t / 1000 for t in heat if t and 0 < t < 150_000), default=None),
                "power_mode": _power_mode(root),
                "held_down_by": [],
            }
    return {}


def _power_mode(root: Path) -> str | None:
    """``pmode:0002`` of the file that ``nvpmodel`` keeps."""
    with suppress(OSError):
        return (root / "var/lib/nvpmodel/status").read_text(encoding="utf-8").strip().rpartition(":")[2]
    return None


def _read(path: Path) -> float | None:
    with suppress(OSError, ValueError):
        return float(path.read_text(encoding="utf-8"))
    return None


def _problems(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    problems = [(f"its clock is held down by {reason}", "cool it, or allow it more power, and repeat")
                for reason in found["held_down_by"]]  # fmt: skip
    clock, most = found.get("clock_mhz"), found.get("max_clock_mhz")
    if found.get("persistent") is False:
        problems.append(("the driver unloads between runs", "sudo nvidia-smi --persistence-mode=1, and repeat"))
    if "power_mode" in found and clock and most and clock < most:
        advice = "sudo jetson_clocks holds it at its highest, in the power mode you deploy in"
        problems.append((f"its clock is at {clock:.0f} of {most:.0f} MHz and moves with the load", advice))
    return problems
