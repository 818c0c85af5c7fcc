"""What may be said of a set of timings, and what may not. Pure: numbers in, values out, every random draw seeded.

Timings are skewed, drift, and are not independent of one another, so nothing here assumes a normal distribution or
independent calls:

- The figure of a subject is the median over blocks; a block's figure is the median of its calls. Its interval is a
  percentile bootstrap that draws children first and blocks within them (Efron and Tibshirani, *An Introduction to the
  Bootstrap*, 1993, ch. 8 and 13; the hierarchy as in Kalibera and Jones, "Rigorous benchmarking in reasonable time",
  ISMM 2013): calls of one block, and blocks of one process, share more than chance.
- Two subjects are compared by the ratios of blocks of the same round, so whatever is slow for both cancels (Georges,
  Buytaert and Eeckhout, "Statistically rigorous Java performance evaluation", OOPSLA 2007, for intervals instead of
  bare means; interleaving as in google/benchmark's ``--benchmark_enable_random_interleaving``).
- A difference counts only beyond what two children of the *same* artifact differ by: the layout of a process alone
  moves timings (Mytkowicz, Diwan, Hauswirth and Sweeney, "Producing wrong data without doing anything obviously
  wrong", ASPLOS 2009).
- A percentile is stated only where its upper confidence bound is one of the samples: with n calls the largest lies at
  or above the true p-quantile with confidence c only if n >= ln(1-c)/ln(p) (order statistics: David and Nagaraja,
  *Order Statistics*, 2003, sec. 7.1; the same rule is behind MLPerf's early stopping).
- Drift is the slope of Theil (1950) with the interval of Sen ("Estimates of the regression coefficient based on
  Kendall's tau", JASA 63, 1968): one spike does not bend it.
- Outliers are counted and never removed; the mark is hyperfine's, a modified z-score above 14.8 (Iglewicz and
  Hoaglin, 1993, with a factor 10 on the scaled MAD). The spread limit is that of ``torch.utils.benchmark``: IQR over
  10 % of the median.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
RESAMPLES = 2000

# IQR / median of the calls beyond which the middle half alone is wide (torch.utils.benchmark: _IQR_WARN_THRESHOLD).
SPREAD_LIMIT = 0.10
# Change over the whole run beyond which a significant slope matters: a warm-up that did not end, or a clock going down.
DRIFT_LIMIT = 0.03
# Modified z-score that marks an outlier, and the share of calls beyond which the tail is part of the subject, not an
# accident: with more than one in twenty, p95 itself would be made of them.
OUTLIER_SCORE = 14.826
OUTLIER_SHARE = 0.05
# Differences below this are never claimed: the A/A pair draws the bias of a process once, so it may be small by luck.
MIN_FLOOR = 1.01
# An A/A pair further apart than this says that processes of one artifact disagree here.
TWIN_LIMIT = 1.10
# Largest part of a timed value that one step of the clock may be.
TICK_LIMIT = 0.01
# Blocks below which the interval of a median is rough; the protocol asks for them, slow models may not reach them.
ENOUGH_BLOCKS = 9


class Stability(str, Enum):
    """Whether a number deserves to be read; printed before it."""

    STABLE = "STABLE"
    NOISY = "NOISY"
    INVALID = "INVALID"

    def __str__(self) -> str:
        return self.value


class Cause(str, Enum):
    """Why a measurement is not ``STABLE``."""

    DRIFT = "drift"
    SPREAD = "spread"
    OUTLIERS = "outliers"
    THROTTLED = "throttled"
    COARSE_TIMER = "coarse-timer"
    FEW_BLOCKS = "few-blocks"
    TWINS_DIFFER = "twins-differ"
    WRONG_OUTPUT = "wrong-output"


# What no spread excuses: the subject did not do its work, so its time means nothing.
VOIDING = frozenset({Cause.WRONG_OUTPUT})


@dataclass(frozen=True)
class Reason:
    """One reason against a measurement, in words and with the figure that gave it."""

    cause: Cause
    text: str
    value: float | None = None

    def as_json(self) -> dict[str, str | float | None]:
        """The reason as ``--json`` prints it."""
        return {"cause": self.cause.value, "text": self.text, "value": self.value}


class Conclusion(str, Enum):
    """What a comparison may claim."""

    FASTER = "faster"
    SLOWER = "slower"
    UNDECIDED = "no difference shown"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def interval(self) -> tuple[float, float]:
        """Both ends."""
        return self.low, self.high


@dataclass(frozen=True)
class Percentile:
    """A sample percentile with the bound that the true one stays under, with 95 % confidence."""

    p: float
    value: float
    upper: float
    n: int


@dataclass(frozen=True)
class Drift:
    """A robust trend: change over the whole run as a part of the median, with its interval."""

    change: float
    low: float
    high: float

    @property
    def shown(self) -> bool:
        """Whether the trend is both more than chance and large enough to matter."""
        return (self.low > 0 or self.high < 0) and abs(self.change) > DRIFT_LIMIT


def median_interval(children: Sequence[Sequence[float]], seed: int, resamples: int = RESAMPLES) -> Estimate:
    """The median over all blocks with a 95 % bootstrap interval, drawing children first, then blocks within them.

    Args:
        children: for each child process the figures of its blocks.
        seed: seeds the draws.
        resamples: how many bootstrap samples.

    Raises:
        ValueError: without a block, or with a child that has none.
    """
    samples = [np.asarray(child, dtype=np.float64) for child in children]
    if not samples or any(child.size == 0 for child in samples):
        raise ValueError("a median needs at least one block of every child")
    drawn = _drawn(samples, np.random.default_rng(seed), resamples)
    low, high = _inner(np.median(drawn, axis=1))
    return Estimate(float(np.median(np.concatenate(samples))), low, high)


def _drawn(children: Sequence[Floats], rng: np.random.Generator, resamples: int) -> Floats:
    """Bootstrap samples as rows. Children of unequal length are drawn to the shortest, so that rows stay equal."""
    length = min(child.size for child in children)
    chosen = rng.integers(len(children), size=(resamples, len(children)))
    sizes = np.array([child.size for child in children])
    padded = np.zeros((len(children), int(sizes.max())))
    for row, child in zip(padded, children, strict=True):
        row[: child.size] = child
    # floor(u * size) draws an index below the size of the chosen child, whichever it is.
    indices = (rng.random((resamples, len(children), length)) * sizes[chosen][:, :, None]).astype(np.intp)
    drawn: Floats = padded[chosen[:, :, None], indices].reshape(resamples, -1)
    return drawn


def _inner(values: Floats) -> tuple[float, float]:
    """The ends of the middle 95 % of bootstrap figures."""
    tail = (1 - CONFIDENCE) / 2
    # Values that were drawn, not interpolated ones: with few blocks interpolation would shorten the interval.
    low = np.quantile(values, tail, method="lower")
    high = np.quantile(values, 1 - tail, method="higher")
    return float(low), float(high)


def ratio_interval(
    of: Sequence[Sequence[float]], to: Sequence[Sequence[float]], seed: int, resamples: int = RESAMPLES
) -> Estimate:
    """How long ``of`` takes as a part of ``to``, from blocks of the same rounds, with a 95 % interval.

    Args:
        of: for each child the figures of its blocks, round by round.
        to: the same rounds of the other subject.
        seed: seeds the draws.
        resamples: how many bootstrap samples.

    Raises:
        ValueError: when the rounds do not pair up.
    """
    if len(of) != len(to) or any(len(a) != len(b) for a, b in zip(of, to, strict=True)):
        raise ValueError("blocks of two subjects pair up by round; their counts differ")
    ratios = [np.asarray(a, dtype=np.float64) / np.asarray(b, dtype=np.float64) for a, b in zip(of, to, strict=True)]
    return median_interval([list(child) for child in ratios], seed, resamples)


def unpaired_ratio(of: Estimate, to: Estimate) -> Estimate:
    """How long ``of`` takes as a part of ``to``, from figures that were taken apart from one another.

    Nothing that was slow for both cancels, and nothing is known of how the two vary together: the interval reaches from
    the fastest of one against the slowest of the other to the reverse.
    """
    return Estimate(of.value / to.value, of.low / to.high, of.high / to.low)


def noise_floor(twins: Estimate | None) -> float | None:
    """The factor below which a ratio is noise: the far end of the A/A pair's interval, and never under 1 %."""
    return None if twins is None else max(MIN_FLOOR, twins.high, 1 / twins.low)


def concluded(ratio: Estimate, floor: float | None) -> Conclusion:
    """Whether a ratio shows a difference: its whole interval must lie beyond the floor. No floor, no claim."""
    if floor is None:
        return Conclusion.UNDECIDED
    if ratio.high < 1 / floor:
        return Conclusion.FASTER
    if ratio.low > floor:
        return Conclusion.SLOWER
    return Conclusion.UNDECIDED


def calls_needed(p: float, confidence: float = CONFIDENCE) -> int:
    """How many calls an upper bound of the p-quantile needs: 5 for p50, 29 for p90, 59 for p95, 299 for p99."""
    return math.ceil(math.log(1 - confidence) / math.log(p))


def percentile(calls: Sequence[float], p: float) -> Percentile | None:
    """The p-quantile of the calls with its upper bound, or None where the calls are too few to bound it."""
    n = len(calls)
    if n < calls_needed(p):
        return None
    ordered = np.sort(np.asarray(calls, dtype=np.float64))
    value = float(ordered[min(n - 1, math.ceil(p * n) - 1)])
    return Percentile(p, value, float(ordered[_bound_rank(n, p) - 1]), n)


def _bound_rank(n: int, p: float) -> int:
    """The smallest rank k whose order statistic is at or above the p-quantile with 95 % confidence.

    ``P(X(k) >= quantile) = P(Binomial(n, p) < k)``; the terms are summed in logarithms, n may be large.
    """
    logs = [math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in range(n)]
    total = 0.0
    for i, log in enumerate(logs):
        total += math.exp(log + i * math.log(p) + (n - i) * math.log1p(-p))
        if total >= CONFIDENCE:
            return i + 1
    return n


def drift(figures: Sequence[float]) -> Drift | None:
    """The Theil-Sen trend of the blocks over the run, or None for fewer than five blocks or none that took time."""
    y = np.asarray(figures, dtype=np.float64)
    n, middle = y.size, float(np.median(y))
    if n < 5 or middle <= 0:
        return None
    later, earlier = np.tril_indices(n, -1)
    slopes = np.sort((y[later] - y[earlier]) / (later - earlier))
    scale = (n - 1) / middle
    # Sen 1968: the interval's ranks follow from the variance of Kendall's S without ties.
    reach = 1.959964 * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    low = max(0, round((slopes.size - reach) / 2) - 1)
    high = min(slopes.size - 1, round((slopes.size + reach) / 2))
    return Drift(float(np.median(slopes)) * scale, float(slopes[low]) * scale, float(slopes[high]) * scale)


def spread(values: Sequence[float]) -> float:
    """IQR over median."""
    first, middle, third = np.quantile(np.asarray(values, dtype=np.float64), (0.25, 0.5, 0.75))
    return float((third - first) / middle) if middle else math.inf


def outliers(values: Sequence[float]) -> int:
    """How many values lie further from the median than hyperfine's mark."""
    x = np.asarray(values, dtype=np.float64)
    distance = np.abs(x - np.median(x))
    mad = float(np.median(distance))
    # A coarse clock makes most values equal and the MAD zero; then nothing is known of the usual distance.
    return int(np.sum(distance > OUTLIER_SCORE * mad)) if mad else 0


def reasons_against(
    figures: Sequence[float], calls: Sequence[float], *, tick_ns: float = 0.0, throttled_us: float = 0.0
) -> tuple[Reason, ...]:
    """Everything that speaks against a subject's measurement, from its timings alone.

    Args:
        figures: nanoseconds per call, one figure per block in the order they ran.
        calls: nanoseconds of single calls; empty where calls were too short to time alone.
        tick_ns: one step of the clock as a part of one figure (for blocks timed as a whole: divided by their calls).
        throttled_us: how long the operating system held this group back during the blocks.
    """
    values = calls or figures
    return tuple(
        reason
        for reason in (
            _few(len(figures)),
            _drifting(drift(figures)),
            _wide(spread(values)),
            _tailed(outliers(values), len(values)),
            _coarse(tick_ns, float(np.median(figures))),
            _held_back(throttled_us),
        )
        if reason is not None
    )


def _few(blocks: int) -> Reason | None:
    if blocks >= ENOUGH_BLOCKS:
        return None
    return Reason(Cause.FEW_BLOCKS, f"{blocks} blocks; an interval needs {ENOUGH_BLOCKS}", blocks)


def _drifting(trend: Drift | None) -> Reason | None:
    if trend is None or not trend.shown:
        return None
    text = f"blocks moved by {trend.change:+.1%} over the run [{trend.low:+.1%}, {trend.high:+.1%}]"
    return Reason(Cause.DRIFT, text, trend.change)


def _wide(width: float) -> Reason | None:
    if width <= SPREAD_LIMIT:
        return None
    return Reason(
        Cause.SPREAD, f"the middle half spans {width:.0%} of the median; the limit is {SPREAD_LIMIT:.0%}", width
    )


def _tailed(count: int, n: int) -> Reason | None:
    share = count / n
    if share <= OUTLIER_SHARE:
        return None
    return Reason(Cause.OUTLIERS, f"{count} of {n} timings are far outliers (kept in every figure)", share)


def _coarse(tick_ns: float, figure: float) -> Reason | None:
    if tick_ns <= TICK_LIMIT * figure:
        return None
    part = tick_ns / figure if figure else math.inf
    return Reason(Cause.COARSE_TIMER, f"one step of the clock is {part:.0%} of the figure", part)


def _held_back(throttled_us: float) -> Reason | None:
    if throttled_us <= 0:
        return None
    return Reason(
        Cause.THROTTLED, f"the CPU quota held the process back for {throttled_us / 1000:.1f} ms", throttled_us
    )


def twin_reasons(twins: Estimate | None) -> tuple[Reason, ...]:
    """What an A/A pair says against the run as a whole."""
    floor = noise_floor(twins)
    if floor is None or floor <= TWIN_LIMIT:
        return ()
    return (Reason(Cause.TWINS_DIFFER, f"two children of one artifact differ by up to {floor - 1:.0%}", floor),)


def stability(reasons: Sequence[Reason]) -> Stability:
    """The word for a set of reasons: none is ``STABLE``, a voiding one ``INVALID``."""
    if any(reason.cause in VOIDING for reason in reasons):
        return Stability.INVALID
    return Stability.NOISY if reasons else Stability.STABLE
