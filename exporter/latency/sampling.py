"""The machine while something runs on it: clocks, heat and power, read a few times a second beside the work."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from exporter.latency.environment import ROOT, clock_mhz, hottest
from exporter.latency.power import Source

EVERY_SECONDS = 0.25


@dataclass(frozen=True)
class Moment:
    """The machine at one moment; what it does not tell is None or missing.

    Attributes:
        at: seconds on the sampler's clock.
        mhz: the mean clock of its cores.
        celsius: its hottest sensor.
        power: joules or watts, by source.
    """

    at: float
    mhz: float | None
    celsius: float | None
    power: dict[str, float] = field(default_factory=dict)


def look(sources: Sequence[Source], clock: Callable[[], float] = time.monotonic, root: Path = ROOT) -> Moment:
    """The machine now."""
    power: dict[str, float] = {}
    for source in sources:
        with suppress(OSError, ValueError):
            power[source.name] = source.read()
    return Moment(clock(), clock_mhz(root), hottest(root), power)


class Sampler:
    """Looks at the machine from a thread, for as long as its block lasts. A look takes less than a millisecond."""

    def __init__(self, sources: Sequence[Source], every: float = EVERY_SECONDS, root: Path = ROOT) -> None:
        self._sources, self._every, self._root = sources, every, root
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self.moments: list[Moment] = []

    def __enter__(self) -> Sampler:
        self.moments.append(look(self._sources, root=self._root))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self.moments.append(look(self._sources, root=self._root))

    def _run(self) -> None:
        while not self._over.wait(self._every):
            self.moments.append(look(self._sources, root=self._root))
