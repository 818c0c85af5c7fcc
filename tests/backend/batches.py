"""Node tests in children, many to a child: one that crashes or hangs costs its own verdict and no other's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from exporter import isolate
from exporter.errors import ExporterError
from exporter.isolate import Limits

BATCH = 100
# The slowest of them takes seconds, and so does importing a runtime.
SILENT_SECONDS, BATCH_SECONDS, MEMORY = 90.0, 1800.0, 6 << 30
CRASHED, TIMED_OUT = "CRASHED", "TIMED_OUT"
RUN = "tests.backend.child:run"
Said = dict[str, str]


def run(
    target: str,
    way: str,
    folder: Path,
    names: Sequence[str],
    keep: Callable[[Mapping[str, Said]], None] = lambda found: None,
    function: str = RUN,
    silent_seconds: float = SILENT_SECONDS,
) -> dict[str, Said]:
    """Runs tests, in batches, and goes on after each that ends its child.

    Args:
        target: the target's name.
        way: ``ours`` or ``bare`` (:mod:`tests.backend.child`).
        folder: where the tests are (:mod:`tests.backend.cases`).
        names: the tests.
        keep: called after every child with all that was said so far.
        function: what the child runs.
        silent_seconds: what one test may take.

    Returns:
        By test its verdict, stage and reason.
    """
    found, left = dict[str, Said](), list(names)
    while left:
        request = {"target": target, "way": way, "folder": str(folder), "names": left[:BATCH]}
        found |= _of_child(request, folder, function, silent_seconds)
        keep(found)
        left = [name for name in left if name not in found]
    return found


def _of_child(request: Mapping[str, Any], folder: Path, function: str, silent_seconds: float) -> dict[str, Said]:
    """What a child said of its tests, and of the test that it ended at how it ended."""
    found, at = dict[str, Said](), ""
    limits = Limits(seconds=BATCH_SECONDS, memory_bytes=MEMORY)
    log = folder / f"{request['target']}-{request['way']}.log"
    stage, one_core = f"node tests of {request['target']}", {"OMP_NUM_THREADS": "1"}
    with isolate.start(function, request, limits=limits, log=log, stage=stage, env=one_core) as child:
        try:
            while (event := child.receive(silent_seconds)) is not None:
                at = event.get("begins", "")
                if not at:
                    found[event["ends"]] = event["said"]
        except ExporterError as error:
            if not at:  # it ended at no test: that is no verdict of a test
                raise
            outcome = child.result()
            verdict = TIMED_OUT if outcome.verdict.value == TIMED_OUT else CRASHED
            found[at] = {"verdict": verdict, "stage": "child", "reason": outcome.reason or error.what}
    return found
