"""Photographs, distortions of known level, and stereo pairs of known disparity."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("skimage")

from model_defs import _photographs
from model_defs._photographs import (
    DISTORTIONS,
    count,
    distorted,
    photograph,
    stereo_from_photograph,
    stereo_pair,
)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = np.mean((a.astype(float) - b.astype(float)) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def warped_to_left(right: np.ndarray, disparity: np.ndarray) -> np.ndarray:
    """What the right view says of every point of the left one."""
    height, width = disparity.shape
    x = np.clip(np.arange(width)[None, :] - disparity, 0, width - 1.001)
    low = x.astype(int)
    part = (x - low)[..., None]
    rows = np.arange(height)[:, None]
    return right[rows, low] * (1 - part) + right[rows, low + 1] * part


@pytest.mark.parametrize("index", range(14))
def test_every_photograph_has_the_size_asked_for_and_content(index: int) -> None:
    image = photograph(index, 40, 72)
    assert image.shape == (40, 72, 3) and image.dtype == np.uint8
    assert image.std() > 5
    np.testing.assert_array_equal(image, photograph(index, 40, 72))


def test_photographs_differ_and_are_counted() -> None:
    assert count() == 14
    assert len({photograph(index, 16, 16).tobytes() for index in range(count())}) == count()
    with pytest.raises(IndexError):
        photograph(count(), 16, 16)


def test_a_photograph_is_cut_and_not_squeezed() -> None:
    """A square of the original stays a square: the middle of a wide cut is the middle of the square one."""
    square, wide = photograph(0, 64, 64), photograph(0, 32, 64)
    assert psnr(square[16:48], wide) > 30


@pytest.mark.parametrize("index", range(14))
def test_every_size_lies_in_the_photograph(index: int) -> None:
    """Rounding leads out of no picture: some sizes did by a part in 10^16."""
    size = _photographs._read(_photographs.NAMES[index]).size
    for height in range(100, 260):
        top, left, rows, columns = _photographs._middle(size, height, height * 4 // 3)
        assert top >= 0 and left >= 0 and top + rows <= size[1] and left + columns <= size[0]


@pytest.mark.parametrize("kind", DISTORTIONS)
def test_a_higher_level_is_further_from_the_original(kind: str) -> None:
    image = photograph(1, 96, 96)
    found = [psnr(image, distorted(image, kind, level, seed=3)) for level in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert found == sorted(found, reverse=True) and len(set(found)) == 5
    assert found[0] > 90 and found[-1] < 27


def test_the_seed_decides_the_noise_and_nothing_else() -> None:
    image = photograph(2, 48, 48)
    for kind in DISTORTIONS:
        first, again, other = (distorted(image, kind, 0.5, seed) for seed in (1, 1, 2))
        np.testing.assert_array_equal(first, again)
        assert np.array_equal(first, other) == (kind != "noise")


def test_blur_is_that_of_scipy() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    image = photograph(3, 50, 60)
    wanted = ndimage.gaussian_filter(image.astype(float), (2.0, 2.0, 0), mode="nearest", radius=(6, 6, 0))
    assert np.abs(distorted(image, "blur", 0.5).astype(float) - wanted).max() <= 0.51


@pytest.mark.parametrize(("kind", "level"), [("fog", 0.5), ("blur", 1.5), ("blur", -0.1), ("blur", float("nan"))])
def test_an_unknown_distortion_is_refused(kind: str, level: float) -> None:
    with pytest.raises(ValueError, match="distortion"):
        distorted(photograph(0, 8, 8), kind, level)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (96, 160), (61, 127)])
def test_the_disparity_leads_from_the_left_view_to_the_right_one(height: int, width: int) -> None:
    left, right, disparity = stereo_from_photograph(height, width)
    assert left.shape == right.shape == (height, width, 3) and left.dtype == right.dtype == np.uint8
    assert disparity.shape == (height, width) and disparity.dtype == np.float32
    assert disparity.min() > 0.01 * width and disparity.max() == pytest.approx(0.11 * width)
    error = np.abs(warped_to_left(right, disparity) - left).mean(axis=2)
    wrong = np.abs(warped_to_left(right, 0 * disparity) - left).mean(axis=2)
    # The median leaves out the points that the right camera does not see.
    assert np.median(error) < 3 and np.median(wrong) > 3 * np.median(error)
    assert np.mean(error > 20) < 0.12


def test_the_nearer_surface_covers_the_farther() -> None:
    """The columns where the rectangle arrives in the right view show the rectangle alone."""
    left, right, disparity = stereo_from_photograph(80, 200)
    assert disparity[40, 140] == 22  # whole pixels: nothing is interpolated
    inside = np.arange(112, 168)  # columns of the rectangle, clear of its edges
    assert np.abs(right[40, inside - 22].astype(int) - left[40, inside]).max() <= 1


def test_one_row_as_the_right_camera_sees_it() -> None:
    row = np.repeat(np.arange(60, dtype=np.uint8)[:, None], 3, axis=1)
    disparity = np.full(60, 2.0, np.float32)
    disparity[20:30] = 6.0
    seen = _photographs._seen_from_right(row, disparity, 50)[:, 0].tolist()
    assert seen[:14] == list(range(2, 16)), "the background, 2 columns to the left"
    assert seen[14:24] == list(range(20, 30)), "the nearer part, 6 columns to the left, over 16 to 19"
    assert seen[24:28] == [34, 33, 32, 31], "what it hid: the background beside it, mirrored"
    assert seen[28:] == list(range(30, 52))


def test_the_right_view_has_no_gaps() -> None:
    _, right, _ = stereo_from_photograph(64, 128, index=2)
    assert (right.reshape(-1, 3).max(axis=1) > 0).mean() > 0.99


def test_the_measured_pair_is_scaled_with_its_disparity() -> None:
    sizes = [(250, 370), (125, 185)]
    (left, right, large), (_, _, small) = (stereo_pair(*size) for size in sizes)
    known = np.isfinite(large)
    assert 0.85 < known.mean() < 0.99 and not np.isnan(large).any() and large[known].min() > 0
    assert np.median(large[known]) == pytest.approx(2 * np.median(small[np.isfinite(small)]), rel=0.05)
    points = np.where(known, large, 0)
    error = np.abs(warped_to_left(right, points) - left).mean(axis=2)[known]
    wrong = np.abs(warped_to_left(right, 0 * points) - left).mean(axis=2)[known]
    assert np.median(error) < 0.5 * np.median(wrong)


def test_without_scikit_image_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from exporter.errors import Incomplete

    monkeypatch.setattr(_photographs, "_folder", lambda: None)
    _photographs._read.cache_clear()
    assert count() == 0
    with pytest.raises(Incomplete, match="scikit-image") as caught:
        photograph(0, 8, 8)
    assert caught.value.code == "runtime-absent" and "pip install '.[zoo]'" in caught.value.next
