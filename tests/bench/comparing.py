"""`exporter compare` on artifacts that are the same, and on one with a slow-down planted in it."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from exporter.comparison import Bounds, Measuring, compare
from exporter.comparison.values import Timed
from exporter.latency.stats import Conclusion
from tests.bench.figure import EXPORTER, Figure, at_least, at_most

TARGETS = ("mobile", "openvino")
SAME, PLANTED = 200, 40
# One more block of ten is a tenth more work, in nodes that the runtime cannot do without.
BLOCKS, MORE = 20, 22
MODEL = """
import torch


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(32, 32, 3, padding=1)

    def forward(self, x):
        return x + torch.relu(self.conv(x))


def net(blocks: int = 20):
    torch.manual_seed(0)
    return torch.nn.Sequential(*[Block() for _ in range(blocks)]).eval(), (torch.randn(1, 32, 32, 32),)
"""


def figures(folder: Path) -> list[Figure]:
    """A bundle against its copy, and against one whose artifacts do a tenth more work; both targets in turn."""
    before, after = _exported(folder, BLOCKS), _exported(folder, MORE)
    again = Path(shutil.copytree(before, folder / "again.bundle"))
    same = list(_compared(before, again, SAME))
    claimed = [timed for timed in same if timed.conclusion is not Conclusion.UNDECIDED]
    failed = sum(timed.regression for timed in same)
    planted = list(_compared(before, after, PLANTED))
    found = sum(timed.regression for timed in planted)
    bound = f"`--max-slowdown {Bounds().slowdown:.0%}`"
    return [
        at_most(
            f"{SAME} comparisons of a bundle with its copy: a difference is claimed",
            5.0, 100 * len(claimed) / SAME, "%", note=f"{len(claimed)} claimed, {failed} beyond {bound}; {_cost(same)}",
        ),
        at_least(
            f"{PLANTED} comparisons with an artifact of a tenth more nodes: it is found, beyond {bound}",
            95.0, 100 * found / PLANTED, "%", note=f"{found} of {PLANTED}; {_cost(planted)}",
        ),
    ]  # fmt: skip


def _exported(folder: Path, blocks: int) -> Path:
    """A bundle of the network in both targets, by the command line."""
    (folder / "net.py").write_text(MODEL, encoding="utf-8")
    path = folder / f"net{blocks}.bundle"
    for target in TARGETS:
        words = [EXPORTER, target, "net.py:net", "--set", f"blocks={blocks}", "--no-profile", "-o", str(path)]
        subprocess.run(words, cwd=folder, check=True, capture_output=True)
    return path


def _compared(a: Path, b: Path, count: int) -> Iterator[Timed]:
    for number in range(count):
        target = TARGETS[number % len(TARGETS)]
        found = compare(str(a), str(b), (target,), measuring=Measuring(seed=number))
        (timed,) = found.timings
        if timed.ratio is None:
            raise AssertionError(f"{target} could not be timed: {timed.reason}")
        print(f"-- {b.name} {number + 1} of {count}: {timed.as_json()}", file=sys.stderr, flush=True)
        yield timed


def _cost(timings: list[Timed]) -> str:
    """The ratio over all tries, and what one took."""
    ratios = [float(timed.ratio.value) for timed in timings if timed.ratio]
    seconds, pairs = ([float(timed.facts[name]) for timed in timings] for name in ("seconds", "pairs"))
    return (
        f"median ratio {statistics.median(ratios):.3f}, all within {min(ratios):.3f} to {max(ratios):.3f}; "
        f"{statistics.median(pairs):.0f} pairs of processes and {statistics.median(seconds):.0f} s each (median), at "
        f"most {max(pairs):.0f} and {max(seconds):.0f} s"
    )
