"""Restormer from trace to verdict: minutes and memory."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

from tests.bench.figure import EXPORTER, Figure, at_most

MODEL = "restormer"


def figures(folder: Path) -> list[Figure]:
    """The whole export with one case at 256 x 256, and its largest process."""
    started = time.monotonic()
    words = [EXPORTER, "openvino", MODEL, "--no-profile", "--json", "-o", str(folder / f"{MODEL}.bundle")]
    said = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    minutes = (time.monotonic() - started) / 60
    hops = {hop["hop"]: hop["worst"]["amplification"] for hop in said["verify"]["hops"]}
    note = f"{said['verdict']}; error over eager's own: " + ", ".join(f"{hop} {x:.2g}x" for hop, x in hops.items())
    largest = max(stage["peak_rss_mb"] for stage in said["stages"]) / 1024
    what = f"`exporter openvino {MODEL}`, cases to 256 x 256"
    return [
        at_most(f"{what}: trace to verdict", 8, minutes, " min", note=note),
        at_most(f"{what}: largest process", 8, largest, " GB"),
    ]
