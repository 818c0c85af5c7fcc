"""A figure with its bar, and the interleaved timing that gives ratios."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from exporter.latency import stats
from exporter.latency.clock import Monotonic, time_each

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("EXPORTER_DATA", ROOT.parent / "shared" / "data")) / "gtcrn"
CHECKPOINT, NOISY, ENHANCED, PEER = (
    DATA / name for name in ("gtcrn_dns3.tar", "noisy.wav", "enhanced_reference.wav", "peer_stream.onnx")
)
EXPORTER = str(Path(sys.executable).with_name("exporter"))
DEVICE = ROOT / ".venv-device" / "bin"


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    Attributes:
        what: what was measured.
        bar: what was asked for, in words.
        value: the median, or the one value.
        interval: its 95 % interval where it was timed.
        unit: ``x``, ``dB``, ``s``, ``MB`` or nothing.
        met: whether the bar is met.
        note: what else is worth knowing.
    """

    what: str
    bar: str
    value: float
    met: bool
    unit: str = ""
    interval: Sequence[float] | None = None
    note: str = ""

    def row(self) -> str:
        """The figure as a row of a Markdown table."""
        interval = f" ({self.interval[0]:.3g} to {self.interval[1]:.3g})" if self.interval else ""
        met = "yes" if self.met else "**no**"
        return f"| {self.what} | {self.bar} | {self.value:.3g}{self.unit}{interval} | {met} | {self.note} |"


def at_most(what: str, bar: float, value: float, unit: str = "x", **rest: object) -> Figure:
    """A figure that must not exceed its bar."""
    return Figure(what, f"<= {bar:g}{unit}", value, value <= bar, unit, **rest)  # type: ignore[arg-type]


def at_least(what: str, bar: float, value: float, unit: str, **rest: object) -> Figure:
    """A figure that must reach its bar."""
    return Figure(what, f">= {bar:g} {unit}", value, value >= bar, f" {unit}", **rest)  # type: ignore[arg-type]


def interleaved(
    of: Callable[[], object], to: Callable[[], object], *, rounds: int = 60, calls: int = 30, seed: int = 0
) -> tuple[float, tuple[float, float], float, float]:
    """Times two calls in short blocks in random order, as ``exporter profile`` does: a block is its median call.

    Returns:
        The ratio of their medians, its 95 % interval, and both medians in seconds per call.
    """
    order, blocks = random.Random(seed), {of: [], to: []}
    for subject in (of, to):
        for _ in range(3 * calls):
            subject()
    for _ in range(rounds):
        pair = [of, to]
        order.shuffle(pair)
        for subject in pair:
            subject()  # the other's data is in the caches
            blocks[subject].append(float(np.median(time_each(subject, calls, Monotonic())[0])))
    estimate = stats.ratio_interval([blocks[of]], [blocks[to]], seed)
    low, high = estimate.interval
    return estimate.value, (low, high), float(np.median(blocks[of])) / 1e9, float(np.median(blocks[to])) / 1e9


def whole(command: Sequence[str], cwd: Path) -> tuple[float, float]:
    """Seconds and largest process in MB of a whole command; it must end with 0."""
    # The largest process is asked of the kernel: a small program that waits for the command and reports on it.
    script = (
        "import resource, subprocess, sys, time; s = time.perf_counter(); "
        "p = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True); "
        "print(time.perf_counter() - s, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, p.returncode);"
        "sys.stderr.write(p.stderr[-2000:])"
    )
    done = subprocess.run([sys.executable, "-c", script, *command], cwd=cwd, capture_output=True, text=True, check=True)
    seconds, megabytes, code = done.stdout.split()
    assert code == "0", f"{' '.join(command)} ended with {code}: {done.stderr}"
    return float(seconds), float(megabytes)


def repeated(measure: Callable[[], float], runs: int = 5) -> tuple[float, tuple[float, float]]:
    """Median and 95 % interval of a measurement repeated."""
    estimate = stats.median_interval([[measure() for _ in range(runs)]], 0)
    low, high = estimate.interval
    return estimate.value, (low, high)
