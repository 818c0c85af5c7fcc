"""A second target of a model that was exported before, into another bundle, against the first: what the cache saves."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

from exporter.latency import stats
from tests.bench.figure import EXPORTER, Figure, at_most

VQA = (
    "--set", "fusion=hierarchical", "--set", "backbone=test_efficientnet", "--set",
    "second_backbone=test_efficientnet", "--set", "feature_dim=64",
)  # fmt: skip
MODELS = (("gtcrn", ()), ("restormer", ("--dim", "H=64:64:72", "--dim", "W=64:64:72")), ("vqa", VQA))
TARGETS = ("openvino", "mobile")
ROUNDS = 3


def figures(folder: Path) -> list[Figure]:
    """One figure per model: the time until the first target's compile, and until the second's."""
    return [_figure(folder / f"reuse-{model}", model, words) for model, words in MODELS]


def _figure(folder: Path, model: str, words: tuple[str, ...]) -> Figure:
    before: dict[str, list[float]] = {target: [] for target in TARGETS}
    whole: dict[str, list[float]] = {target: [] for target in TARGETS}
    for number in range(ROUNDS):  # first, second, first, second: a cache of its own for each pair
        place = folder / str(number)
        place.mkdir(parents=True)
        for target in TARGETS:
            until, total = _exported(place, target, model, words)
            before[target].append(until)
            whole[target].append(total)
        shutil.rmtree(place)
    first, second = TARGETS
    estimate = stats.ratio_interval([before[second]], [before[first]], 0)
    low, high = estimate.interval
    all_of_it = stats.ratio_interval([whole[second]], [whole[first]], 0).value
    note = (
        f"{_median(before[second]):.1f} s against {_median(before[first]):.1f} s; the whole command "
        f"{all_of_it:.2g}x, {_median(whole[second]):.1f} s against {_median(whole[first]):.1f} s"
    )
    what = f"`exporter {second} {model} --no-profile` after `{first}` in another bundle: until `compile` begins"
    return at_most(what, 0.4, estimate.value, interval=(low, high), note=note)


def _median(seconds: list[float]) -> float:
    return sorted(seconds)[len(seconds) // 2]


def _exported(place: Path, target: str, model: str, words: tuple[str, ...]) -> tuple[float, float]:
    """Seconds from the start of the command until it says that it compiles, and until its end."""
    command = [EXPORTER, target, model, "--no-profile", "-o", str(place / f"{target}.bundle"), *words]
    env = {**os.environ, "XDG_CACHE_HOME": str(place / "cache")}
    env.pop("EXPORTER_CACHE_MB", None)
    started, until = time.perf_counter(), 0.0
    with subprocess.Popen(command, env=env, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as running:
        assert running.stderr is not None
        for line in running.stderr:
            if line.startswith("compile ..."):
                until = time.perf_counter() - started
    assert running.returncode == 0 and until, f"{' '.join(command)} ended with {running.returncode}"
    return until, time.perf_counter() - started
