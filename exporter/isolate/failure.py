"""Why a child gave no value: the reason, its verdict, and the error to raise, with the last lines of its log.

The codes and the error that carries them stay in one module: the test that holds a page for every code follows a code
within a module only.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from exporter.errors import KINDS, ExporterError, Incomplete, NotProven, Refused, StageFailed, from_json
from exporter.verdict import Verdict

LOG_LINES, LOG_TAIL_BYTES = 8, 8192

# Allocators of native libraries raise types of their own; these words are what they have in common.
OUT_OF_MEMORY_WORDS = ("bad_alloc", "can't allocate memory", "out of memory")


@dataclass(frozen=True)
class Ending:
    """Why a child did not return a value."""

    verdict: Verdict
    code: str
    reason: str
    what: str


def timed_out(stage: str, seconds: float, how: str) -> Ending:
    took = f"{seconds:g} s"
    what = f"{stage} was stopped after {took}" + (f" {how}" if how else ", its limit")
    return Ending(Verdict.TIMED_OUT, "stage-timed-out", f"TIMED_OUT({took})", what)


def broken(stage: str, how: str) -> Ending:
    return Ending(Verdict.CRASHED, "stage-crashed", "CRASHED(protocol)", f"{stage} {how}")


def out_of_memory(stage: str, used: int, allowed: int) -> Ending:
    what = f"{stage} used {_gib(used)} of memory; its limit is {_gib(allowed)}"
    return Ending(Verdict.CRASHED, "stage-out-of-memory", "CRASHED(out of memory)", what)


def killed(stage: str) -> Ending:
    return Ending(Verdict.CRASHED, "stage-crashed", "CRASHED(killed)", f"{stage} was killed by its parent")


def crashed(stage: str, status: int | None) -> Ending:
    """Of a child that ended by itself without a result: the exit status is all there is to go by."""
    if status == -signal.SIGKILL:
        what = f"{stage} was killed from outside, probably because the machine ran out of memory"
        return Ending(Verdict.CRASHED, "stage-out-of-memory", "CRASHED(SIGKILL)", what)
    cause = _cause(status)
    return Ending(Verdict.CRASHED, "stage-crashed", f"CRASHED({cause})", f"{stage} crashed: {cause}")


def stopped(ending: Ending, log: Path, since: int) -> StageFailed:
    """The error of a child that ended for a reason; its part of the log begins at ``since``."""
    return _failure(ending.code, ending.what, log, since)


def raised(stage: str, said: Mapping[str, str], log: Path, since: int) -> ExporterError:
    """The error of a function that raised: one of ours as it was there, any other by its name."""
    if said.get("kind") in KINDS:
        return from_json(said)
    message = said.get("message", "")
    name = said.get("type", "Exception")
    memory = said.get("kind") == "MemoryError" or any(word in message.lower() for word in OUT_OF_MEMORY_WORDS)
    what = f"{stage} raised {name}: {message}" if message else f"{stage} raised {name}"
    return _failure("stage-out-of-memory" if memory else "stage-failed", what, log, since)


def verdict_of(error: ExporterError) -> Verdict:
    kinds: dict[type[ExporterError], Verdict] = {
        Incomplete: Verdict.SKIPPED,
        NotProven: Verdict.FAIL,
        Refused: Verdict.INVALID,
    }
    return kinds.get(type(error), Verdict.CRASHED)


def _failure(code: str, what: str, log: Path, since: int) -> StageFailed:
    tail = _tail(log, since)
    why = f"its last lines: {tail}" if tail else "it left nothing in its log"
    return StageFailed(code, what, where=f"log {log}", why=why, next=f"exporter explain {code}")


def _cause(status: int | None) -> str:
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


def _tail(log: Path, since: int) -> str:
    """The last lines a child left in its log, fit for a terminal."""
    try:
        with log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(since, end - LOG_TAIL_BYTES))
            text = file.read(LOG_TAIL_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
    # What a model makes a library print must not drive the terminal.
    lines = [re.sub(r"[^\x20-\x7e\u00a0-\U0010ffff]", "", line)[:200].strip() for line in _untraced(text.splitlines())]
    return " | ".join([line for line in lines if line.strip("~^ ")][-LOG_LINES:])


def _untraced(lines: Sequence[str]) -> list[str]:
    """Lines without traces of what was raised, which stays itself: whoever wants one finds it in the log, whole."""
    found, inside = list[str](), False
    for line in lines:
        inside = line.startswith("Traceback (most recent call last)") or (inside and line.startswith(" "))
        if not inside:
            found.append(line)
    return found


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
