"""Real photographs without a network: those in scikit-image's wheel, cut, scaled, distorted, or made into stereo pairs.

Definitions use them as real inputs, and the trainer of the video quality model as its material. Everything here is a
function of its arguments: the same call gives the same pixels, on every machine with the same Pillow.

Source: the pictures of ``skimage.data``, each free to use; their origins are in that package's ``data/README.txt``.
"""

from __future__ import annotations

import importlib.util
import io
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from exporter.errors import Incomplete

if TYPE_CHECKING:
    from PIL.Image import Image

Picture = NDArray[np.uint8]
Disparity = NDArray[np.float32]

# Drawings, scans of text and 1-bit pictures of the package are no photographs. The two halves of the stereo pair are
# one photograph. Colour first: what asks for few photographs gets colour.
NAMES = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "rocket.jpg",
    "motorcycle_left.png",
    "hubble_deep_field.jpg",
    "retina.jpg",
    "ihc.png",
    "camera.png",
    "coins.png",
    "moon.png",
    "brick.png",
    "grass.png",
    "gravel.png",
)
DISTORTIONS = ("blur", "noise", "jpeg", "contrast")

# What level 1 means: far beyond what a viewer accepts, short of a picture of nothing. Blur and noise grow in equal
# steps, JPEG's quality and the contrast fall by equal factors: half of either is about half as bad to look at.
WORST_BLUR = 4.0  # standard deviation in pixels
WORST_NOISE = 64.0  # standard deviation in steps of 8 bits
JPEG_QUALITY = (95.0, 5.0)  # Pillow's setting at level 0 and at level 1
WORST_CONTRAST = 0.1  # the part of the contrast that is left


def count() -> int:
    """How many photographs there are; 0 where scikit-image is not installed."""
    return len(NAMES) if _folder() is not None else 0


def photograph(index: int, height: int, width: int) -> Picture:
    """The middle of a photograph, cut to the shape asked for and scaled to it: uint8 ``(height, width, 3)``.

    Args:
        index: which one, from 0 to ``count() - 1``.
        height: pixels; more than the photograph has enlarges it.
        width: pixels.

    Raises:
        Incomplete: ``runtime-absent`` where scikit-image is not installed.
        IndexError: for another index.
    """
    if not 0 <= index < len(NAMES):
        raise IndexError(f"photograph {index}: there are 0 to {len(NAMES) - 1}")
    return _scaled(_read(NAMES[index]), height, width)


def distorted(image: Picture, kind: str, level: float, seed: int = 0) -> Picture:
    """A picture made worse by a known amount; of the same shape.

    Args:
        image: uint8 ``(H, W, 3)``.
        kind: ``blur`` (Gaussian), ``noise`` (Gaussian, each channel on its own), ``jpeg`` (compressed in memory) or
            ``contrast`` (drawn towards the picture's mean).
        level: 0 (unchanged) to 1 (the worst).
        seed: of the noise.

    Raises:
        ValueError: for another kind or level.
    """
    if kind not in DISTORTIONS or not 0.0 <= level <= 1.0:
        raise ValueError(f"distortion {kind!r} at level {level}: known are {', '.join(DISTORTIONS)}, 0 to 1")
    if level == 0.0:
        return image.copy()
    if kind == "blur":
        return _blurred(image, WORST_BLUR * level)
    if kind == "jpeg":
        best, worst = JPEG_QUALITY
        return _compressed(image, round(best * (worst / best) ** level))
    values = image.astype(np.float64)
    if kind == "noise":
        values += np.random.default_rng(seed).normal(0.0, WORST_NOISE * level, image.shape)
    else:
        mean = values.mean()
        values = mean + (values - mean) * WORST_CONTRAST**level
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def stereo_from_photograph(height: int, width: int, index: int = 0) -> tuple[Picture, Picture, Disparity]:
    """A left view, the right view that a known disparity makes of it, and that disparity.

    The left view is a photograph. The scene behind it is made up: a slanted ground, a smooth bulge, and a nearer
    rectangle with a sharp edge. The point at column ``x`` of the left view lies at ``x - disparity[y, x]`` of the right
    one. Where two points meet there, the nearer one covers the farther; where none arrives, the scene was hidden
    behind the rectangle, and the background beside the gap is mirrored into it. So about 8 % of the left view's points
    are not to be seen in the right one (covered, or beyond its left border): their disparity is still the scene's, as
    in Scene Flow's truth, and no method can measure it.

    Args:
        height: pixels.
        width: pixels; at least 32.
        index: which photograph.

    Returns:
        ``(left, right, disparity)``: uint8 ``(H, W, 3)`` twice; float32 ``(H, W)``, pixels, all positive: from about 2
        to 11 % of the width.

    Raises:
        Incomplete: ``runtime-absent`` where scikit-image is not installed.
    """
    disparity = _scene(height, width)
    # The right camera sees a strip beyond the left view's right border: the photograph is that much wider.
    reach = int(np.ceil(disparity.max())) + 2
    wide = photograph(index, height, width + reach)
    beyond = np.pad(disparity, ((0, 0), (0, reach)), mode="edge")
    right = np.stack([_seen_from_right(row, depth, width) for row, depth in zip(wide, beyond, strict=True)])
    return wide[:, :width].copy(), right, disparity


def stereo_pair(height: int, width: int) -> tuple[Picture, Picture, Disparity]:
    """The motorcycle of the Middlebury 2014 stereo set, both views and the measured disparity, cut and scaled.

    Args:
        height: pixels.
        width: pixels. The disparity is scaled with it: at the package's own 741 columns it goes from 7 to 60 pixels.

    Returns:
        ``(left, right, disparity)``: uint8 ``(H, W, 3)`` twice; float32 ``(H, W)``, pixels, positive; infinite where
        the set has no measurement (7 % of the points).

    Raises:
        Incomplete: ``runtime-absent`` where scikit-image is not installed.
    """
    left, right = _read("motorcycle_left.png"), _read("motorcycle_right.png")
    with np.load(_place("motorcycle_disp.npz"), allow_pickle=False) as archive:
        disparity = archive["arr_0"]
    top, side, rows, columns = _middle(left.size, height, width)
    # Nearest neighbours: an average across an edge is the depth of nothing, and an average with inf is inf.
    y = top + (np.arange(height) + 0.5) * rows / height
    x = side + (np.arange(width) + 0.5) * columns / width
    picked = disparity[y.astype(int)[:, None], x.astype(int)[None, :]]
    return (
        _scaled(left, height, width),
        _scaled(right, height, width),
        (picked * (width / columns)).astype(np.float32),
    )


# ------------------------------------------------------------------------------------------------------- the files


@lru_cache(maxsize=1)
def _folder() -> Path | None:
    found = importlib.util.find_spec("skimage")  # finds it without importing it
    if found is None or found.origin is None or importlib.util.find_spec("PIL") is None:
        return None
    return Path(found.origin).parent / "data"


def _place(name: str) -> Path:
    folder = _folder()
    if folder is None or not (folder / name).is_file():
        raise Incomplete(
            "runtime-absent",
            f"photograph {name} is not here: scikit-image is not installed",
            why="real pictures are those of scikit-image's wheel, so that none is loaded from a network",
            next="pip install '.[zoo]'",
        )
    return folder / name


@lru_cache(maxsize=32)
def _read(name: str) -> Image:
    from PIL import Image

    with Image.open(_place(name)) as file:
        return file.convert("RGB")


def _middle(size: tuple[int, int], height: int, width: int) -> tuple[float, float, float, float]:
    """``(top, left, rows, columns)`` of the largest part in the middle that has the shape asked for."""
    columns, rows = size
    scale = min(columns / width, rows / height)
    # Rounding must not lead out of the picture by a part in 10^16: Pillow refuses it.
    kept_rows, kept_columns = min(scale * height, rows), min(scale * width, columns)
    return (rows - kept_rows) / 2, (columns - kept_columns) / 2, kept_rows, kept_columns


def _scaled(image: Image, height: int, width: int) -> Picture:
    from PIL import Image

    top, side, rows, columns = _middle(image.size, height, width)
    box = (side, top, side + columns, top + rows)
    return np.array(image.resize((width, height), Image.Resampling.LANCZOS, box=box))


# -------------------------------------------------------------------------------------------------- the distortions


def _blurred(image: Picture, deviation: float) -> Picture:
    """Separable Gaussian, borders repeated."""
    reach = int(np.ceil(3 * deviation))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    kernel /= kernel.sum()
    values = image.astype(np.float64)
    for axis in (0, 1):
        padding = [(reach, reach) if at == axis else (0, 0) for at in range(3)]
        values = np.lib.stride_tricks.sliding_window_view(np.pad(values, padding, mode="edge"), len(kernel), axis)
        values = values @ kernel
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _compressed(image: Picture, quality: int) -> Picture:
    from PIL import Image

    memory = io.BytesIO()
    Image.fromarray(image).save(memory, "JPEG", quality=quality)
    return np.array(Image.open(memory).convert("RGB"))


# --------------------------------------------------------------------------------------------------------- the scene


def _scene(height: int, width: int) -> Disparity:
    """A slanted ground, a bulge and a rectangle in front: every kind of disparity that a matcher must follow."""
    y, x = np.mgrid[0:height, 0:width]
    y, x = (y + 0.5) / height, (x + 0.5) / width
    ground = 0.02 + 0.02 * y + 0.005 * x
    bulge = 0.02 * np.exp(-((x - 0.3) ** 2 + (y - 0.6) ** 2) / 0.02)
    front = (x > 0.55) & (x < 0.85) & (y > 0.2) & (y < 0.7)
    return np.asarray(width * np.where(front, 0.11, ground + bulge), np.float32)


def _seen_from_right(row: Picture, disparity: Disparity, width: int) -> Picture:
    """One row as the right camera sees it.

    A nearer surface moves further to the left, so it covers only what was to the left of it: later columns win.
    """
    columns = np.arange(len(row))
    position = columns - disparity.astype(np.float64)
    source = np.full(width, np.nan)
    for start in columns[:-1]:
        begin, end = position[start], position[start + 1]
        if not 0.0 < end - begin < 2.0:  # an edge between two surfaces, not a surface
            continue
        for column in range(max(0, int(np.ceil(begin))), min(width - 1, int(np.floor(end))) + 1):
            source[column] = start + (column - begin) / (end - begin)
    hidden = np.isnan(source)
    # A gap opens to the right of a nearer surface: the background after the gap is mirrored into it.
    known = np.flatnonzero(~hidden)
    after = known[np.minimum(np.searchsorted(known, np.flatnonzero(hidden)), len(known) - 1)]
    source[hidden] = source[after] + (after - np.flatnonzero(hidden))
    source = np.clip(source, 0, len(row) - 1)
    below = np.minimum(source.astype(int), len(row) - 2)
    part = (source - below)[:, None]
    return np.rint(row[below] * (1 - part) + row[below + 1] * part).astype(np.uint8)
