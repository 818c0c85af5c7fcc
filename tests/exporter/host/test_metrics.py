"""SI-SDR: what it must ignore, and what it must not."""

from __future__ import annotations

import numpy as np
import pytest

from exporter.host.metrics import MOST_DB, si_sdr

RNG = np.random.default_rng(0)
TRUTH = RNG.standard_normal(16000)
NOISE = RNG.standard_normal(16000)


@pytest.mark.parametrize("decibels", [0.0, 20.0, 60.0, 120.0])
def test_known_noise_gives_the_known_ratio(decibels: float) -> None:
    orthogonal = NOISE - TRUTH * np.dot(NOISE, TRUTH) / np.dot(TRUTH, TRUTH)
    scale = np.linalg.norm(TRUTH) / np.linalg.norm(orthogonal) * 10 ** (-decibels / 20)
    assert si_sdr({"audio": TRUTH + scale * orthogonal}, {"audio": TRUTH}) == pytest.approx(decibels, abs=1e-3)


def test_scale_does_not_matter_and_shape_does() -> None:
    assert si_sdr({"audio": 0.25 * TRUTH}, {"audio": TRUTH}) > 250
    assert si_sdr({"audio": np.roll(TRUTH, 1)}, {"audio": TRUTH}) < 0


def test_an_exact_answer_is_a_number() -> None:
    assert si_sdr({"audio": TRUTH}, {"audio": TRUTH}) == MOST_DB
    assert np.isfinite(si_sdr({"audio": np.zeros(10)}, {"audio": np.zeros(10)}))
