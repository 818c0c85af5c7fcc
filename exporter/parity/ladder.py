"""The ladder: how far above eager PyTorch's own rounding an artifact may be. One table, each rung with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from exporter.budget import FAIR


@dataclass(frozen=True)
class Rung:
    """A bound on ``amplification = relative L2 error / max(eager's own, unit roundoff)``.

    A rung of ``decibels`` bounds the error itself: signal to noise against the reference.
    """

    name: str
    bound: float
    reason: str
    decibels: float | None = None

    @property
    def error(self) -> float:
        """The largest relative error, whatever eager does."""
        return LARGEST_ERROR if self.decibels is None else 10 ** (-self.decibels / 20)

    def as_json(self) -> dict[str, float | str | None]:
        """The rung as reports keep it: ``bound`` times eager's own error, and no more than ``error``."""
        return {"name": self.name, "bound": self.bound if isfinite(self.bound) else None, "error": self.error}


# Whatever eager does in a precision, an output further off than this (20 dB) is not the model's: a bound that eager's
# own collapse would stretch to cover anything could not fail.
LARGEST_ERROR = 0.1

RUNGS = {
    rung.name: rung
    for rung in (
        Rung(
            "portable",
            4.0,
            "the same float32 operations in another order: 0.6 to 3.3 measured on whole networks, 100 runs",
        ),
        Rung("compiled", 16.0, "fused and Winograd float32 kernels: up to 4.5 measured; a silent bf16 run is 14,000"),
        Rung("low", 2.0, "fp16 and bf16 against eager in that precision: 0.2 to 1.1 measured"),
    )
}

# No element may be further off than this many times eager's largest, so that one broken pixel is not averaged away.
# Right f32 artifacts measured: 1.2 to 7.2 times (docs/parity.md).
ELEMENT_GUARD = 64.0


# No eager computes in int8, so its error is bounded by itself; 30 dB is good, 20 fair, 15 poor.
QUANTISED_RUNG = Rung("quantised", float("inf"), "int8 against the reference: its scales are not eager's", FAIR)

UNIT_ROUNDOFF = {"fp32": 2.0**-24, "tf32": 2.0**-11, "fp16": 2.0**-11, "bf16": 2.0**-8, "int8": 2.0**-8}

# A reference that moves less than this many times its noise between cases of one shape says nothing.
VACUOUS = 16.0

# An output of fewer values than this is measured against what it usually is, not against what it is in one case.
FEW = 16

# Where the error alone is bounded, an output must follow its inputs in some pair of cases at least: what it changes by
# may be off by so much.
FOLLOWED = 0.5
