"""How a child ended: a value, a verdict and the error that goes with it."""

from __future__ import annotations

import os
import re
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.errors import ExporterError, Incomplete, NotProven, Refused
from exporter.verdict import Verdict

LOG_LINES, LOG_TAIL_BYTES = 8, 8192


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


@dataclass(frozen=True)
class Ending:
    """Why a child did not return a value."""

    verdict: Verdict
    code: str
    reason: str
    what: str


def verdict_of(error: ExporterError) -> Verdict:
    kinds: dict[type[ExporterError], Verdict] = {
        Incomplete: Verdict.SKIPPED,
        NotProven: Verdict.FAIL,
        Refused: Verdict.INVALID,
    }
    return kinds.get(type(error), Verdict.CRASHED)


def timed_out(stage: str, seconds: float, how: str) -> Ending:
    took = f"{seconds:g} s"
    what = f"{stage} was stopped after {took}" + (f" {how}" if how else ", its limit")
    return Ending(Verdict.TIMED_OUT, "stage-timed-out", f"TIMED_OUT({took})", what)


def broken(stage: str, how: str) -> Ending:
    return Ending(Verdict.CRASHED, "stage-crashed", "CRASHED(protocol)", f"{stage} {how}")


def cause_of(status: int | None) -> str:
    """An exit status in words."""
    if status is None:
        return "exit status unknown"
    if status == 0:
        return "exited without a result"
    if status > 0:
        return f"exit code {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def last_lines(log: Path, since: int) -> str:
    """The last lines a child left in its log, fit for a terminal."""
    try:
        with log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(since, end - LOG_TAIL_BYTES))
            text = file.read(LOG_TAIL_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
    # What a model makes a library print must not drive the terminal.
    lines = [re.sub(r"[^\x20-\x7e\u00a0-\U0010ffff]", "", line)[:200].strip() for line in text.splitlines()]
    return " | ".join([line for line in lines if line][-LOG_LINES:])
