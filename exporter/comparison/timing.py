"""What may be said of two artifacts that were timed side by side, pair by pair of fresh processes. Pure.

- One process carries an offset of its own, by where its memory lies (Mytkowicz, Diwan, Hauswirth and Sweeney, ASPLOS
  2009): more blocks of the same process do not average it out. So the unit is a pair of fresh processes, one of each
  side, whose blocks alternate, and what is judged is how the ratios of such pairs scatter (Kalibera and Jones, ISMM
  2013: repeat at the level that varies).
- The figure of a process is the lower quartile of its calls. Whatever disturbs a call only ever makes it longer, and it
  does so for seconds at a time; the least disturbed quarter is what both sides have in common.
- Pairs go on until the interval of the ratio lies on one side of the bound, or the time is spent. Looking at it again
  and again would find a difference sooner or later where there is none, so it is looked at a few times, at most, after
  numbers of pairs that are fixed beforehand, and each look has its part of the 5 % that may go wrong (Bonferroni; why
  one must: Pocock, "Group sequential methods in the design and analysis of clinical trials", Biometrika 64, 1977).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from exporter.latency.stats import Estimate

QUANTILE = 0.25
# After so many pairs the interval is looked at; time that is spent ends it at the number reached by then, as the last.
LOOKS = (4, 6, 9, 13)
# Student's t for 1 - 0.05 / len(LOOKS), both sides, by the number of pairs.
STUDENT = {2: 50.923, 3: 8.860, 4: 5.392, 5: 4.315, 6: 3.810, 7: 3.521, 8: 3.335, 9: 3.206, 10: 3.111, 11: 3.038,
           12: 2.981, 13: 2.934}  # fmt: skip
# A slow model may take so many times the time allowed to reach the first look.
PATIENCE = 5.0


def figure(calls: Sequence[float]) -> float:
    """The figure of one process, from its calls (or blocks, where calls are too short to time alone)."""
    return float(np.quantile(np.asarray(calls, dtype=np.float64), QUANTILE, method="lower"))


def located(figures: Sequence[float]) -> Estimate:
    """The geometric mean of positive figures of as many processes, or ratios of as many pairs, with its interval.

    Ratios multiply, so logarithms are what scatters evenly. The interval is Student's, at the part of 5 % that one look
    has: over all looks it covers in at least 95 % of comparisons.

    Raises:
        ValueError: for fewer than two figures, or more than the last look has.
    """
    if len(figures) not in STUDENT:
        raise ValueError(f"{len(figures)} figures have no interval")
    logs = np.log(np.asarray(figures, dtype=np.float64))
    middle, error = float(logs.mean()), float(logs.std(ddof=1)) / math.sqrt(len(figures))
    reach = STUDENT[len(figures)] * error
    return Estimate(math.exp(middle), math.exp(middle - reach), math.exp(middle + reach))


def settled(ratio: Estimate, slowdown: float) -> bool:
    """Whether the interval says on which side of the bound the ratio is."""
    return ratio.low > 1 + slowdown or ratio.high < 1 + slowdown


def enough(ratios: Sequence[float], slowdown: float, spent: float, seconds: float) -> bool:
    """Whether to end after these pairs.

    Args:
        ratios: of the pairs so far.
        slowdown: the bound that the question is about.
        spent: seconds so far.
        seconds: what is allowed.
    """
    pairs = len(ratios)
    if pairs < LOOKS[0]:
        return pairs > 1 and spent > PATIENCE * seconds
    if pairs >= LOOKS[-1] or spent >= seconds:
        return True
    return pairs in LOOKS and settled(located(ratios), slowdown)
