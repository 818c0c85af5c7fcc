"""Task metrics against the libraries that define them, against hand-made cases, and where they are undefined."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

from exporter.errors import Incomplete, Refused
from exporter.host.metrics import METRICS, MOST_DB, d1_all, epe, plcc, psnr, si_sdr, srcc, ssim

RNG = np.random.default_rng(0)
TRUTH = RNG.standard_normal(16000)
NOISE = RNG.standard_normal(16000)


def test_the_table_is_keyed_by_name_and_says_what_is_read() -> None:
    assert all(name == metric.name for name, metric in METRICS.items())
    assert {metric.value for metric in METRICS.values()} == {"audio", "image", "disparity", "score"}
    assert {name for name, metric in METRICS.items() if metric.over == "cases"} == {"plcc", "srcc"}
    assert {name for name, metric in METRICS.items() if metric.better == "lower"} == {"epe", "d1-all"}


# ----------------------------------------------------------------------------------------------------------- speech


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


def test_what_an_inverse_stft_loses_at_the_end_does_not_count() -> None:
    assert si_sdr({"audio": TRUTH[:-255]}, {"audio": TRUTH}) == MOST_DB
    with pytest.raises(Refused, match="audio"):
        si_sdr({"audio": TRUTH[:-1024]}, {"audio": TRUTH})


def spoken(rate: int = 16000, seconds: float = 2.0) -> np.ndarray:
    """Something with the rhythm and the harmonics of speech."""
    t = np.arange(int(rate * seconds)) / rate
    voice = sum(np.sin(2 * np.pi * 120 * k * t * (1 + 0.02 * np.sin(2 * np.pi * 3 * t))) / k for k in range(1, 25))
    return (0.1 * voice * (np.sin(2 * np.pi * 4 * t) > -0.2) * (0.6 + 0.4 * np.sin(2 * np.pi * 1.3 * t))).astype(
        np.float32
    )


@pytest.mark.parametrize("name", ["pesq", "stoi"])
def test_speech_quality_is_that_of_its_library(name: str) -> None:
    library = pytest.importorskip("pesq" if name == "pesq" else "pystoi")
    clean = spoken()
    noisy = (clean + 0.05 * np.random.default_rng(1).standard_normal(clean.size)).astype(np.float32)
    rate = np.array(16000)
    found = METRICS[name].function({"audio": noisy, "sample_rate": rate}, {"audio": clean})
    wanted = library.pesq(16000, clean, noisy, "wb") if name == "pesq" else library.stoi(clean, noisy, 16000)
    assert found == pytest.approx(float(wanted), rel=1e-4)
    best = METRICS[name].function({"audio": clean, "sample_rate": rate}, {"audio": clean})
    assert best > found + 0.05


@pytest.mark.parametrize("name", ["pesq", "stoi"])
def test_silence_has_no_speech_quality(name: str) -> None:
    pytest.importorskip("pesq" if name == "pesq" else "pystoi")
    quiet = {"audio": np.zeros(16000, np.float32), "sample_rate": np.array(16000)}
    short = {"audio": spoken()[:400], "sample_rate": np.array(16000)}
    assert math.isnan(METRICS[name].function(quiet, quiet))
    assert math.isnan(METRICS[name].function(short, short))


def test_pesq_knows_two_rates() -> None:
    pytest.importorskip("pesq")
    clean = spoken()
    assert math.isnan(METRICS["pesq"].function({"audio": clean, "sample_rate": np.array(44100)}, {"audio": clean}))


@pytest.mark.parametrize(("name", "package"), [("pesq", "pesq"), ("stoi", "pystoi")])
def test_without_its_library_a_metric_says_how_to_get_it(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    values = {"audio": TRUTH, "sample_rate": np.array(16000)}
    with pytest.raises(Incomplete, match=package) as caught:
        METRICS[name].function(values, values)
    assert caught.value.code == "runtime-absent" and "pip install" in caught.value.next


# ----------------------------------------------------------------------------------------------------------- images


def images(channels: int = 3, size: tuple[int, int] = (40, 56)) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[0 : size[0], 0 : size[1]] / 20
    clean = np.stack([0.5 + 0.4 * np.sin(3 * x + k) * np.cos(2 * y) for k in range(channels)])[None]
    noisy = np.clip(clean + RNG.normal(0, 0.08, clean.shape), 0, 1)
    return noisy.astype(np.float32), clean.astype(np.float32)


@pytest.mark.parametrize("channels", [1, 3])
def test_psnr_and_ssim_are_those_of_scikit_image(channels: int) -> None:
    library = pytest.importorskip("skimage.metrics")
    noisy, clean = images(channels)
    x, y = noisy[0].astype(np.float64), clean[0].astype(np.float64)
    found = psnr({"image": noisy}, {"image": clean})
    assert found == pytest.approx(library.peak_signal_noise_ratio(y, x, data_range=1), rel=1e-9)
    wanted = library.structural_similarity(
        x, y, data_range=1, channel_axis=0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim({"image": noisy}, {"image": clean}) == pytest.approx(wanted, rel=1e-9)


def test_a_picture_is_compared_as_the_tensor_it_makes() -> None:
    picture = RNG.integers(0, 256, (16, 20, 3), np.uint8)
    tensor = picture.transpose(2, 0, 1)[None].astype(np.float64) / 255
    assert psnr({"image": tensor}, {"image": picture}) == MOST_DB
    assert ssim({"image": picture}, {"image": tensor}) == pytest.approx(1)
    assert psnr({"image": picture[..., 0]}, {"image": tensor[:, :1]}) == MOST_DB


def test_a_known_error_has_the_known_psnr() -> None:
    zeros = np.zeros((1, 1, 8, 8))
    assert psnr({"image": zeros + 0.1}, {"image": zeros}) == pytest.approx(20)
    assert psnr({"image": zeros}, {"image": zeros}) == MOST_DB


def test_images_without_a_window_or_of_two_shapes() -> None:
    small, _ = images(1, (10, 40))
    assert math.isnan(ssim({"image": small}, {"image": small}))
    assert ssim({"image": np.zeros((1, 1, 11, 11))}, {"image": np.zeros((1, 1, 11, 11))}) == 1
    for function in (psnr, ssim):
        with pytest.raises(Refused, match="image"):
            function({"image": small}, {"image": small[..., 1:]})


# ----------------------------------------------------------------------------------------------------------- stereo


def test_errors_of_a_disparity_map_by_hand() -> None:
    truth = np.array([[10.0, 10.0, 100.0], [100.0, np.nan, np.inf]])
    #   wrong by:        2 (fair)  4 (40 %)  4 (4 %)   6 (6 %)  unknown unknown
    found = np.array([[12.0, 14.0, 104.0], [94.0, 5.0, 5.0]])
    assert epe({"disparity": found}, {"disparity": truth}) == pytest.approx(4)
    assert d1_all({"disparity": found}, {"disparity": truth}) == pytest.approx(50)


def test_a_pixel_at_the_bound_is_fair() -> None:
    truth = np.array([[10.0, 100.0]])
    assert d1_all({"disparity": truth + np.array([3.0, 5.0])}, {"disparity": truth}) == 0


def test_an_answer_that_is_no_number_is_an_outlier() -> None:
    truth = np.full((2, 2), 8.0)
    found = np.array([[8.0, np.nan], [np.inf, 8.0]])
    assert d1_all({"disparity": found}, {"disparity": truth}) == 50
    assert not epe({"disparity": found}, {"disparity": truth}) < 1e9


def test_a_map_without_a_known_pixel_has_no_error() -> None:
    nothing = {"disparity": np.full((2, 2), np.nan)}
    assert math.isnan(epe(nothing, nothing)) and math.isnan(d1_all(nothing, nothing))
    with pytest.raises(Refused, match="disparity"):
        epe({"disparity": np.zeros((2, 2))}, {"disparity": np.zeros((2, 3))})


# ----------------------------------------------------------------------------------------------------------- scores


def cases(scores: np.ndarray, sizes: int = 1) -> list[dict[str, np.ndarray]]:
    return [{"score": scores[at : at + sizes]} for at in range(0, len(scores), sizes)]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("sizes", [1, 7])
def test_correlations_are_those_of_scipy(ties: bool, sizes: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    truth = RNG.uniform(0, 1, 40)
    found = truth**3 + RNG.normal(0, 0.1, 40)
    if ties:
        truth, found = np.round(truth, 1), np.round(found, 1)
    arguments = cases(found, sizes), cases(truth, sizes)
    assert plcc(*arguments) == pytest.approx(stats.pearsonr(found, truth)[0], abs=1e-12)
    assert srcc(*arguments) == pytest.approx(stats.spearmanr(found, truth)[0], abs=1e-12)


def test_ranks_do_not_see_a_bent_scale_and_correlation_does() -> None:
    truth = np.linspace(0, 1, 20)
    bent = cases(np.exp(20 * truth)), cases(truth)
    assert srcc(*bent) == 1
    assert plcc(*bent) < 0.8
    for scale, shift in ((1e-200, 0.0), (3.0, 7.0), (1e200, 0.0)):
        assert plcc(cases(scale * truth + shift), cases(truth)) == pytest.approx(1)
    assert srcc(cases(-truth), cases(truth)) == -1


@pytest.mark.parametrize("scores", [[], [0.5], [0.1, 0.1, 0.1], [0.1, np.nan, 0.3], [0.1, np.inf, 0.3]])
def test_scores_without_an_order_have_no_correlation(scores: list[float]) -> None:
    found, truth = cases(np.array(scores)), cases(np.arange(len(scores), dtype=float))
    assert math.isnan(plcc(found, truth)) and math.isnan(srcc(found, truth))
    assert math.isnan(plcc(truth, found)) and math.isnan(srcc(truth, found))


def test_a_truth_for_every_score() -> None:
    with pytest.raises(Refused, match="score"):
        srcc(cases(np.arange(3.0)), cases(np.arange(4.0)))
