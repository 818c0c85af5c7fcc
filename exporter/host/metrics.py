"""Task metrics, numpy only, addressed by name from a manifest. They stand beside a verdict, never instead of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from exporter import host
from exporter.spec import HostStep

Array = NDArray[np.generic]

# An exact answer has no error to divide by; nothing that is measured gets near this.
MOST_DB = 300.0


def si_sdr(values: Mapping[str, Array], truth: Mapping[str, Array]) -> float:
    """Scale-invariant signal-to-distortion ratio of ``audio`` in dB (Le Roux et al., ICASSP 2019).

    Args:
        values: holds the estimate, ``audio (samples,)``.
        truth: holds the target, ``audio`` of the same length.
    """
    estimate, target = (np.asarray(v["audio"], np.float64) for v in (values, truth))
    scaled = target * (np.dot(estimate, target) / max(np.dot(target, target), np.finfo(np.float64).tiny))
    error = np.sum((estimate - scaled) ** 2)
    if error == 0.0:
        return MOST_DB
    return min(MOST_DB, float(10 * np.log10(max(np.sum(scaled**2), np.finfo(np.float64).tiny) / error)))


METRICS: Mapping[str, Callable[[Mapping[str, Array], Mapping[str, Array]], float]] = {"si-sdr": si_sdr}


def against_reference(
    metric: str, after: Sequence[HostStep], outputs: Mapping[str, Array], reference: Mapping[str, Array]
) -> float:
    """The metric of an artifact's outputs, with the reference's as the truth, both after the host steps."""
    return METRICS[metric](host.apply(after, dict(outputs)), host.apply(after, dict(reference)))
