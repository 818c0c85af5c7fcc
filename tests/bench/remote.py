"""Profiling on a device behind ssh, against the same profile run where the command is typed."""

from __future__ import annotations

import os
from pathlib import Path

from exporter.latency import stats
from tests.bench.figure import CHECKPOINT, DEVICE, EXPORTER, Figure, at_most, whole
from tests.fakes.sshd import Server

RUNS = 7


def figures(folder: Path) -> list[Figure]:
    """Seconds of the whole command with nothing to copy, on a real sshd of this machine, to those of the local one."""
    weights = ["--checkpoint", str(CHECKPOINT)] if CHECKPOINT.exists() else []
    for target in ("openvino", "mobile"):
        whole([EXPORTER, target, "gtcrn-stream", *weights, "--no-profile", "-o", "gtcrn-stream.bundle"], folder)
    server = Server(folder / "device").start()
    os.environ.update(server.here)
    # The same interpreter on both sides, so that the same subjects are timed.
    here = [str(DEVICE / "exporter"), "profile", "gtcrn-stream.bundle"]
    there = [EXPORTER, "profile", "gtcrn-stream.bundle", "--on", server.address]
    try:
        first = whole(there, folder)[0]
        whole(here, folder)
        pairs = [(whole(there, folder)[0], whole(here, folder)[0]) for _ in range(RUNS)]
    finally:
        server.stop()
    ratio = stats.ratio_interval([[a for a, _ in pairs]], [[b for _, b in pairs]], 0)
    seconds, local = (sorted(values)[RUNS // 2] for values in zip(*pairs, strict=True))
    note = f"{seconds:.1f} s against {local:.1f} s; {first:.1f} s the first time, with everything to copy"
    label = "`exporter profile gtcrn-stream.bundle --on ssh://...`, nothing to copy, against the same run locally"
    return [at_most(label, 1.3, ratio.value, interval=tuple(ratio.interval), note=note)]
