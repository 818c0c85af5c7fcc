"""Task metrics, numpy only, addressed by name from a manifest. They stand beside a verdict, never instead of it.

A metric reads one value, by its name, from what the steps after the graph gave and from the truth. It is undefined,
NaN, where the numbers do not decide it (no pixel has a truth, all scores are equal), and raises nothing for them.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from exporter.errors import Incomplete, Refused
from exporter.host.values import Array, required

Named = Mapping[str, Array]
Floats = NDArray[np.float64]

# An exact answer has no error to divide by; nothing that is measured gets near this.
MOST_DB = 300.0
TINY = np.finfo(np.float64).tiny
UNDEFINED = float("nan")

# An inverse STFT ends at the centre of the last frame: a recording comes back shorter by less than this.
LOST_SAMPLES = 1024

# KITTI 2015: a pixel is an outlier when its error is above 3 pixels and above 5 % of the true disparity.
OUTLIER_PIXELS = 3.0
OUTLIER_PART = 0.05

# Wang et al. 2004: 11 taps of a Gaussian, and the two constants for a range of 1.
SSIM_DEVIATION, SSIM_REACH = 1.5, 5
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2


@dataclass(frozen=True)
class Metric:
    """A task metric.

    Args:
        name: what definitions call it.
        function: ``(values, truth) -> number`` of one case; for ``over="cases"`` of lists of them, one per case.
        unit: of the number; empty for none.
        better: whether a higher or a lower number is better.
        over: ``case``: each case has a number; ``cases``: only all cases together have one.
        value: the name it reads from both.
    """

    name: str
    function: Callable[..., float]
    unit: str
    better: Literal["higher", "lower"]
    over: Literal["case", "cases"]
    value: str


def si_sdr(values: Named, truth: Named) -> float:
    """Scale-invariant signal-to-distortion ratio of ``audio`` in dB (Le Roux et al., ICASSP 2019).

    Args:
        values: holds the estimate, ``audio (samples,)``.
        truth: holds the target, ``audio``; a few samples more at the end, which an inverse STFT loses, do not count.
    """
    estimate, target = _recordings(values, truth)
    scaled = target * (np.dot(estimate, target) / max(np.dot(target, target), TINY))
    error = np.sum((estimate - scaled) ** 2)
    if error == 0.0:
        return MOST_DB
    return min(MOST_DB, float(10 * np.log10(max(np.sum(scaled**2), TINY) / error)))


def pesq(values: Named, truth: Named) -> float:
    """Perceptual evaluation of speech quality of ``audio`` (ITU-T P.862.2, wide band at 16 kHz, narrow band at 8 kHz).

    1 to 4.6, by the ``pesq`` package. Undefined where it finds no speech, or at another rate.

    Raises:
        Incomplete: ``runtime-absent`` without the package.
    """
    library = _library("pesq")
    estimate, target = _recordings(values, truth)
    rate = int(required(values, "sample_rate", "pesq"))
    if rate not in (8000, 16000):
        return UNDEFINED
    try:
        return float(library.pesq(rate, target, estimate, "wb" if rate == 16000 else "nb"))
    except (library.PesqError, ValueError, ZeroDivisionError):
        return UNDEFINED


def stoi(values: Named, truth: Named) -> float:
    """Short-time objective intelligibility of ``audio``, 0 to 1 (Taal et al., TASLP 2011), by the ``pystoi`` package.

    Undefined where the target is silent or too short.

    Raises:
        Incomplete: ``runtime-absent`` without the package.
    """
    library = _library("pystoi")
    estimate, target = _recordings(values, truth)
    if not target.any():
        return UNDEFINED
    with warnings.catch_warnings():
        # Too little speech is said by a warning and the number 1e-5, which is no measurement.
        warnings.simplefilter("error", RuntimeWarning)
        try:
            return float(library.stoi(target, estimate, int(required(values, "sample_rate", "stoi"))))
        except (RuntimeWarning, ValueError, IndexError):
            return UNDEFINED


def psnr(values: Named, truth: Named) -> float:
    """Peak signal-to-noise ratio of ``image`` in dB, for a range of 0 to 1.

    Args:
        values: holds ``image (1, C, H, W)``, floats from 0 to 1; a uint8 ``(H, W, C)`` picture counts as such.
        truth: holds the same.
    """
    error = float(np.mean((np.subtract(*_images(values, truth))) ** 2))
    return MOST_DB if error == 0.0 else min(MOST_DB, -10 * float(np.log10(error)))


def ssim(values: Named, truth: Named) -> float:
    """Structural similarity of ``image`` (Wang et al., TIP 2004): Gaussian window of 11 pixels, mean over channels.

    Equal to scikit-image's with ``gaussian_weights=True, use_sample_covariance=False, data_range=1``. Undefined for
    images smaller than the window.

    Args:
        values: holds ``image (1, C, H, W)``, floats from 0 to 1; a uint8 ``(H, W, C)`` picture counts as such.
        truth: holds the same.
    """
    x, y = _images(values, truth)
    if min(x.shape[-2:]) < 2 * SSIM_REACH + 1:
        return UNDEFINED
    mean_x, mean_y = _smoothed(x), _smoothed(y)
    variance_x, variance_y = _smoothed(x * x) - mean_x**2, _smoothed(y * y) - mean_y**2
    covariance = _smoothed(x * y) - mean_x * mean_y
    above = (2 * mean_x * mean_y + SSIM_C1) * (2 * covariance + SSIM_C2)
    below = (mean_x**2 + mean_y**2 + SSIM_C1) * (variance_x + variance_y + SSIM_C2)
    return float(np.mean(above / below))


def epe(values: Named, truth: Named) -> float:
    """End-point error of ``disparity (H, W)`` in pixels: the mean distance where the truth is known (finite)."""
    found, wanted = _known_disparities(values, truth)
    return float(np.mean(np.abs(found - wanted))) if wanted.size else UNDEFINED


def d1_all(values: Named, truth: Named) -> float:
    """Outliers of ``disparity (H, W)`` in % of the pixels with a known truth (KITTI 2015, all pixels).

    A pixel is one when it is wrong by more than 3 pixels and by more than 5 % of the true disparity, or is no number.
    """
    found, wanted = _known_disparities(values, truth)
    error = np.abs(found - wanted)
    fair = (error <= OUTLIER_PIXELS) | (error <= OUTLIER_PART * np.abs(wanted))
    return float(100 * np.mean(~fair)) if wanted.size else UNDEFINED


def plcc(values: Sequence[Named], truths: Sequence[Named]) -> float:
    """Pearson's linear correlation of ``score`` with the true scores, -1 to 1, over all cases.

    Undefined for fewer than two scores, or where all of either side are equal.
    """
    return _correlation(*_scores(values, truths))


def srcc(values: Sequence[Named], truths: Sequence[Named]) -> float:
    """Spearman's rank correlation of ``score``, as :func:`plcc`; equal scores share the mean of their ranks."""
    found, wanted = _scores(values, truths)
    return _correlation(_ranks(found), _ranks(wanted))


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("si-sdr", si_sdr, "dB", "higher", "case", "audio"),
        Metric("pesq", pesq, "", "higher", "case", "audio"),
        Metric("stoi", stoi, "", "higher", "case", "audio"),
        Metric("psnr", psnr, "dB", "higher", "case", "image"),
        Metric("ssim", ssim, "", "higher", "case", "image"),
        Metric("epe", epe, "px", "lower", "case", "disparity"),
        Metric("d1-all", d1_all, "%", "lower", "case", "disparity"),
        Metric("plcc", plcc, "", "higher", "cases", "score"),
        Metric("srcc", srcc, "", "higher", "cases", "score"),
    )
}


# ------------------------------------------------------------------------------------------------- what they read


def _recordings(values: Named, truth: Named) -> tuple[Floats, Floats]:
    estimate, target = (np.asarray(required(v, "audio", "metric"), np.float64) for v in (values, truth))
    if estimate.ndim != 1 or target.ndim != 1 or abs(estimate.size - target.size) >= LOST_SAMPLES:
        raise _other_shape("audio", estimate, target)
    common = min(estimate.size, target.size)
    return estimate[:common], target[:common]


def _images(values: Named, truth: Named) -> tuple[Floats, Floats]:
    found, wanted = (_planes(required(v, "image", "metric")) for v in (values, truth))
    if found.shape != wanted.shape:
        raise _other_shape("image", found, wanted)
    return found, wanted


def _planes(image: Array) -> Floats:
    """``(1, C, H, W)`` from 0 to 1."""
    if image.dtype != np.uint8:
        return np.asarray(image, np.float64)
    picture = image[..., None] if image.ndim == 2 else image
    return picture.astype(np.float64).transpose(2, 0, 1)[np.newaxis] / 255.0


def _known_disparities(values: Named, truth: Named) -> tuple[Floats, Floats]:
    found, wanted = (np.asarray(required(v, "disparity", "metric"), np.float64) for v in (values, truth))
    if found.shape != wanted.shape:
        raise _other_shape("disparity", found, wanted)
    known = np.isfinite(wanted)
    return found[known], wanted[known]


def _scores(values: Sequence[Named], truths: Sequence[Named]) -> tuple[Floats, Floats]:
    found, wanted = (
        np.concatenate(
            [np.zeros(0), *(np.asarray(required(v, "score", "metric"), np.float64).reshape(-1) for v in side)]
        )
        for side in (values, truths)
    )
    if found.shape != wanted.shape:
        raise _other_shape("score", found, wanted)
    return found, wanted


def _other_shape(name: str, found: Array, wanted: Array) -> Refused:
    return Refused(
        "bad-sample",
        f"{name} is {found.shape}, and its truth is {wanted.shape}",
        where="task metric",
        why="a metric compares value by value",
        next="give a truth of the size of what the model gives",
    )


def _library(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise Incomplete(
            "runtime-absent",
            f"a metric needs the package {package}, which is not installed",
            why="a standard's own code is used where there is one, so that the number means what it means elsewhere",
            next="pip install '.[speech]'",
        ) from error


def _correlation(x: Floats, y: Floats) -> float:
    if x.size < 2 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return UNDEFINED
    # Compared before the mean is taken off: the mean of equal numbers need not be that number, to the last bit.
    if (x == x[0]).all() or (y == y[0]).all():
        return UNDEFINED
    x, y = x - x.mean(), y - y.mean()
    x, y = x / np.abs(x).max(), y / np.abs(y).max()
    return float(np.clip(np.dot(x, y) / np.sqrt(np.dot(x, x) * np.dot(y, y)), -1.0, 1.0))


def _ranks(values: Floats) -> Floats:
    """Ranks from 1; equal values share the mean of theirs."""
    if not np.isfinite(values).all():
        return values
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[places], np.float64)


def _smoothed(image: Floats) -> Floats:
    """The Gaussian mean around every pixel whose window lies in the image, over the last two axes."""
    taps = np.exp(-0.5 * (np.arange(-SSIM_REACH, SSIM_REACH + 1) / SSIM_DEVIATION) ** 2)
    taps /= taps.sum()
    for axis in (-2, -1):
        kept = image.shape[axis] - 2 * SSIM_REACH
        total = np.zeros(1)
        for at, tap in enumerate(taps):
            total = total + tap * np.take(image, range(at, at + kept), axis)
        image = total
    return image
