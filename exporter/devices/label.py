"""What a device is, and how it fares: read there, never changed. What cannot be read is None, and said to be absent."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from exporter.latency import environment, processor
from exporter.latency.environment import Warned

ROOT = Path("/")
PROPERTY_SECONDS = 2.0
# What holds clocks down, as it is told: counters since boot, and what is so at the moment.
EVENTS, QUOTA = "core events since boot", "control group, microseconds held"
COOLED, NOW, SINCE_BOOT = "processors cooled by slowing", "firmware now", "firmware since boot"
FIRMWARE, NOTHING = ("under-voltage", "frequency capped", "throttled", "soft temperature limit"), "nothing"
# What cools by slowing a processor down; a fan does not, and intel_powerclamp is there on any machine.
PROCESSOR = re.compile(r"cpu|gpu|processor|devfreq", re.IGNORECASE)


def facts(root: Path = ROOT) -> dict[str, Any]:
    """What does not change while something runs.

    Args:
        root: where ``proc``, ``sys`` and ``etc`` lie.
    """
    known = environment.read(root=root)
    return {
        "model": _model(root),
        "soc": _soc(root),
        "cpu": processor.name(root),
        "cores": known.cores,
        "memory_mb": known.memory_mb,
        "os": _system(root),
        "kernel": f"{known.kernel} {platform.machine()}",
        "python": known.python,
    }


def moment(root: Path = ROOT) -> dict[str, Any]:
    """What does: governor, clocks, temperatures, and whether anything holds the clocks down."""
    known, cpus = environment.read(root=root), root / "sys/devices/system/cpu"
    clocks = [_whole(path) for path in cpus.glob("cpu[0-9]*/cpufreq/scaling_cur_freq")]
    most = [_whole(path) for path in cpus.glob("cpu[0-9]*/cpufreq/cpuinfo_max_freq")]
    return {
        "governor": known.governor,
        "mhz": max((clock for clock in clocks if clock), default=0) // 1000 or None,
        "most_mhz": max((clock for clock in most if clock), default=0) // 1000 or None,
        "celsius": known.celsius,
        "zones": _zones(root),
        "throttled": _throttled(root),
        "load": known.load,
    }


def _text(path: Path) -> str:
    """A file's text, without the NUL at the end of what a device tree holds; nothing where there is none."""
    with suppress(OSError):
        return path.read_bytes()[:4096].decode("utf-8", "replace").strip("\0 \n")
    return ""


def _whole(path: Path, base: int = 10) -> int | None:
    with suppress(ValueError):
        return int(_text(path), base)
    return None


def _model(root: Path) -> str | None:
    tree = _text(root / "proc/device-tree/model")
    dmi = " ".join(filter(None, (_text(root / f"sys/class/dmi/id/{name}") for name in ("sys_vendor", "product_name"))))
    return _android("ro.product.manufacturer", "ro.product.model") or tree or dmi or None


def _soc(root: Path) -> str | None:
    """The chip: the last, most general entry of what a board is compatible with, such as ``brcm,bcm2711``."""
    names = [name for name in _text(root / "proc/device-tree/compatible").split("\0") if name]
    told = " ".join(
        filter(None, (_text(root / f"sys/devices/soc0/{name}") for name in ("family", "machine", "soc_id")))
    )
    hardware = re.search(r"^Hardware\s*:\s*(.+)$", _text(root / "proc/cpuinfo"), re.MULTILINE)
    files = (names[-1] if names else "") or told or (hardware.group(1).strip() if hardware else None)
    return _android("ro.soc.model") or _android("ro.board.platform") or files


def _android(*names: str) -> str:
    """Properties of an Android, which lets no app read what a kernel tells of a board; nothing elsewhere."""
    root = os.environ.get("ANDROID_ROOT")
    return " ".join(filter(None, (_property(root, name) for name in names))) if root else ""


def _property(root: str, name: str) -> str:
    program = shutil.which("getprop") or f"{root}/bin/getprop"
    with suppress(OSError, subprocess.SubprocessError):
        told = subprocess.run(
            [program, name], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            timeout=PROPERTY_SECONDS, check=False,
        ).stdout  # fmt: skip
        return told.decode("utf-8", "replace").strip()[:200]
    return ""


def _system(root: Path) -> str | None:
    name = re.search(r'^PRETTY_NAME="?([^"\n]+)', _text(root / "etc/os-release"), re.MULTILINE)
    if name:
        return name.group(1)
    android = os.environ.get("ANDROID_ROOT")
    return (
        "Android" + (f", Termux {os.environ['TERMUX_VERSION']}" if "TERMUX_VERSION" in os.environ else "")
        if android
        else None
    )


def _zones(root: Path) -> dict[str, float]:
    """Every sensor by its name, in degrees Celsius."""
    found: dict[str, float] = {}
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        value = _whole(zone / "temp")
        if value is not None and 0 < value < 150_000:
            found[_text(zone / "type") or zone.name] = value / 1000
    return found


def _throttled(root: Path) -> dict[str, int | str] | None:
    """Counters and flags of clocks held down, by what reports them; None where nothing does."""
    found: dict[str, int | str] = _firmware(root)
    counts = [
        _whole(path)
        for path in (root / "sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle/core_throttle_count")
    ]
    if any(count is not None for count in counts):
        found[EVENTS] = sum(count or 0 for count in counts)
    cooling = [
        _whole(device / "cur_state")
        for device in (root / "sys/class/thermal").glob("cooling_device*")
        if PROCESSOR.search(_text(device / "type"))
    ]
    if any(state is not None for state in cooling):
        found[COOLED] = sum(state is not None and state > 0 for state in cooling)
    quota = environment.throttling(root)
    if quota is not None:
        found[QUOTA] = quota.throttled_us
    return found or None


def _firmware(root: Path) -> dict[str, int | str]:
    """What a Raspberry Pi's firmware says in bits: in the lower half what is now, in the upper what was since boot."""
    for path in (root / "sys/devices/platform").glob("soc*/soc*firmware/get_throttled"):
        flags = _whole(path, 16)
        if flags is not None:
            return {NOW: _worded(flags), SINCE_BOOT: _worded(flags >> 16)}
    return {}


def _worded(flags: int) -> str:
    return " + ".join(word for bit, word in enumerate(FIRMWARE) if flags >> bit & 1) or NOTHING


def held_back(before: Mapping[str, Any], after: Mapping[str, Any]) -> Warned | None:
    """What held the clocks down between two moments of a device; None where it reports nothing of it."""
    was, now = (told if isinstance(told := moment.get("throttled"), dict) else {} for moment in (before, after))
    grown = [
        f"{name} rose from {was[name]} to {now[name]}"
        for name in (EVENTS, QUOTA)
        if isinstance(was.get(name), int) and isinstance(now.get(name), int) and now[name] > was[name]
    ]
    if now.get(NOW, NOTHING) != NOTHING or now.get(SINCE_BOOT) != was.get(SINCE_BOOT):
        grown.append(f"its firmware says {now.get(NOW)}, and since boot {now.get(SINCE_BOOT)}")
    if now.get(COOLED):
        grown.append(f"{COOLED} {now[COOLED]}")
    advice = "cool it, or give it a stronger supply; --sustained 60s shows when it slows down"
    return Warned("held-back", f"the device's clocks were held down: {', '.join(grown)}", advice) if grown else None
