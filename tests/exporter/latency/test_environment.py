"""Facts of a machine, read from a made-up ``/proc`` and ``/sys``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from exporter.latency import environment
from exporter.latency.environment import Environment, Throttling

FILES = {
    "proc/cpuinfo": "processor\t: 0\nmodel name\t: Example 9000\nprocessor\t: 1\nmodel name\t: Other\n",
    "proc/meminfo": "MemTotal:       8192000 kB\nMemAvailable:    409600 kB\n",
    "proc/loadavg": "1.50 0.40 0.10 9/85 123\n",
    "proc/self/cgroup": "0::/box\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "performance\n",
    "sys/devices/system/cpu/intel_pstate/no_turbo": "0\n",
    "sys/fs/cgroup/box/cpu.max": "150000 100000\n",
    "sys/fs/cgroup/box/cpu.stat": "usage_usec 5\nnr_periods 10\nnr_throttled 3\nthrottled_usec 4000\n",
    "sys/class/power_supply/AC/online": "0\n",
    "sys/class/thermal/thermal_zone0/temp": "91000\n",
    "sys/class/thermal/thermal_zone1/temp": "-274000\n",
}


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture
def bad(tmp_path: Path) -> Environment:
    return environment.read(["numpy", "no-such-package-here"], machine(tmp_path, FILES))


def test_facts_are_read(bad: Environment) -> None:
    assert (bad.cpu, bad.governor, bad.turbo) == ("Example 9000", "performance+powersave", True)
    assert (bad.quota_cores, bad.throttling) == (1.5, Throttling(10, 3, 4000))
    assert (bad.load, bad.runnable, bad.memory_mb, bad.free_mb) == (1.5, 9, 8000, 400)
    assert (bad.on_battery, bad.celsius) == (True, 91.0)
    assert set(bad.packages) == {"numpy"}


def test_every_bad_item_is_a_warning_with_one_line_of_advice(bad: Environment) -> None:
    warned = environment.warnings(replace(bad, usable_cores=1), threads=2)
    codes = [one.code for one in warned]
    assert codes == ["governor", "turbo", "battery", "quota", "threads", "load", "hot", "memory"]
    assert all(one.what and one.advice and "\n" not in one.what + one.advice for one in warned)


def test_a_machine_that_says_nothing_warns_of_nothing(tmp_path: Path) -> None:
    facts = environment.read(root=tmp_path)
    assert (facts.cpu, facts.governor, facts.turbo, facts.quota_cores, facts.throttling) == (None,) * 5
    assert environment.warnings(facts, threads=1) == []


def test_files_that_hold_nonsense_are_no_crash(tmp_path: Path) -> None:
    facts = environment.read(root=machine(tmp_path, dict.fromkeys(FILES, "\nnonsense: :\n")))
    # Any word may be a governor's name; everything else is known to be no number.
    assert [warned.code for warned in environment.warnings(facts, threads=1)] == ["governor"]


def test_the_first_version_of_control_groups(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "4:memory:/a\n1:cpu,cpuacct:/b\n0::/\n",
        "sys/fs/cgroup/cpu,cpuacct/b/cpu.cfs_quota_us": "200000\n",
        "sys/fs/cgroup/cpu,cpuacct/b/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/cpu,cpuacct/b/cpu.stat": "nr_periods 1\nnr_throttled 1\nthrottled_time 7000000\n",
    }
    facts = environment.read(root=machine(tmp_path, files))
    assert (facts.quota_cores, facts.throttling) == (2.0, Throttling(1, 1, 7000))
    (tmp_path / "sys/fs/cgroup/cpu,cpuacct/b/cpu.cfs_quota_us").write_text("-1\n")
    assert environment.read(root=tmp_path).quota_cores is None


def test_throttled_time_is_a_difference() -> None:
    assert environment.throttled_us(Throttling(1, 1, 100), Throttling(2, 2, 350)) == 250
    assert environment.throttled_us(None, Throttling(2, 2, 350)) == 0


def test_this_machine_can_be_read() -> None:
    facts = environment.read(["numpy"])
    assert facts.kernel
    assert facts.python
    assert facts.packages
    assert environment.usable_cores() >= 1
    assert facts.as_json()["cores"] == facts.cores
