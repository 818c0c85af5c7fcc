"""The energy that a platform reports, read from a made-up one."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.latency import power
from exporter.latency.power import Counter, Rail


def put(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / "sys/class" / name.replace("__", "/").replace("_colon_", ":")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def rapl(root: Path, joules: float = 5.0) -> None:
    for folder, name in (("intel-rapl:0", "package-0"), ("intel-rapl:0:0", "core")):
        place = root / "sys/class/powercap" / folder
        place.mkdir(parents=True)
        (place / "name").write_text(f"{name}\n")
        (place / "energy_uj").write_text(f"{joules * 1e6:.0f}\n")
        (place / "max_energy_range_uj").write_text("100000000\n")


def test_a_package_is_counted_and_its_parts_are_not_counted_again(tmp_path: Path) -> None:
    rapl(tmp_path)
    (source,) = power.sources(tmp_path)
    assert (source.name, source.read()) == ("rapl package-0", 5.0)


def test_a_counter_that_began_anew_lost_nothing(tmp_path: Path) -> None:
    counter = Counter("c", tmp_path / "c", 100.0)
    assert counter.spent([(0.0, 90.0), (1.0, 95.0), (2.0, 3.0), (3.0, 10.0)]) == pytest.approx(20.0)


def test_a_rail_is_current_times_voltage_where_it_has_a_name(tmp_path: Path) -> None:
    put(
        tmp_path,
        hwmon__hwmon3__name="ina3221\n",
        hwmon__hwmon3__in1_label="VDD_IN\n",
        hwmon__hwmon3__in1_input="5000\n",
        hwmon__hwmon3__curr1_input="1200\n",
        hwmon__hwmon3__in2_input="5000\n",
        hwmon__hwmon3__curr2_input="1\n",
    )
    (source,) = power.sources(tmp_path)
    assert (source.name, source.read()) == ("ina3221 VDD_IN", pytest.approx(6.0))


def test_a_sensor_of_power_is_in_microwatts(tmp_path: Path) -> None:
    put(tmp_path, hwmon__hwmon0__name="chip\n", hwmon__hwmon0__power1_input="2500000\n")
    (source,) = power.sources(tmp_path)
    assert (source.name, source.read()) == ("chip power1", 2.5)


def test_a_battery_tells_only_while_it_feeds(tmp_path: Path) -> None:
    put(tmp_path, power_supply__BAT0__status="Charging\n", power_supply__BAT0__power_now="9000000\n")
    assert not power.sources(tmp_path)
    put(tmp_path, power_supply__BAT0__status="Discharging\n")
    assert power.sources(tmp_path)[0].read() == 9.0


def test_energy_of_a_rail_is_the_area_under_its_readings(tmp_path: Path) -> None:
    rail = Rail("r", ())
    readings = [(0.0, {"r": 2.0}), (1.0, {"r": 4.0}), (3.0, {"r": 4.0})]
    assert power.joules(rail, readings) == pytest.approx(3.0 + 8.0)
    assert power.joules(rail, readings[:1]) is None and power.joules(rail, [(0.0, {}), (1.0, {})]) is None


def test_a_platform_without_any_says_so_and_one_for_root_alone_says_that(tmp_path: Path) -> None:
    assert power.sources(tmp_path) == [] and "reports no energy" in power.missing(tmp_path)
    rapl(tmp_path)
    assert "only root" in power.missing(tmp_path)


def test_what_cannot_be_read_is_no_source(tmp_path: Path) -> None:
    rapl(tmp_path)
    (tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj").write_text("nonsense\n")
    assert power.sources(tmp_path) == []
