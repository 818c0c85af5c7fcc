"""Every error a user can meet, as one tree. Each class is one exit code; each code is a word with a page.

    ExporterError
    |-- Refused       exit 2   bad usage or bad input, found before any work was done
    |-- StageFailed   exit 4   a stage crashed, timed out, or ran out of memory
    |-- NotProven     exit 1   the work was done and the result cannot be trusted (FAIL, INVALID, UNSUPPORTED)
    |-- Incomplete    exit 3   a runtime is absent here; the message says how to finish elsewhere
    `-- Defect        exit 70  our own mistake, never the user's

An error has four parts: what (with the value), where (model, stage, tensor, file), why the rule exists, and the
next command. ``exporter explain CODE`` prints the page in :mod:`exporter.explain`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

SCHEMA = "exporter.error/1"


class ExporterError(Exception):
    """An error with four parts and a code.

    Args:
        code: the word under which ``exporter explain`` knows it, such as ``"bad-dim"``.
        what: what failed, with the value.
        where: model, stage, tensor or file.
        why: why the rule exists.
        next: a command to paste, or the one thing to do.
    """

    exit_code: ClassVar[int] = 70

    def __init__(self, code: str, what: str, *, where: str = "", why: str = "", next: str = "") -> None:
        super().__init__(f"error[{code}]: {what}")
        self.code = code
        self.what = what
        self.where = where
        self.why = why
        self.next = next

    def as_json(self) -> dict[str, str]:
        """The error as the object that ``--json`` prints."""
        parts = {"code": self.code, "what": self.what, "where": self.where, "why": self.why, "next": self.next}
        return {"schema": SCHEMA, **parts}

    def __reduce__(self) -> tuple[object, ...]:
        return from_json, (self.as_json() | {"kind": type(self).__name__},)


class Refused(ExporterError):
    """Bad usage or bad input, found before any work was done; nothing was written and nothing was run."""

    exit_code = 2


class StageFailed(ExporterError):
    """A stage crashed, timed out, or ran out of memory."""

    exit_code = 4


class NotProven(ExporterError):
    """The work was done and its result cannot be trusted."""

    exit_code = 1


class Incomplete(ExporterError):
    """A runtime is absent on this machine; ``next`` says how to finish where it is present."""

    exit_code = 3


class Defect(ExporterError):
    """A mistake of this program."""

    exit_code = 70


KINDS = {kind.__name__: kind for kind in (Refused, StageFailed, NotProven, Incomplete, Defect)}


def from_json(value: Mapping[str, str]) -> ExporterError:
    """The error that :meth:`ExporterError.as_json` described, with its class if ``kind`` names one."""
    kind = KINDS.get(value.get("kind", ""), Defect)
    parts = {part: value.get(part, "") for part in ("where", "why", "next")}
    return kind(value.get("code", "internal"), value.get("what", ""), **parts)


def nearest(word: str, known: list[str], most: int = 3) -> str:
    """A hint naming the known words closest to ``word``: ``'; nearest: gtcrn, gtcrn-stream'`` or nothing."""
    from difflib import get_close_matches

    close = get_close_matches(word, known, n=most, cutoff=0.5)
    return f"; nearest: {', '.join(close)}" if close else ""
