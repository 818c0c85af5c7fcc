"""What differs, as values: a result, a hop, a latency on both sides; and what counts as a regression."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from exporter.comparison.side import Key
from exporter.latency.result import rounded
from exporter.latency.stats import Conclusion, Estimate
from exporter.verdict import SEVERITY, Hop, Result, Verdict


@dataclass(frozen=True)
class Bounds:
    """What counts as a regression.

    Attributes:
        slowdown: a shown slow-down counts where it is larger than this part.
        error: an error counts where it is more than so many times the larger of the other side's and eager's own.
        asked_slowdown: whether latency was asked about, so that its absence is no answer.
        asked_error: the same of parity.
        strict: whether a latency must be settled: its interval on one side of the bound.
    """

    slowdown: float = 0.05
    error: float = 2.0
    asked_slowdown: bool = False
    asked_error: bool = False
    strict: bool = False

    @classmethod
    def of(cls, slowdown: float | None, error: float | None, strict: bool = False) -> Bounds:
        """Those that a user gave, and the usual ones in the place of None."""
        usual = cls()
        return cls(
            usual.slowdown if slowdown is None else slowdown,
            usual.error if error is None else error,
            asked_slowdown=slowdown is not None,
            asked_error=error is not None,
            strict=strict,
        )


class Change(str, Enum):
    """What became of something from A to B."""

    SAME = "same"
    WORSE = "worse"
    BETTER = "better"
    GONE = "gone"
    NEW = "new"

    def __str__(self) -> str:
        return self.value


BAD = frozenset({Change.WORSE, Change.GONE})


@dataclass(frozen=True)
class ResultDifference:
    """One output of one case on one hop, on both sides."""

    a: Result | None
    b: Result | None
    change: Change

    def as_json(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        either = self.b or self.a
        assert either is not None
        return {
            **{name: getattr(either, name) for name in ("form", "case", "output")},
            "change": self.change.value,
            "a": _result_json(self.a),
            "b": _result_json(self.b),
        }


@dataclass(frozen=True)
class HopDifference:
    """One edge on both sides, with what was compared on it."""

    key: Key
    a: Hop | None
    b: Hop | None
    change: Change
    results: tuple[ResultDifference, ...] = ()

    @property
    def label(self) -> str:
        """What to call it."""
        hop, target, precision = self.key
        return " ".join(filter(None, [hop, f"{target}/{precision}" if target else precision]))

    @property
    def reason(self) -> str:
        """Why it is worse, in a line."""
        if self.change is Change.GONE:
            return f"{self.label} was judged in A and is not in B"
        if self.b and not self.a:
            return f"{self.label} is new in B, and {self.b.verdict}: {self.b.reason or 'no reason told'}"
        if self.a and self.b and severity(self.b.verdict) < severity(self.a.verdict):
            return f"{self.label} was {self.a.verdict} and is {self.b.verdict}: {self.b.reason or 'no reason told'}"
        gone = sum(each.change is Change.GONE for each in self.results)
        worse = sum(each.change is Change.WORSE for each in self.results)
        parts = [f"{gone} of {len(self.results)} results are gone"] if gone else []
        parts += [f"{worse} of {len(self.results)} results are worse"] if worse else []
        return f"{self.label}: {', '.join(parts)}"

    def as_json(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        hop, target, precision = self.key
        return {
            "hop": hop,
            "target": target or None,
            "precision": precision or None,
            "change": self.change.value,
            "a": _hop_json(self.a),
            "b": _hop_json(self.b),
            "results": [each.as_json() for each in self.results],
        }


@dataclass(frozen=True)
class Timed:
    """The latency of one artifact on both sides.

    Attributes:
        subject: what profiles call it.
        how: ``live``, measured for this comparison side by side; ``stored``, from reports; nothing where it was not.
        a, b: milliseconds per call with intervals.
        ratio: how long B takes as a part of A.
        conclusion: what that shows.
        regression: whether it is a shown slow-down beyond the bound.
        reason: why there is no ratio.
        verdict: ``PASS`` where both could be timed; of B otherwise.
        facts: what else is worth knowing of the measurement.
    """

    subject: str
    how: str = ""
    a: Estimate | None = None
    b: Estimate | None = None
    ratio: Estimate | None = None
    conclusion: Conclusion = Conclusion.UNDECIDED
    regression: bool = False
    reason: str = ""
    verdict: Verdict = Verdict.PASS
    facts: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        return {
            "subject": self.subject,
            "how": self.how or None,
            "a": _estimate_json(self.a, "ms"),
            "b": _estimate_json(self.b, "ms"),
            "ratio": _estimate_json(self.ratio),
            "conclusion": self.conclusion.value if self.ratio else None,
            "regression": self.regression,
            "verdict": self.verdict.value,
            "reason": self.reason or None,
            **self.facts,
        }


def severity(verdict: Verdict) -> int:
    """How bad a verdict is: the smaller, the worse."""
    return SEVERITY.index(verdict)


def _estimate_json(estimate: Estimate | None, unit: str = "") -> dict[str, Any] | None:
    if estimate is None:
        return None
    interval = [rounded(end) for end in estimate.interval]
    return {unit or "value": rounded(estimate.value), f"interval_{unit}" if unit else "interval": interval}


def _result_json(result: Result | None) -> dict[str, Any] | None:
    if result is None:
        return None
    names = ("relative_l2", "noise", "amplification", "max_abs", "elements", "reason")
    return {"verdict": result.verdict.value} | {name: getattr(result, name) for name in names}


def _hop_json(hop: Hop | None) -> dict[str, Any] | None:
    if hop is None:
        return None
    worst = hop.worst_result
    return {
        "verdict": hop.verdict.value,
        "reason": hop.reason,
        "ran": hop.precision.ran if hop.precision else None,
        "worst": None if worst is None else _result_json(worst) | {"case": worst.case, "output": worst.output},  # type: ignore[operator]
    }
