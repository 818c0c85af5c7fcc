"""The energy that this platform reports: read, never changed. Where it reports none, that is said.

- Counters of joules: the processor packages' (``intel-rapl`` under ``/sys/class/powercap``, also AMD's; often for root
  alone).
- Sensors of watts: power rails (``hwmon``: ``powerN_input``, or ``currN_input`` times ``inN_input`` as the INA3221 of
  NVIDIA's Jetson boards has them), and a battery that feeds the machine (``power_now``, or current times voltage).

Units are those of the kernel's documentation: microjoules, microwatts, milliamperes, millivolts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from exporter.latency.environment import ROOT


@dataclass(frozen=True)
class Counter:
    """A count of energy that only grows, and begins anew beyond its range."""

    name: str
    path: Path
    range_joules: float

    def read(self) -> float:
        """Joules since some moment."""
        return int(self.path.read_text()) / 1e6

    def spent(self, readings: Sequence[tuple[float, float]]) -> float:
        """Joules between the first and the last of ``(seconds, joules)``, however often it began anew."""
        steps = (later[1] - earlier[1] for earlier, later in pairwise(readings))
        return sum(step if step >= 0 else step + self.range_joules for step in steps)


@dataclass(frozen=True)
class Rail:
    """A sensor of power."""

    name: str
    factors: Sequence[tuple[Path, float]]

    def read(self) -> float:
        """Watts now."""
        watts = 1.0
        for path, unit in self.factors:
            watts *= abs(int(path.read_text())) * unit
        return watts

    def spent(self, readings: Sequence[tuple[float, float]]) -> float:
        """Joules between the first and the last of ``(seconds, watts)``: the area under them."""
        return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(readings))


Source = Counter | Rail


def sources(root: Path = ROOT) -> list[Source]:
    """Everything here that tells of energy and can be read by this user."""
    every: Iterator[Source] = (s for found in (_packages, _rails, _batteries) for s in found(root / "sys/class"))
    return [source for source in every if _readable(source)]


def missing(root: Path = ROOT) -> str:
    """Why there is no source here."""
    if list((root / "sys/class").glob("powercap/intel-rapl:*/energy_uj")):
        return "this processor counts its energy, and only root may read it: run as root, or let others read energy_uj"
    return "this platform reports no energy: no RAPL counter, no power rail, no discharging battery"


def joules(source: Source, readings: Sequence[tuple[float, Mapping[str, float]]]) -> float | None:
    """What a source says was spent over readings of ``(seconds, value by source)``; None with fewer than two."""
    own = [(at, values[source.name]) for at, values in readings if source.name in values]
    return source.spent(own) if len(own) > 1 else None


def _readable(source: Source) -> bool:
    try:
        source.read()
    except (OSError, ValueError):
        return False
    return True


def _packages(classes: Path) -> Iterator[Source]:
    """Whole packages: their parts lie in folders of their own below, with one colon more."""
    for folder in sorted(classes.glob("powercap/intel-rapl:*")):
        if folder.name.count(":") == 1:
            yield from _counters(folder)


def _counters(folder: Path) -> Iterator[Source]:
    with suppress(OSError, ValueError):
        name = (folder / "name").read_text().strip()
        highest = int((folder / "max_energy_range_uj").read_text()) / 1e6
        yield Counter(f"rapl {name}", folder / "energy_uj", highest)


def _rails(classes: Path) -> Iterator[Source]:
    for folder in sorted(classes.glob("hwmon/hwmon*")):
        chip = _text(folder / "name") or folder.name
        for power in sorted(folder.glob("power*_input")):
            label = _text(folder / power.name.replace("_input", "_label")) or power.stem.removesuffix("_input")
            yield Rail(f"{chip} {label}", ((power, 1e-6),))
        for current in sorted(folder.glob("curr*_input")):
            number = current.name.removeprefix("curr").removesuffix("_input")
            voltage, label = folder / f"in{number}_input", _text(folder / f"in{number}_label")
            if voltage.is_file() and label:
                yield Rail(f"{chip} {label}", ((current, 1e-3), (voltage, 1e-3)))


def _batteries(classes: Path) -> Iterator[Source]:
    for folder in sorted(classes.glob("power_supply/*")):
        if _text(folder / "status") != "Discharging":
            continue
        if (folder / "power_now").is_file():
            yield Rail(f"battery {folder.name}", ((folder / "power_now", 1e-6),))
        elif (folder / "current_now").is_file():
            yield Rail(f"battery {folder.name}", ((folder / "current_now", 1e-6), (folder / "voltage_now", 1e-6)))


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace").strip()
    return ""
