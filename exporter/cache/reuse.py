"""Stages by way of the cache: what is kept is taken, what is not is made and kept."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import get_ident
from typing import Any

from exporter.cache.entry import Entry
from exporter.cache.key import digest_of
from exporter.cache.store import Cache
from exporter.external import GRAPH
from exporter.graph import Graph, sha256
from exporter.isolate import Outcome, live
from exporter.stages import Stages
from exporter.verdict import Verdict

WORK = "work:"  # what a path in the work folder begins with in an entry


def _abandon(begun: Sequence[Future[Outcome]], threads: Collection[int]) -> None:
    """Ends what other threads run, which nobody wants any more: leaving their pool would wait for it."""
    for running in begun:
        running.cancel()
    while not all(running.done() for running in begun):
        for child in live():
            if child.thread in threads:
                child.abort()
        wait(begun, timeout=0.05)


@dataclass(frozen=True)
class Call:
    """A stage to run: the function in a child, and its request."""

    stage: str
    function: str
    request: Mapping[str, Any]


@dataclass(frozen=True)
class _Asked:
    """A call with its key, None where that cannot be told, and the places in the work folder that it will write to."""

    call: Call
    key: str | None
    places: tuple[str, ...]


class _UnknownError(Exception):
    """A request whose content cannot be told from its text."""


@dataclass(kw_only=True)
class Reusing(Stages):
    """Stages whose products are kept, and taken again where everything they depend on is the same.

    A request is known by its text, where every path in it stands for what lies there: for a name and a digest, or for
    a place in the work folder that the stage will write to.

    Args:
        work: the folder that the stages write to.
        cache: where products are kept; None to make everything.
        model: the model's name.
        around: says what products depend on beside requests, see :func:`exporter.cache.key.surroundings`.
    """

    work: Path
    cache: Cache | None
    model: str
    around: Callable[[], Mapping[str, Any]]
    _digests: dict[tuple[str, int, int], str] = field(default_factory=dict)

    def attempt(self, stage: str, function: str, request: Mapping[str, Any]) -> Outcome:
        """Takes what the cache has of a stage, or runs it; only what a child returned is kept."""
        asked = self._asked(Call(stage, function, request))
        return self._taken(asked) or self._made(asked)

    def together(self, *calls: Call) -> dict[str, Outcome]:
        """Runs stages at once that do not wait for one another; the last one in this thread.

        What will run is said here, so that what is printed does not depend on which thread is faster.
        """
        several = [self._asked(call) for call in calls]
        found = {asked.call.stage: self._taken(asked) for asked in several}
        missing = [asked for asked in several if found[asked.call.stage] is None]
        for asked in missing:
            self.progress(asked.call.stage, {})
        threads = set[int]()
        with ThreadPoolExecutor(max(len(missing), 1), initializer=lambda: threads.add(get_ident())) as pool:
            begun = {asked.call.stage: pool.submit(self._made, asked) for asked in missing[:-1]}
            try:
                made = {asked.call.stage: self._made(asked) for asked in missing[-1:]}
                made |= {stage: running.result() for stage, running in begun.items()}
            except BaseException:
                _abandon(list(begun.values()), threads)
                raise
        return {call.stage: found[call.stage] or made[call.stage] for call in calls}

    def _asked(self, call: Call) -> _Asked:
        places = tuple(text for text in _texts(call.request) if self._inside(text) and not os.path.isfile(text))
        return _Asked(call, self._key(call, places, self._around) if self.cache is not None else None, places)

    @cached_property
    def _around(self) -> Mapping[str, Any]:
        return self.around()

    def _taken(self, asked: _Asked) -> Outcome | None:
        if self.cache is None or asked.key is None:
            return None
        entry = self.cache.fetch(asked.key, self.work)
        if entry is None:
            return None
        self.reused(asked.call.stage)
        log = self.folder / "reused.log"  # there is none: nothing ran
        return Outcome(self._placed(entry.value), Verdict.PASS, None, 0.0, 0, log)

    def _made(self, asked: _Asked) -> Outcome:
        call = asked.call
        outcome = super().attempt(call.stage, call.function, call.request)
        if self.cache is None or asked.key is None or outcome.error is not None:
            return outcome
        value = self._relative(outcome.value)
        # Code that was edited, or a checkpoint that was exchanged, while the stage ran: it may have read either.
        same = self._key(call, asked.places, self.around()) == asked.key
        if same and self._placed(value) == outcome.value:
            names = [os.path.relpath(path, self.work) for path in _files_at(asked.places)]
            self.cache.keep(Entry(asked.key, self.model, call.stage, time.time(), value, {}), self.work, names)
        return outcome

    def _key(self, call: Call, places: Sequence[str], around: Mapping[str, Any]) -> str | None:
        """The key of what a stage will give; None where that cannot be told."""
        try:
            request = self._known(call.request, places)
        except (_UnknownError, OSError):
            return None
        return digest_of({"function": call.function, "stage": call.stage, "request": request, "around": around})

    def _known(self, value: Any, places: Sequence[str]) -> Any:
        """A request with every path replaced by what it stands for."""
        if isinstance(value, Mapping):
            return {name: self._known(item, places) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._known(item, places) for item in value]
        if not isinstance(value, str) or not value:
            return value
        if self._inside(value):
            return {"work": os.path.relpath(value, self.work), "sha256": None if value in places else self._of(value)}
        if os.path.isfile(value):
            return {"file": os.path.basename(value), "sha256": self._of(value)}
        if os.sep in value and os.path.isdir(value):
            raise _UnknownError(value)  # a folder that an option names: what is read of it nobody knows
        return value

    def _of(self, path: str) -> list[str]:
        """The digest of a file, and of what a graph has beside it; taken once for as long as nothing is changed."""
        return [self._digest(file) for file in _together(path)]

    def _digest(self, path: Path) -> str:
        found = path.stat()
        known = (str(path), found.st_size, found.st_mtime_ns)
        if known not in self._digests:
            self._digests[known] = sha256(path)
        return self._digests[known]

    def _inside(self, text: str) -> bool:
        return text.startswith(f"{self.work}{os.sep}")

    def _relative(self, value: Any) -> Any:
        return _mapped(value, lambda s: WORK + os.path.relpath(s, self.work) if self._inside(s) else s)

    def _placed(self, value: Any) -> Any:
        return _mapped(value, lambda s: str(self.work / s.removeprefix(WORK)) if s.startswith(WORK) else s)


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """A JSON value with every text in it changed; keys stay."""
    if isinstance(value, Mapping):
        return {name: _mapped(item, change) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_mapped(item, change) for item in value]
    return change(value) if isinstance(value, str) else value


def _texts(value: Any) -> Iterator[str]:
    """Every text in a JSON value; keys are names, not texts."""
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str):
        yield value


def _together(path: str) -> tuple[Path, ...]:
    """A file, and the external data beside it where it is a graph that has some."""
    return Graph(Path(path)).files if path.endswith(GRAPH) else (Path(path),)


def _files_at(places: Sequence[str]) -> Iterator[str]:
    """The files that a stage wrote: the places themselves, and all that lies in those that are folders."""
    for place in places:
        if os.path.isfile(place):
            yield from map(str, _together(place))
        for folder, _, names in os.walk(place):
            yield from (os.path.join(folder, name) for name in sorted(names))
