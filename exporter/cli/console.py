"""The terminal, for people: the one module that imports rich. Plain and stable lines when piped."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape as unmarked
from rich.table import Table

from exporter.stages import silent

PIPE_WIDTH = 400
COLOURS = {"PASS": "green", "SKIPPED": "yellow", "STABLE": "green", "NOISY": "yellow"}
Event = Mapping[str, Any]
Progress = Callable[[str, Event], None]


def escape(text: str) -> str:
    """Text that is neither markup nor a control code: what a model or a library says must not drive the terminal."""
    return unmarked(plain(text))


def plain(text: str) -> str:
    """Text without control codes, in one line."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", text)


class _Labelled:
    """Standard output with a device's name in front of every line."""

    def __init__(self, label: str) -> None:
        self._label, self._new = escape(label).replace("\\", "") + " | ", True

    def write(self, text: str) -> int:
        for line in text.splitlines(keepends=True):
            sys.stdout.write((self._label if self._new else "") + line)
            self._new = line.endswith("\n")
        return len(text)

    def flush(self) -> None:
        sys.stdout.flush()

    def isatty(self) -> bool:
        return sys.stdout.isatty()


_marked: list[_Labelled] = []  # whose lines are printed now, where they are another device's


@contextmanager
def labelled(label: str) -> Iterator[None]:
    """Marks every line of :func:`console` with a device's name."""
    _marked.append(_Labelled(label))
    try:
        yield
    finally:
        _marked.pop()


def console() -> Console:
    """Standard output, for people."""
    file: Any = _marked[-1] if _marked else sys.stdout
    # A pipe has no width: rows stay whole lines there.
    return Console(file=file, highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else PIPE_WIDTH)


def errors() -> Console:
    """Standard error, for people."""
    return Console(file=sys.stderr, highlight=False, soft_wrap=True)


def mark(word: str) -> str:
    """A verdict, in its colour where there are any."""
    return f"[bold {COLOURS.get(word, 'red')}]{word}[/]"


@contextmanager
def progress(quiet: bool) -> Iterator[Progress]:
    """Shows stages on stderr while they run: one live line on a terminal, a line per stage in a pipe."""
    if quiet:
        yield silent
    elif sys.stderr.isatty():
        with _live() as report:
            yield report
    else:
        yield _plain()


@contextmanager
def _live() -> Iterator[Progress]:
    with Console(file=sys.stderr, highlight=False).status("starting") as status:
        started: dict[str, float] = {}

        def report(stage: str, event: Event) -> None:
            seconds = time.monotonic() - started.setdefault(stage, time.monotonic())
            status.update(f"[bold]{escape(stage)}[/] {escape(_described(event))} [dim]{seconds:.0f} s[/]")

        yield report


def _plain() -> Progress:
    begun: set[str] = set()

    def say(line: str) -> None:
        sys.stderr.write(line + "\n")  # in one piece: two stages may run at once
        sys.stderr.flush()

    def report(stage: str, event: Event) -> None:
        left = event.get("left_seconds")
        if stage not in begun:
            begun.add(stage)
            say(f"{stage} ...")
        elif left is not None and event.get("done") == event.get("of", 0) // 2 and left > 5:
            say(f"  about {left:.0f} s left in {stage}")

    return report


def _described(event: Event) -> str:
    count = f" {event['done']}/{event['of']}" if "of" in event else ""
    left = f", about {event['left_seconds']:.0f} s left" if event.get("left_seconds", 0) > 5 else ""
    return f"{event.get('what', '')}{count}{left}"


def table(*columns: str) -> Table:
    """A table of these columns, whose cells stay in one line."""
    made = Table(box=None, pad_edge=False)
    for column in columns:
        made.add_column(column, no_wrap=True)
    return made


def listing(out: Console, rows: Sequence[Sequence[str]], columns: Sequence[str]) -> None:
    """Prints rows under their columns, cells of any length."""
    made = Table(box=None, pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(escape(str(cell)) for cell in row))
    out.print(made)
