"""What a lower precision may cost: bounds on the error, and on what a task metric loses.

A bound that was not measured is not met: unknown is never success.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite, log10
from typing import Any

from exporter.errors import Refused, nearest
from exporter.verdict import Result, Verdict

AMPLIFICATION, DECIBELS = "amplification", "snr"
# Signal-to-noise ratios of int8, in dB: fair, and poor, below which nothing is the model's answer. 30 is good.
FAIR, POOR = 20.0, 15.0
# An exact answer has no noise to divide by; nothing that is measured gets near this.
MOST_DECIBELS = 300.0
# The scales of cases that an error in dB is taken of, and that int8 is judged on: scales fit what they were taken
# from, and nothing a thousand times smaller.
CALIBRATED = ("normal", "sample")


@dataclass(frozen=True)
class Budget:
    """Bounds that all must hold; one that is None, and a metric that is not named, is not bounded.

    Args:
        amplification: the largest error in units of eager's own in that precision.
        decibels: the smallest signal-to-noise ratio against the reference, in dB.
        losses: by task metric, how much worse than eager's it may be on real inputs, in its own unit.
    """

    amplification: float | None = None
    decibels: float | None = None
    losses: Mapping[str, float] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self.amplification is not None or self.decibels is not None or bool(self.losses)

    def __str__(self) -> str:
        parts = [f"{AMPLIFICATION}:{self.amplification:g}"] if self.amplification is not None else []
        parts += [f"{DECIBELS}:{self.decibels:g}"] if self.decibels is not None else []
        return ",".join([*parts, *(f"{metric}:{loss:g}" for metric, loss in self.losses.items())])

    def over(self, other: Budget) -> Budget:
        """Both, where they bound the same this one's bound."""
        return Budget(
            other.amplification if self.amplification is None else self.amplification,
            other.decibels if self.decibels is None else self.decibels,
            {**other.losses, **self.losses},
        )


@dataclass(frozen=True)
class Spent:
    """What an artifact costs, of what was bounded or can be: None where nothing says.

    Attributes:
        decibels: the smallest signal-to-noise ratio over the cases.
        amplification: the largest.
        losses: by metric, the largest loss against the truth.
    """

    decibels: float | None
    amplification: float | None
    losses: Mapping[str, float]

    def as_json(self) -> dict[str, Any]:
        """As reports have it."""
        return {"decibels": self.decibels, "amplification": self.amplification, "losses": dict(self.losses)}


def spent(results: Iterable[Result], usual: Collection[str], metrics: Iterable[Mapping[str, Any]]) -> Spent:
    """What was measured of an artifact, the worst of all its forms.

    Args:
        results: its results.
        usual: the cases whose inputs are as they are meant to be: an error in dB says little of what is nearly nothing.
        metrics: the task metrics of every form, as :class:`exporter.parity.task.TaskMetrics` gives them.
    """
    listed = list(results)
    ratios = [r.amplification for r in listed if r.amplification is not None]
    return Spent(_decibels([r for r in listed if r.case in usual]), max(ratios, default=None), _losses(metrics))


def _decibels(results: Sequence[Result]) -> float | None:
    """The smallest; unknown where some output was no number, or was not there."""
    if any(r.relative_l2 is None and r.verdict is not Verdict.PASS for r in results):
        return None
    errors = [r.relative_l2 for r in results if r.relative_l2 is not None]
    return min((min(-20 * log10(error), MOST_DECIBELS) if error else MOST_DECIBELS for error in errors), default=None)


def _losses(metrics: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The largest loss by metric; one that is undefined where eager's is not is unknown, and so is all of it."""
    found: dict[str, float] = {}
    unknown: set[str] = set()
    for metric in metrics:
        worse, name = -1.0 if metric["better"] == "higher" else 1.0, metric["name"]
        for row in metric["cases"].values():
            if row["against"] != "truth" or row["eager"] is None:
                continue
            if row["difference"] is None:
                unknown.add(name)
            else:
                found[name] = max(found.get(name, -inf), worse * row["difference"])
    return {name: loss for name, loss in found.items() if name not in unknown}


def judged(budget: Budget, cost: Spent) -> tuple[Verdict, str]:
    """``PASS``, ``FAIL`` with what it overspends, or ``INVALID`` where a bound was not measured."""
    unknown, over = list[str](), list[str]()
    for metric, bound in budget.losses.items():
        loss = cost.losses.get(metric)
        if loss is None:
            unknown.append(metric)
        elif loss > bound:
            over.append(f"{metric} loses {loss:.3g} on real inputs; {bound:g} allowed")
    if budget.decibels is not None:
        if cost.decibels is None:
            unknown.append(DECIBELS)
        elif cost.decibels < budget.decibels:
            over.append(f"the error is {cost.decibels:.1f} dB below the output; {budget.decibels:g} dB asked for")
    if budget.amplification is not None:
        if cost.amplification is None:
            unknown.append(AMPLIFICATION)
        elif cost.amplification > budget.amplification:
            said = f"the error is {cost.amplification:.3g} times eager's own"
            over.append(f"{said}; {budget.amplification:g} allowed")
    if over:
        return Verdict.FAIL, "; ".join(over)
    if unknown:
        return Verdict.INVALID, f"{', '.join(unknown)} was not measured: no real input with a truth to compare with"
    return Verdict.PASS, ""


def parsed(texts: Sequence[str], metrics: Sequence[str], model: str) -> Budget:
    """The budget of ``--budget`` texts: ``amplification:2``, ``snr:30`` (dB) or ``METRIC:LOSS``, commas between.

    Args:
        texts: the texts.
        metrics: the task metrics that the model has.
        model: its name, for errors.

    Raises:
        Refused: ``bad-budget``.
    """
    known = [AMPLIFICATION, DECIBELS, *metrics]
    found: dict[str, float] = {}
    for part in (part.strip() for text in texts for part in text.split(",")):
        name, colon, text = part.partition(":")
        if name not in known:
            what = f"--budget {part}: {name or 'nothing'} is nothing to bound of {model}{nearest(name, known)}"
            raise _refused(what, f"{model} can be bounded in {', '.join(known)}")
        if name in found:
            raise _refused(f"--budget bounds {name} twice", "of two bounds one would be ignored")
        value = _number(text.removesuffix("dB").strip()) if colon else None
        if value is None:
            raise _refused(f"--budget {part}: {text or 'nothing'} is no bound", "a bound is a number from 0 up")
        found[name] = value
    if found.get(DECIBELS, POOR) < POOR:
        what = f"--budget {DECIBELS}:{found[DECIBELS]:g} asks for less than {POOR:g} dB"
        raise _refused(what, "what errs more is not the model's answer any more")
    return Budget(found.pop(AMPLIFICATION, None), found.pop(DECIBELS, None), found)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if isfinite(value) and value >= 0 else None


def _refused(what: str, why: str) -> Refused:
    return Refused("bad-budget", what, where="--budget", why=why, next="--budget snr:30, or --budget si-sdr:0.1")
