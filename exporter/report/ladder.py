"""How large an error was allowed to be, as the report that judged it says: the rung stands among a hop's facts."""

from __future__ import annotations

from exporter.parity.ladder import UNIT_ROUNDOFF
from exporter.report.values import Judged
from exporter.verdict import Result


def yardstick_of(result: Result) -> float | None:
    """What an error is measured in: eager's own, or the unit roundoff where that is larger."""
    if result.relative_l2 and result.amplification:
        return result.relative_l2 / result.amplification
    return result.noise


def bound_of(judged: Judged, result: Result) -> float | None:
    """The largest relative error that was allowed; None where the report does not say its rung."""
    rung = judged.facts.fields("rung")
    most, times = rung.number("error"), rung.number("bound")
    yardstick = yardstick_of(result)
    if most is None or result.relative_l2 is None:
        return None
    if times is None or yardstick is None:  # a rung without a yardstick bounds the error itself
        return most
    return min(most, times * max(yardstick, UNIT_ROUNDOFF.get(judged.key[2] or "fp32", 0.0)))
