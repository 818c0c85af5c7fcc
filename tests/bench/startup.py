"""What a command costs before it does anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.bench.figure import EXPORTER, Figure, at_most, repeated, whole

HEAVY = ("torch", "onnx", "onnxruntime", "openvino")


def figures(folder: Path) -> list[Figure]:
    """Seconds of ``exporter --help``, and that it imports none of the heavy packages."""
    seconds, interval = repeated(lambda: whole([EXPORTER, "--help"], folder)[0], runs=11)
    listed = subprocess.run(
        [sys.executable, "-X", "importtime", EXPORTER, "--help"], capture_output=True, text=True, check=True
    ).stderr
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in listed.splitlines()}
    heavy = sorted(imported & set(HEAVY))
    note = f"imports {', '.join(heavy)}" if heavy else f"imports none of {', '.join(HEAVY)}"
    figure = at_most("`exporter --help`", 0.25, seconds, " s", interval=interval, note=note)
    return [Figure(**{**figure.__dict__, "met": figure.met and not heavy})]
