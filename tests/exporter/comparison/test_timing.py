"""What is drawn from the timings of pairs of processes, on simulated ones: coverage, false alarms, what is found."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import t as student

from exporter.comparison import timing
from exporter.comparison.difference import judged
from exporter.comparison.values import Bounds, Timed
from exporter.latency.stats import MIN_FLOOR, Conclusion

ALLOWED = 0.05


def sequence(
    rng: np.random.Generator, ratio: float, spread: float, strikes: float = 0.0, allowed: float = ALLOWED
) -> Timed:
    """A whole comparison of pairs whose logarithmic ratios scatter so much; some are struck by 20 % either way."""
    ratios: list[float] = []
    while not timing.enough(ratios, allowed, float(len(ratios)), 60.0):
        struck = 0.2 * rng.choice([-1, 1]) if rng.random() < strikes else 0.0
        ratios.append(ratio * math.exp(spread * rng.standard_normal() + struck))
    return judged(Timed("it", "live", ratio=timing.located(ratios)), MIN_FLOOR, Bounds(allowed))


def test_the_quantiles_are_students() -> None:
    part = 0.05 / len(timing.LOOKS)
    for pairs, value in timing.STUDENT.items():
        assert value == pytest.approx(student.ppf(1 - part / 2, pairs - 1), abs=5e-4)
    assert set(timing.LOOKS) <= set(timing.STUDENT) and max(timing.STUDENT) == timing.LOOKS[-1]


@pytest.mark.parametrize("pairs", [2, 4, 9, 13])
@pytest.mark.parametrize("spread", [0.005, 0.03])
def test_an_interval_covers_the_truth(pairs: int, spread: float) -> None:
    rng = np.random.default_rng(pairs)
    found = [timing.located(1.1 * np.exp(spread * rng.standard_normal(pairs))) for _ in range(2000)]
    assert np.mean([one.low <= 1.1 <= one.high for one in found]) >= 0.98


@pytest.mark.parametrize("allowed", [0.0, ALLOWED])  # with nothing allowed every look is a temptation to end
@pytest.mark.parametrize(("spread", "strikes"), [(0.003, 0), (0.012, 0), (0.03, 0), (0.08, 0), (0.012, 0.1)])
def test_looking_several_times_claims_nothing_where_nothing_is(spread: float, strikes: float, allowed: float) -> None:
    rng = np.random.default_rng(0)
    found = [sequence(rng, 1.0, spread, strikes, allowed) for _ in range(2000)]
    assert np.mean([one.conclusion is not Conclusion.UNDECIDED for one in found]) <= 0.05


@pytest.mark.parametrize(("spread", "least"), [(0.005, 1.0), (0.012, 0.99), (0.03, 0.95)])
def test_a_tenth_is_found(spread: float, least: float) -> None:
    rng = np.random.default_rng(1)
    found = [sequence(rng, 1.1, spread) for _ in range(1000)]
    assert np.mean([one.regression for one in found]) >= least
    assert not any(one.conclusion is Conclusion.FASTER for one in found)


def test_disturbed_calls_do_not_move_the_figure() -> None:
    rng = np.random.default_rng(2)
    calm = 4e6 * np.exp(0.005 * np.abs(rng.standard_normal(60)))
    disturbed = calm.copy()
    disturbed[::2] *= 3
    assert timing.figure(list(disturbed)) == pytest.approx(timing.figure(list(calm)), rel=0.01)
    assert timing.figure(list(1.1 * calm)) == pytest.approx(1.1 * timing.figure(list(calm)))


def test_when_to_end() -> None:
    near, far = [1.0, 1.001, 0.999, 1.0], [1.1, 1.101, 1.099, 1.1]
    assert not timing.enough(near[:3], ALLOWED, 30.0, 60.0), "never before the first look"
    assert timing.enough(near, ALLOWED, 30.0, 60.0) and timing.enough(far, ALLOWED, 30.0, 60.0)
    wide = [1.0, 1.1, 0.9, 1.05]
    assert not timing.enough(wide, ALLOWED, 30.0, 60.0) and timing.enough(wide, ALLOWED, 61.0, 60.0)
    assert not timing.enough([*near, 1.0], ALLOWED, 30.0, 60.0), "five pairs are no look"
    assert timing.enough(wide * 3 + [1.0], ALLOWED, 30.0, 600.0), "the last look is the last"
    assert not timing.enough(near[:1], ALLOWED, 1e4, 60.0), "one pair says nothing"
    assert timing.enough(near[:2], ALLOWED, 301.0, 60.0), "patience ends"


def test_fewer_than_two_figures_have_no_interval() -> None:
    for figures in ([], [1.0], [1.0] * 14):
        with pytest.raises(ValueError, match="no interval"):
            timing.located(figures)
