"""What an export is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exporter.isolate import Limits
from exporter.stages import STAGE_SECONDS

# Instead of a precision: the fastest that meets the budget.
AUTO = "auto"


@dataclass(frozen=True)
class Request:
    """What an export is asked for.

    Args:
        model: the model's name, or where the user's own is (:mod:`exporter.models`).
        target: the target's name.
        output: the bundle's folder; default ``./MODEL.bundle``.
        checkpoint: a file of weights; without one they are seeded.
        precision: the precision to compile for, or :data:`AUTO`.
        dims: ``NAME=MIN:OPT:MAX`` texts.
        inputs: ``NAME=SHAPE:TYPE`` texts, of a user's own model.
        own: whether ``model`` is a user's own, found to be one.
        settings: options of the definition.
        samples: a file or folder of real inputs to judge on as well.
        budget: what a lower precision may cost, as :func:`exporter.budget.parsed` reads it.
        calibration: a file or folder of real inputs that int8 takes its scales from; the same folder as ``samples`` is
            split.
        seed: seeds weights, and the order of timing blocks.
        threads: CPU threads of the artifact and of eager while profiling; 0 is as many as there are cores.
        replace: whether another graph's bundle may be replaced.
        profile: whether to measure latency.
        extra: options of the target alone, as :func:`exporter.target_options.target_options` reads them.
        device: which accelerator of the machine to compile, verify and time on.
        limits: time and memory of each stage.
        cache: whether what earlier exports made may be used, and what this one makes kept (:mod:`exporter.cache`).
    """

    model: str
    target: str
    output: Path | None = None
    checkpoint: Path | None = None
    precision: str = "fp32"
    dims: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    samples: Path | None = None
    budget: Sequence[str] = ()
    calibration: Path | None = None
    inputs: Sequence[str] = ()
    own: bool = False
    seed: int = 0
    threads: int = 0
    replace: bool = False
    profile: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)
    device: int = 0
    limits: Limits = field(default_factory=lambda: Limits(seconds=STAGE_SECONDS))
    cache: bool = True

    @property
    def build(self) -> dict[str, Any]:
        """What a child needs to build the module again."""
        checkpoint = str(self.checkpoint.resolve()) if self.checkpoint else None
        known = {
            "model": self.model, "options": dict(self.settings), "dims": list(self.dims),
            "checkpoint": checkpoint, "seed": self.seed,
        }  # fmt: skip
        samples = str(self.samples.resolve()) if self.samples else None
        return known | ({"own": True, "inputs": list(self.inputs), "samples": samples} if self.own else {})
