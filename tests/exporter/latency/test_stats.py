"""The statistics against distributions whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.latency import stats
from exporter.latency.stats import Cause, Conclusion, Estimate, Stability

MS = 1e6
RUNS = 1000


def blocks(rng: np.random.Generator, n: int, median: float = 5 * MS, sigma: float = 0.02) -> np.ndarray:
    """Figures of blocks: skewed to the right, as timings are, with a known median."""
    return median * np.exp(sigma * np.abs(rng.standard_normal(n)) - sigma * 0.6744897501960817)


@pytest.mark.parametrize("n", [9, 20, 60])
def test_the_interval_of_a_median_covers_the_truth_as_often_as_it_says(n: int) -> None:
    hits = 0
    for run in range(RUNS):
        figures = blocks(np.random.default_rng(run), n)
        estimate = stats.median_interval([list(figures)], seed=run, resamples=600)
        hits += estimate.low <= 5 * MS <= estimate.high
    assert 0.92 <= hits / RUNS <= 0.98


def test_the_interval_of_a_ratio_covers_the_truth_under_common_drift() -> None:
    hits = 0
    for run in range(RUNS):
        rng = np.random.default_rng(run)
        drift = 1 + 0.3 * np.linspace(0, 1, 20)
        of, to = blocks(rng, 20) * drift, blocks(rng, 20, median=4 * MS) * drift
        estimate = stats.ratio_interval([list(of)], [list(to)], seed=run, resamples=600)
        hits += estimate.low <= 1.25 <= estimate.high
    assert 0.92 <= hits / RUNS <= 0.98


def test_pairing_by_round_cancels_what_is_slow_for_both() -> None:
    rng = np.random.default_rng(0)
    drift = 1 + 0.5 * np.linspace(0, 1, 20)
    a, b = blocks(rng, 20) * drift, blocks(rng, 20) * drift
    paired = stats.ratio_interval([list(a)], [list(b)], seed=0)
    shuffled = stats.ratio_interval([list(a)], [list(rng.permutation(b))], seed=0)
    assert paired.high - paired.low < 0.2 * (shuffled.high - shuffled.low)


def test_children_are_drawn_before_their_blocks() -> None:
    """Processes that disagree make the interval wide, however many blocks each of them ran."""
    rng = np.random.default_rng(0)
    children = [list(blocks(rng, 100, median=median, sigma=0.001)) for median in (5.0, 5.1, 5.2, 5.3)]
    estimate = stats.median_interval(children, seed=0)
    assert estimate.low < 5.02
    assert estimate.high > 5.28


def test_children_of_unequal_length_are_all_drawn_in_full() -> None:
    estimate = stats.median_interval([[1.0] * 5, [1.0] * 50], seed=0)
    assert estimate == Estimate(1.0, 1.0, 1.0)


def aa_run(run: int, bias: float, planted: float = 1.0) -> tuple[Estimate, float]:
    """The ratio of two children, the second slower by ``planted``, and the floor a third, a twin, gave."""
    rng = np.random.default_rng(run)
    common = 1 + 0.02 * rng.standard_normal(20).cumsum() / 5
    first, twin, other = (blocks(rng, 20) * common * (1 + bias * rng.standard_normal()) for _ in range(3))
    twins = stats.ratio_interval([list(twin)], [list(first)], run, 400)
    floor = stats.noise_floor(twins)
    assert floor is not None
    return stats.ratio_interval([list(other * planted)], [list(first)], run, 400), floor


@pytest.mark.parametrize("bias", [0.0, 0.005])
def test_two_children_of_one_artifact_are_rarely_called_different(bias: float) -> None:
    """``bias``: what the layout of a process does to all of its timings, the standard deviation over processes."""
    runs = [aa_run(run, bias) for run in range(600)]
    alarms = sum(stats.concluded(*run) is not Conclusion.UNDECIDED for run in runs)
    assert alarms / len(runs) <= 0.05


def test_without_the_floor_the_same_runs_would_raise_false_alarms() -> None:
    """The counter-test: the check above can fail."""
    runs = [aa_run(run, 0.005)[0] for run in range(200)]
    assert sum(ratio.low > 1 or ratio.high < 1 for ratio in runs) / len(runs) > 0.2


@pytest.mark.parametrize(("planted", "conclusion"), [(1.10, Conclusion.SLOWER), (1 / 1.10, Conclusion.FASTER)])
def test_a_planted_difference_of_ten_percent_is_found(planted: float, conclusion: Conclusion) -> None:
    found = sum(stats.concluded(*aa_run(run, 0.005, planted)) is conclusion for run in range(200))
    assert found / 200 >= 0.98


def test_no_floor_no_claim() -> None:
    assert stats.concluded(Estimate(0.1, 0.09, 0.11), None) is Conclusion.UNDECIDED
    assert stats.noise_floor(None) is None


@pytest.mark.parametrize(
    ("low", "high", "conclusion"),
    [
        (0.90, 0.97, Conclusion.FASTER),
        (0.90, 0.99, Conclusion.UNDECIDED),  # excludes 1, not the floor
        (0.90, 1.10, Conclusion.UNDECIDED),
        (1.01, 1.10, Conclusion.UNDECIDED),
        (1.03, 1.10, Conclusion.SLOWER),
    ],
)
def test_a_claim_needs_the_whole_interval_beyond_the_floor(low: float, high: float, conclusion: Conclusion) -> None:
    assert stats.concluded(Estimate((low + high) / 2, low, high), 1.02) is conclusion


def test_figures_that_were_taken_apart_claim_no_more_than_their_ends_do() -> None:
    assert stats.unpaired_ratio(Estimate(3.0, 2.0, 4.0), Estimate(1.0, 0.5, 2.0)) == Estimate(3.0, 1.0, 8.0)


def test_the_floor_is_the_far_end_of_the_pair_on_either_side() -> None:
    assert stats.noise_floor(Estimate(1.0, 0.95, 1.02)) == pytest.approx(1 / 0.95)
    assert stats.noise_floor(Estimate(1.0, 0.99, 1.04)) == 1.04
    assert stats.noise_floor(Estimate(1.0, 1.0, 1.0)) == stats.MIN_FLOOR


def test_percentiles_need_their_calls() -> None:
    assert [stats.calls_needed(p) for p in (0.5, 0.9, 0.95, 0.99)] == [5, 29, 59, 299]
    calls = list(np.arange(1.0, 300.0))
    assert stats.percentile(calls[:298], 0.99) is None
    p99 = stats.percentile(calls, 0.99)
    assert p99 is not None
    assert p99.upper == 299.0
    assert p99.value == 297.0
    assert stats.percentile([], 0.5) is None


@pytest.mark.parametrize(("n", "p"), [(29, 0.9), (59, 0.95), (200, 0.95), (299, 0.99), (3000, 0.99)])
def test_the_bound_of_a_percentile_holds_as_often_as_it_says(n: int, p: float) -> None:
    draws = np.sort(np.random.default_rng(1).random((4000, n)), axis=1)
    rank = stats._bound_rank(n, p)
    assert np.mean(draws[:, rank - 1] >= p) >= 0.95 - 0.012
    # It is the smallest such rank: one lower does not hold.
    assert rank == 1 or np.mean(draws[:, rank - 2] >= p) < 0.95 + 0.012


def causes(figures: np.ndarray, calls: np.ndarray | None = None, **more: float) -> set[Cause]:
    found = stats.reasons_against(list(figures), [] if calls is None else list(calls), **more)
    return {reason.cause for reason in found}


def test_steady_timings_are_stable() -> None:
    rng = np.random.default_rng(3)
    assert causes(blocks(rng, 20), blocks(rng, 200)) == set()
    assert stats.stability(()) is Stability.STABLE


def test_steady_timings_rarely_drift() -> None:
    runs = [stats.drift(list(blocks(np.random.default_rng(run), 20, sigma=0.03))) for run in range(500)]
    significant = sum(trend.low > 0 or trend.high < 0 for trend in runs if trend)
    assert 0.01 <= significant / 500 <= 0.08


@pytest.mark.parametrize("change", [0.1, -0.1])
def test_drift_is_found_and_measured(change: float) -> None:
    figures = blocks(np.random.default_rng(0), 20, sigma=0.01) * (1 + change * np.linspace(0, 1, 20))
    trend = stats.drift(list(figures))
    assert trend is not None
    assert trend.shown
    assert trend.change == pytest.approx(change, abs=0.02)
    assert Cause.DRIFT in causes(figures)


def test_one_spike_bends_nothing_and_is_no_reason() -> None:
    rng = np.random.default_rng(0)
    calls = blocks(rng, 200)
    spiked = calls.copy()
    spiked[150] *= 50
    assert stats.outliers(list(spiked)) == 1
    figures, hit = blocks(rng, 20), 15
    with_spike = figures.copy()
    with_spike[hit] *= 50
    assert causes(with_spike, spiked) == set()
    before, after = (stats.median_interval([list(x)], 0) for x in (figures, with_spike))
    assert after.value == pytest.approx(before.value, rel=0.005)
    assert after.high < before.high * 1.02


def test_a_tail_is_a_reason() -> None:
    calls = blocks(np.random.default_rng(0), 200)
    calls[:20] *= 5
    assert causes(blocks(np.random.default_rng(1), 20), calls) == {Cause.OUTLIERS}


def test_two_modes_are_noise() -> None:
    """Whole blocks flip between a fast and a slow placement of threads."""
    rng = np.random.default_rng(0)
    modes = np.where(rng.random(40) < 0.5, 1.0, 1.6)
    assert Cause.SPREAD in causes(blocks(rng, 40) * modes)


def test_a_coarse_timer_is_named() -> None:
    tick = 15.6 * MS
    calls = np.maximum(tick, np.round(blocks(np.random.default_rng(0), 200, median=20 * MS) / tick) * tick)
    assert Cause.COARSE_TIMER in causes(calls[:20], calls, tick_ns=tick)
    assert Cause.COARSE_TIMER not in causes(blocks(np.random.default_rng(0), 20), tick_ns=50)
    assert Cause.COARSE_TIMER in causes(np.zeros(20), tick_ns=50)


def test_the_remaining_reasons() -> None:
    figures = blocks(np.random.default_rng(0), 20)
    assert causes(figures, throttled_us=10) == {Cause.THROTTLED}
    assert causes(figures[:8]) == {Cause.FEW_BLOCKS}
    assert [r.cause for r in stats.twin_reasons(Estimate(1.0, 0.8, 1.0))] == [Cause.TWINS_DIFFER]
    assert stats.twin_reasons(Estimate(1.0, 0.99, 1.01)) == ()


def test_wrong_output_voids_whatever_else_is_said() -> None:
    noisy, wrong = stats.Reason(Cause.SPREAD, "wide"), stats.Reason(Cause.WRONG_OUTPUT, "wrong")
    assert stats.stability([noisy]) is Stability.NOISY
    assert stats.stability([noisy, wrong]) is Stability.INVALID


def test_nothing_is_said_of_nothing() -> None:
    for children in ([], [[]], [[1.0], []]):
        with pytest.raises(ValueError, match="at least one block"):
            stats.median_interval(children, 0)
    with pytest.raises(ValueError, match="pair up"):
        stats.ratio_interval([[1.0, 2.0]], [[1.0]], 0)
    assert stats.drift([1.0, 2.0, 3.0, 4.0]) is None


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(1e3, 1e9), min_size=1, max_size=40), st.integers(0, 2**32), st.floats(1e-3, 1e3))
def test_intervals_hold_their_figure_repeat_and_scale(figures: list[float], seed: int, scale: float) -> None:
    one = stats.median_interval([figures], seed, 200)
    assert one == stats.median_interval([figures], seed, 200)
    assert min(figures) <= one.low <= one.high <= max(figures)
    scaled = stats.median_interval([[f * scale for f in figures]], seed, 200)
    assert math.isclose(scaled.low, one.low * scale, rel_tol=1e-9)
    assert math.isclose(scaled.high, one.high * scale, rel_tol=1e-9)
