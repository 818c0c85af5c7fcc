"""How a child ended: a value, a verdict and the error that goes with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.errors import ExporterError
from exporter.verdict import Verdict


@dataclass(frozen=True)
class Outcome:
    """How a child ended.

    Attributes:
        value: what the function returned, when ``error`` is None.
        verdict: ``PASS`` when it returned; ``TIMED_OUT``; ``SKIPPED`` for :class:`Incomplete`, ``FAIL`` for
            :class:`NotProven`, ``INVALID`` for :class:`Refused`; ``CRASHED`` for everything else.
        error: what to raise when it did not return.
        seconds: wall time without pauses.
        peak_rss_bytes: the largest resident memory seen.
        log: the file with its standard output and error.
        reason: ``CRASHED(SIGSEGV)`` and the like, or the error's first part; None on ``PASS``.
    """

    value: Any
    verdict: Verdict
    error: ExporterError | None
    seconds: float
    peak_rss_bytes: int
    log: Path
    reason: str | None = None

    def require(self) -> Any:
        """The value, or the error raised."""
        if self.error is not None:
            raise self.error
        return self.value
