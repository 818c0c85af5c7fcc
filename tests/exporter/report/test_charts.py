"""Axes and marks: places, ticks, what has no place."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.report.charts import strip
from exporter.report.charts.scale import Scale, durations, linear, logarithmic

POSITIVE = st.floats(1e-300, 1e300)


def test_a_logarithmic_axis_goes_from_decade_to_decade() -> None:
    scale = logarithmic([3e-7, 4e-5])
    assert (scale.low, scale.high) == pytest.approx((1e-7, 1e-4))
    assert scale.at(1e-7) == 0.0 and scale.at(1e-4) == pytest.approx(1.0) and scale.at(1e-5) == pytest.approx(2 / 3)
    assert scale.ticks() == pytest.approx([1e-7, 1e-6, 1e-5, 1e-4])
    assert scale.at(0.0) == 0.0, "an exact answer lies at the end"


def test_durations_are_read_linearly_where_they_are_near_and_else_in_decades() -> None:
    assert not durations([1.0, 2.0]).log and durations([1.0, 900.0]).log
    assert not durations([]).log


@given(st.lists(POSITIVE, min_size=1))
def test_every_value_has_a_place_and_ticks_lie_on_the_axis(values: list[float]) -> None:
    for scale in (logarithmic(values), linear(values), durations(values)):
        assert scale.low < scale.high
        assert all(0.0 <= scale.at(value) <= 1.0 for value in values)
        assert all(scale.low <= tick * (1 + 1e-9) and tick <= scale.high * (1 + 1e-9) for tick in scale.ticks())


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
def test_linear_ticks_are_few_and_in_order(low: float, span: float) -> None:
    ticks = Scale(low, low + span + abs(low) * 1e-6).ticks()
    assert 1 <= len(ticks) <= 8 and ticks == sorted(ticks)


def test_a_density_holds_all_of_what_it_is_of() -> None:
    scale = Scale(0.0, 1.0)
    even = strip.density(scale, [i / 100 for i in range(101)], "density", 20)
    tall = [float(x) for x in re.findall(r'height="([\d.]+)"', even)]
    assert len(tall) == 72 and max(tall) - min(tall) < 0.2, "what is spread evenly is flat"
    spike = strip.density(scale, [0.5] * 101, "density", 20)
    assert len(re.findall("<rect", spike)) == 1
    assert strip.density(scale, [], "density", 20) == ""


def test_marks_are_placed_in_percent_within_the_strip() -> None:
    scale = logarithmic([1e-7, 1e-5])
    assert 'cx="3.00%"' in strip.dot(scale, 1e-7, "dot") and 'cx="97.00%"' in strip.dot(scale, 1.0, "dot")
    assert 'aria-hidden="true"' in strip.strip(strip.dot(scale, 1e-7, "dot"))
    assert math.isclose(strip.place(scale, 1e-6), 50.0)
