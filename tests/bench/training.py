"""Training the quality model on two cores: minutes, and how well it then ranks images it has never seen."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from tests.bench.figure import ROOT, Figure, at_least, at_most

SMALL = ("fusion=hierarchical", "backbone=test_efficientnet", "second_backbone=test_efficientnet", "feature_dim=64")


def figures(folder: Path) -> list[Figure]:
    """One run of the trainer with its defaults, on the small configuration of the README."""
    if find_spec("timm") is None or find_spec("skimage") is None:
        return []
    started = time.monotonic()
    sets = [word for option in SMALL for word in ("--set", option)]
    words = [sys.executable, "-m", "model_defs.vqa.train", "-o", str(folder / "trained"), *sets]
    said = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    minutes = (time.monotonic() - started) / 60
    (best,) = re.findall(r"^best: epoch \d+, SRCC ([0-9.]+)", said, re.MULTILINE)
    what = "`python -m model_defs.vqa.train`, a small configuration"
    return [
        at_most(f"{what}", 10, minutes, " min", note=", ".join(SMALL)),
        at_least(f"{what}: SRCC on photographs held out", 0.9, float(best), ""),
    ]
