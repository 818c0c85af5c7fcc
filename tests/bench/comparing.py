"""`exporter compare` on artifacts that are the same, and on one with a slow-down planted in it."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from exporter.comparison import Bounds, Measuring, compare
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
    """A bundle against its copy, and against one whose artifacts do a tenth more work; both targets in turn.

    It takes an hour or two. ``EXPORTER_BENCH_TRIES=FILE`` keeps every try there, and a run that was ended goes on.
    """
    before, after = _exported(folder, BLOCKS), _exported(folder, MORE)
    again = Path(shutil.copytree(before, folder / "again.bundle"))
    kept = Path(os.environ.get("EXPORTER_BENCH_TRIES") or folder / "tries.jsonl")
    planted = list(_compared(before, after, PLANTED, kept))
    same = list(_compared(before, again, SAME, kept))
    claimed = [timed for timed in same if timed["conclusion"] != Conclusion.UNDECIDED.value]
    failed = sum(timed["regression"] for timed in same)
    found = sum(timed["regression"] for timed in planted)
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


def _compared(a: Path, b: Path, count: int, kept: Path) -> Iterator[dict[str, Any]]:
    """So many tries, each as ``--json`` has it; those that are kept are not made again."""
    lines = kept.read_text(encoding="utf-8").splitlines() if kept.is_file() else []
    done = dict(map(json.loads, lines))
    for number in range(count):
        target, name = TARGETS[number % len(TARGETS)], f"{a.stem} {b.stem} {number}"
        if name not in done:
            found = compare(str(a), str(b), (target,), measuring=Measuring(seed=number))
            (timed,) = found.timings
            if timed.ratio is None:
                raise AssertionError(f"{target} could not be timed: {timed.reason}")
            done[name] = timed.as_json()
            with kept.open("a", encoding="utf-8") as file:
                file.write(json.dumps([name, done[name]]) + "\n")
        yield done[name]


def _cost(timings: list[dict[str, Any]]) -> str:
    """The ratio over all tries, and what one took."""
    ratios = [timed["ratio"]["value"] for timed in timings]
    seconds, pairs = ([timed[name] for timed in timings] for name in ("seconds", "pairs"))
    return (
        f"median ratio {statistics.median(ratios):.3f}, all within {min(ratios):.3f} to {max(ratios):.3f}; "
        f"{statistics.median(pairs):.0f} pairs of processes and {statistics.median(seconds):.0f} s each (median), at "
        f"most {max(pairs):.0f} and {max(seconds):.0f} s"
    )
