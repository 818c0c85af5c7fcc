"""A model of 3 GiB of weights, more than protobuf holds: memory of every stage, in units of the weights."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import inf
from pathlib import Path

from tests.bench.figure import EXPORTER, ROOT, Figure, at_most

MEBIBYTES = 3072
# What an export of it takes at its worst: two stages that run at once, and the graphs that passes leave.
MEMORY_GIB, DISK_GIB = 12, 24
TARGETS = ("openvino", "mobile")
# Of a stage, by the beginning of its name: what it may take. Verifying has the runtime's own copy in it.
BARS = {"trace": 2.5, "reference": 2.5, "verify": 1.3}


def bar_of(stage: str) -> float:
    """What a stage may take; endless where there is no bar. The traced graph's layouts are folded when it is loaded."""
    found = [bar for kind, bar in BARS.items() if stage.startswith(kind) and stage != "verify traced"]
    return found[0] if found else inf


def missing(folder: Path) -> str:
    """Why this machine cannot do it now; nothing where it can."""
    facts = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines())
    memory, disk = int(facts["MemAvailable"].split()[0]) / 2**20, shutil.disk_usage(folder).free / 2**30
    if memory >= MEMORY_GIB and disk >= DISK_GIB:
        return ""
    return f"{memory:.0f} GiB of memory and {disk:.0f} GiB on disk are free; it takes {MEMORY_GIB} and {DISK_GIB}"


def exported(folder: Path, mebibytes: int) -> Iterator[tuple[str, Mapping[str, float]]]:
    """Exports the model for one target after the other into one bundle, and removes it at the end.

    Args:
        folder: where to.
        mebibytes: how large its weights are.

    Yields:
        The target, and what each stage took at its most, in units of the weights.
    """
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tests" / "cli_fakes" / "site")}
    bundle = folder / "large.bundle"
    try:
        for target in TARGETS:
            words = [EXPORTER, target, "large", "--set", f"mebibytes={mebibytes}", "--no-profile", "-o", str(bundle)]
            done = subprocess.run([*words, "--json"], env=env, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
            stages = [s for s in json.loads(done.stdout)["stages"] if not s["cached"]]
            names = {s["stage"]: f"compile {target}" if s["stage"] == "compile" else s["stage"] for s in stages}
            yield target, {names[s["stage"]]: s["peak_rss_mb"] / mebibytes for s in stages}
    finally:
        shutil.rmtree(bundle, ignore_errors=True)


def figures(folder: Path) -> list[Figure]:
    """Every stage of the exports; those without a bar in the note of the first."""
    if reason := missing(folder):
        return [Figure(f"{MEBIBYTES} MiB of weights", "exported", 0.0, False, note=f"not measured: {reason}")]
    found = {stage: times for _, stages in exported(folder, MEBIBYTES) for stage, times in stages.items()}
    barred = [stage for stage in found if bar_of(stage) < inf]
    rest = ", ".join(f"{stage} {times:.2f}x" for stage, times in found.items() if stage not in barred)
    what = f"peak memory of `{{}}`, {MEBIBYTES} MiB of weights"
    made = [at_most(what.format(stage), bar_of(stage), found[stage]) for stage in barred]
    return [replace(made[0], note=f"without a bar: {rest}"), *made[1:]]
