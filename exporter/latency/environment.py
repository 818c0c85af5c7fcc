"""What a timing depends on beside the code: read, never changed. Each bad item is a warning with one line of advice.

Every fact that cannot be read here is None; nothing in this module raises because a machine is unlike another.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from exporter.latency import processor

P = ParamSpec("P")
T = TypeVar("T")

ROOT = Path("/")
HOT_CELSIUS = 85.0
LITTLE_MEMORY = 0.10


@dataclass(frozen=True)
class Warned:
    """One thing that makes timings worse or less repeatable, and what a person may do about it."""

    code: str
    what: str
    advice: str

    def as_json(self) -> dict[str, str]:
        """The warning as ``--json`` prints it."""
        return {"code": self.code, "what": self.what, "advice": self.advice}


@dataclass(frozen=True)
class Throttling:
    """The counters of the control group's CPU quota."""

    periods: int
    throttled: int
    throttled_us: int


@dataclass(frozen=True)
class Environment:
    """The machine at one moment.

    Attributes:
        cpu: model name.
        cores: logical cores of the machine.
        usable_cores: those this process may run on.
        governor: frequency governors in use, joined by ``+``.
        turbo: whether boost clocks are on.
        quota_cores: cores' worth of time the control group grants per period; None is no limit.
        throttling: the quota's counters.
        load: load average over the last minute.
        runnable: threads that want to run right now, this one included.
        memory_mb: memory of the machine.
        free_mb: memory that can still be had.
        on_battery: whether a battery feeds the machine.
        celsius: the hottest sensor.
        kernel: name and release of the kernel.
        python: version of the interpreter.
        packages: versions of the packages asked for that are installed.
    """

    cpu: str | None
    cores: int | None
    usable_cores: int | None
    governor: str | None
    turbo: bool | None
    quota_cores: float | None
    throttling: Throttling | None
    load: float | None
    runnable: int | None
    memory_mb: int | None
    free_mb: int | None
    on_battery: bool | None
    celsius: float | None
    kernel: str
    python: str
    packages: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        """The facts as ``--json`` prints them."""
        return asdict(self)


def read(packages: Sequence[str] = (), root: Path = ROOT) -> Environment:
    """The facts of this machine, now.

    Args:
        packages: distributions whose versions are of interest; those not installed are left out.
        root: where ``proc`` and ``sys`` lie.
    """
    proc, devices = root / "proc", root / "sys/devices/system/cpu"
    memory = _attempt(_fields, proc / "meminfo") or {}
    load = _attempt(_words, proc / "loadavg") or []
    return Environment(
        cpu=processor.machine(root),
        cores=os.cpu_count(),
        usable_cores=usable_cores(),
        governor=_governor(devices),
        turbo=_turbo(devices),
        quota_cores=_quota(root),
        throttling=throttling(root),
        load=_attempt(lambda: float(load[0])),
        runnable=_attempt(lambda: int(load[3].split("/")[0])),
        memory_mb=_attempt(lambda: int(memory["MemTotal"].split()[0]) // 1024),
        free_mb=_attempt(lambda: int(memory["MemAvailable"].split()[0]) // 1024),
        on_battery=_on_battery(root / "sys/class/power_supply"),
        celsius=hottest(root),
        kernel=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        packages=installed(packages),
    )


def usable_cores() -> int:
    """Logical cores this process may run on: the thread count that is fair to every runtime."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def installed(packages: Sequence[str]) -> dict[str, str]:
    """Versions of those packages that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def throttling(root: Path = ROOT) -> Throttling | None:
    """The quota's counters of our control group, in either version of the interface."""
    for folder in _cgroup_folders(root, "cpu"):
        found = _attempt(_counters, folder / "cpu.stat")
        if found is not None:
            return found
    return None


def _counters(path: Path) -> Throttling:
    words = _words(path)
    stat = dict(zip(words[::2], map(int, words[1::2]), strict=True))
    # Version 2 counts microseconds, version 1 nanoseconds.
    micros = stat["throttled_usec"] if "throttled_usec" in stat else stat["throttled_time"] // 1000
    return Throttling(stat["nr_periods"], stat["nr_throttled"], micros)


def throttled_us(before: Throttling | None, after: Throttling | None) -> float:
    """How long the quota held us back between two readings."""
    return float(after.throttled_us - before.throttled_us) if before and after else 0.0


def warnings(facts: Environment, threads: int) -> list[Warned]:
    """Everything about a machine that makes timings worse or less repeatable.

    Args:
        facts: the machine before anything of ours runs.
        threads: how many threads each subject will use.
    """
    found = (_on_clocks(facts), _on_quota(facts, threads), _on_load(facts), _on_heat(facts), _on_memory(facts))
    return [warned for group in found for warned in group]


def _on_clocks(facts: Environment) -> list[Warned]:
    found = []
    if facts.governor not in (None, "performance"):
        advice = "sudo cpupower frequency-set -g performance (this tool never changes settings)"
        found.append(Warned("governor", f"the frequency governor is {facts.governor}", advice))
    if facts.turbo:
        advice = "for repeatable figures switch boost off in firmware or sysfs; leave it on to see what users get"
        found.append(Warned("turbo", "boost clocks are on: speed depends on heat and on what else runs", advice))
    if facts.on_battery:
        found.append(Warned("battery", "the machine runs on battery", "connect it to power"))
    return found


def _on_quota(facts: Environment, threads: int) -> list[Warned]:
    found = []
    if facts.quota_cores is not None and facts.quota_cores < threads:
        what = f"the control group grants {facts.quota_cores:g} cores for {threads} threads"
        found.append(Warned("quota", what, "raise the quota, or profile with as many threads as it grants"))
    if facts.usable_cores is not None and facts.usable_cores < threads:
        what = f"{threads} threads on {facts.usable_cores} usable cores"
        found.append(Warned("threads", what, f"profile with at most {facts.usable_cores} threads"))
    return found


def _on_load(facts: Environment) -> list[Warned]:
    cores = facts.usable_cores or 1
    # The reading process is itself runnable; a load under a tenth of a core per core is the machine's own pulse.
    busy = facts.load is not None and facts.load > 0.1 * cores + 0.4
    others = facts.runnable is not None and facts.runnable > cores
    if not busy and not others:
        return []
    what = f"load {facts.load} and {facts.runnable} runnable threads on {cores} cores before anything was timed"
    return [Warned("load", what, "stop other work, or repeat when the machine is idle")]


def _on_heat(facts: Environment) -> list[Warned]:
    if facts.celsius is None or facts.celsius < HOT_CELSIUS:
        return []
    return [Warned("hot", f"a sensor reads {facts.celsius:.0f} degrees Celsius", "let the machine cool down first")]


def _on_memory(facts: Environment) -> list[Warned]:
    if not facts.memory_mb or facts.free_mb is None or facts.free_mb > LITTLE_MEMORY * facts.memory_mb:
        return []
    what = f"{facts.free_mb} MB of {facts.memory_mb} MB are free"
    return [Warned("memory", what, "free memory: a machine that swaps times its disk")]


def _attempt(reading: Callable[P, T], *of: P.args, **how: P.kwargs) -> T | None:
    """What a reading gives, or None where this machine has no such thing."""
    try:
        return reading(*of, **how)
    except (OSError, ValueError, KeyError, IndexError):
        return None


def _number(path: Path) -> int | None:
    """The first word of a file, if that is a number."""
    return _attempt(lambda: int(_words(path)[0]))


def _words(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").split()


def _fields(path: Path) -> dict[str, str]:
    """The ``name: value`` lines of a file of ``/proc``; the first of a name stands."""
    found: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, value = line.partition(":")
        found.setdefault(name.strip(), value.strip())
    return found


def _governor(devices: Path) -> str | None:
    read_all = [_attempt(_words, path) for path in devices.glob("cpu[0-9]*/cpufreq/scaling_governor")]
    return "+".join(sorted({words[0] for words in read_all if words})) or None


def _turbo(devices: Path) -> bool | None:
    off = _number(devices / "intel_pstate/no_turbo")
    if off is not None:
        return off == 0
    on = _number(devices / "cpufreq/boost")
    return None if on is None else on == 1


def _cgroup_folders(root: Path, controller: str) -> list[Path]:
    """Where our control group's files may lie: our own path first, then the root of what this container sees."""
    base = root / "sys/fs/cgroup"
    found = []
    for line in _attempt(lambda: (root / "proc/self/cgroup").read_text().splitlines()) or []:
        _, names, path = [*line.split(":", 2), "", ""][:3]
        if not names:
            found += [base / path.lstrip("/")]
        elif controller in names.split(","):
            found += [base / names / path.lstrip("/"), base / controller / path.lstrip("/")]
    return [*found, base, base / controller, base / "cpu,cpuacct"]


def _quota(root: Path) -> float | None:
    """Cores' worth of time per period that our own group is granted; limits of groups above it are not searched."""
    for folder in _cgroup_folders(root, "cpu"):
        limit = _attempt(_words, folder / "cpu.max")
        if limit:
            return None if limit[0] == "max" else int(limit[0]) / int(limit[1])
        micros, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        if micros is not None and period:
            return micros / period if micros > 0 else None
    return None


def _on_battery(supplies: Path) -> bool | None:
    mains = [_number(path) for path in supplies.glob("*/online")]
    known = [online for online in mains if online is not None]
    return not any(known) if known else None


def hottest(root: Path = ROOT) -> float | None:
    """What the hottest sensor reads, in degrees Celsius."""
    classes = root / "sys/class"
    sensors = [*classes.glob("thermal/thermal_zone*/temp"), *classes.glob("hwmon/hwmon*/temp*_input")]
    readings = [_number(path) for path in sensors]
    # In thousandths of a degree; absent sensors read as zero or nonsense.
    believable = [value / 1000 for value in readings if value is not None and 0 < value < 150_000]
    return max(believable, default=None)


def clock_mhz(root: Path = ROOT) -> float | None:
    """The mean clock of all cores, in MHz: as cpufreq tells it, else as ``/proc/cpuinfo`` does."""
    told = [_number(path) for path in (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq")]
    clocks = [value / 1000 for value in told if value]
    if not clocks:
        lines = (_attempt((root / "proc/cpuinfo").read_text, "utf-8", "replace") or "").splitlines()
        clocks = [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]
    return sum(clocks) / len(clocks) if clocks else None
