"""Verdicts as values. Unknown is never success."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any


class Verdict(str, Enum):
    """What can be said of a hop, a case or a run. Only ``PASS`` is success."""

    PASS = "PASS"
    FAIL = "FAIL"
    INVALID = "INVALID"
    CRASHED = "CRASHED"
    TIMED_OUT = "TIMED_OUT"
    UNSUPPORTED = "UNSUPPORTED"
    SKIPPED = "SKIPPED"

    def __str__(self) -> str:
        return self.value

    @property
    def exit_code(self) -> int:
        """The exit code of a run whose worst verdict this is."""
        return {"PASS": 0, "SKIPPED": 3, "CRASHED": 4, "TIMED_OUT": 4}.get(self.value, 1)


# The first that applies decides a run: a crash outweighs a failure, a failure an absence.
SEVERITY = (
    Verdict.CRASHED,
    Verdict.TIMED_OUT,
    Verdict.FAIL,
    Verdict.INVALID,
    Verdict.UNSUPPORTED,
    Verdict.SKIPPED,
    Verdict.PASS,
)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict of a whole from its parts; a whole without parts checked nothing and is ``INVALID``."""
    found = set(verdicts)
    return next((verdict for verdict in SEVERITY if verdict in found), Verdict.INVALID)


@dataclass(frozen=True)
class Result:
    """One output of one case on one hop.

    Attributes:
        hop: ``traced``, ``simplified``, ``lowered`` or ``compiled``.
        target: the target's name on compiled hops, else None.
        form: which of the artifact's files ran (a target may ship the same model in two formats), else None.
        case: the case's name.
        output: the output's name.
        verdict: the verdict on this output alone.
        reason: why it is not ``PASS``, in words; None when it is.
        relative_l2: ``|y - y64| / |y64|`` over all elements.
        noise: the same figure for eager PyTorch in this precision: the yardstick.
        amplification: ``relative_l2 / max(noise, unit roundoff)``.
        max_abs: the largest element error.
        elements: how many elements were compared.
        notes: things counted and shown that are no alarm, such as a reference that is all zero.
    """

    hop: str
    target: str | None
    form: str | None
    case: str
    output: str
    verdict: Verdict
    reason: str | None = None
    relative_l2: float | None = None
    noise: float | None = None
    amplification: float | None = None
    max_abs: float | None = None
    elements: int = 0
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The result as ``--json`` prints it."""
        return asdict(self) | {"verdict": self.verdict.value, "notes": list(self.notes)}


@dataclass(frozen=True)
class Precision:
    """A precision in its three senses: asked by the user, stored in the artifact, computed by the runtime."""

    asked: str
    stored: str
    ran: str | None = None

    def as_json(self) -> dict[str, str | None]:
        """The precision as ``--json`` prints it."""
        return {"asked": self.asked, "stored": self.stored, "ran": self.ran}


@dataclass(frozen=True)
class Hop:
    """One edge of eager -> traced -> simplified -> compiled, with a verdict of its own.

    Attributes:
        hop: ``traced``, ``simplified``, ``lowered`` or ``compiled``.
        target: the target's name on compiled hops, else None.
        precision: what was asked, is stored, and ran; None where there is no runtime of ours.
        verdict: the worst of the results, or of the stage itself (``CRASHED``, ``TIMED_OUT``, ``SKIPPED``).
        reason: why it is not ``PASS``.
        results: every output of every case.
        facts: what else the hop measured (nodes per provider, layer types, drift), for the report.
    """

    hop: str
    target: str | None
    verdict: Verdict
    reason: str | None = None
    precision: Precision | None = None
    results: tuple[Result, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def worst_result(self) -> Result | None:
        """The result that decides the hop: the worst verdict, then the largest amplification."""
        if not self.results:
            return None
        return min(self.results, key=lambda r: (SEVERITY.index(r.verdict), -(r.amplification or 0.0)))

    def as_json(self) -> dict[str, Any]:
        """The hop as ``--json`` prints it, without the list of results."""
        worst_result = self.worst_result
        return {
            "hop": self.hop,
            "target": self.target,
            "precision": self.precision.as_json() if self.precision else None,
            "verdict": self.verdict.value,
            "reason": self.reason,
            "worst": worst_result.as_json() if worst_result else None,
            "facts": self.facts,
        }
