"""Material to train and to test a quality model on: photographs that are made worse here, by known amounts.

The truth is the score ``1 - level`` of :func:`distorted`: 1 for an untouched picture, 0 for the worst. What is held out
is whole photographs, never other crops of those trained on: a network remembers the content of few photographs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from exporter.errors import Incomplete

from .._photographs import DISTORTIONS, Picture, count, distorted, photograph
from .options import HELD_OUT, bad

# Five levels of every kind, as quality data sets have them; the first is the picture itself.
LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
# Crops come from the photograph at several heights in pixels, so that a texture is no sign of its photograph. All are
# smaller than the photographs were: before it is distorted, every picture is sharp.
HEIGHTS = (128, 160, 192, 224)
# The crop with the most detail of so many is taken: of a piece of plain sky nobody can say how blurred it is.
CHOICE = 3
# The part of a crop's values that may lie beyond black and white when it is stretched between them.
BEYOND = 0.5


@dataclass(frozen=True)
class Material:
    """Distorted crops and how good they are.

    Args:
        images: uint8 ``(N, size, size, 3)``.
        scores: float32 ``(N,)``, 0 to 1.
        kinds: index into :data:`DISTORTIONS`, ``(N,)``.
        photographs: which photograph each is of, ``(N,)``.
    """

    images: Picture
    scores: NDArray[np.float32]
    kinds: NDArray[np.int64]
    photographs: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scores)


def split(held_out: Sequence[int] = HELD_OUT) -> tuple[list[int], list[int]]:
    """The photographs to train on, and those held out.

    Raises:
        Refused: ``bad-option`` when a photograph does not exist, or one side is empty.
        Incomplete: ``runtime-absent`` where scikit-image is not installed.
    """
    if not count():
        raise Incomplete(
            "runtime-absent",
            "scikit-image or pillow is not installed",
            where="training of model family vqa",
            why="the photographs to train on are those of scikit-image's wheel",
            next="pip install '.[zoo]'",
        )
    kept = [index for index in range(count()) if index not in held_out]
    if not kept or not held_out or not all(0 <= index < count() for index in held_out):
        given = ",".join(map(str, held_out))
        raise bad("held_out", given, f"held out are some of photographs 0 to {count() - 1}, and not all of them")
    return kept, sorted(held_out)


def material(photographs: Sequence[int], per_photograph: int, size: int, seed: int) -> Material:
    """Crops of every photograph, each distorted once: kinds in turn, one of :data:`LEVELS` each.

    Args:
        photographs: indices of photographs.
        per_photograph: crops of each.
        size: pixels of a side.
        seed: decides crops, levels and noise; the same seed, the same material.

    Raises:
        ValueError: for no crops at all.
        Incomplete: ``runtime-absent`` where scikit-image is not installed.
    """
    if not photographs or per_photograph < 1:
        raise ValueError(f"{per_photograph} crops of {len(photographs)} photographs: there is nothing to learn from")
    rng = np.random.default_rng(seed)
    images, scores, kinds, origins = [], [], [], []
    for index in photographs:
        for turn in range(per_photograph):
            kind, level = turn % len(DISTORTIONS), float(rng.choice(LEVELS))
            crop = _crop(index, size, rng)
            images.append(distorted(crop, DISTORTIONS[kind], level, int(rng.integers(2**31))))
            scores.append(1.0 - level)
            kinds.append(kind)
            origins.append(index)
    return Material(np.stack(images), np.array(scores, np.float32), np.array(kinds), np.array(origins))


def batches(total: int, size: int, seed: int, epoch: int) -> Iterator[NDArray[np.int64]]:
    """Every item once, in an order that the seed and the epoch decide, in nearly equal batches of at most ``size``.

    Nearly equal, because a last batch of one item has no variance for a batch norm.
    """
    order = np.random.default_rng((seed, epoch)).permutation(total)
    yield from np.array_split(order, -(-total // size))


def mirrored(images: Picture, seed: int, epoch: int, step: int) -> Picture:
    """Half of the images mirrored; what is decided does not depend on what was trained before, so a resumed run sees
    the same."""
    chosen = np.random.default_rng((seed, epoch, step)).random(len(images)) < 0.5
    return np.where(chosen[:, None, None, None], images[:, :, ::-1], images)


def _crop(index: int, size: int, rng: np.random.Generator) -> Picture:
    """The most detailed of some crops, stretched from black to white: a known loss of contrast needs a known start."""
    heights = [height for height in HEIGHTS if height >= size] or [size]
    whole = _zoomed(index, int(rng.choice(heights)))
    found = []
    for _ in range(CHOICE):
        top, left = (int(rng.integers(0, length - size + 1)) for length in whole.shape[:2])
        found.append(whole[top : top + size, left : left + size].astype(np.float64))
    crop = max(found, key=_detail)
    low, high = np.percentile(crop, (BEYOND, 100 - BEYOND))
    return np.clip(np.rint((crop - low) * (255.0 / max(high - low, 1.0))), 0, 255).astype(np.uint8)


def _detail(crop: NDArray[np.float64]) -> float:
    """Mean step between neighbours, as a part of the crop's own spread."""
    steps = np.abs(np.diff(crop, axis=0)).mean() + np.abs(np.diff(crop, axis=1)).mean()
    return float(steps / (crop.std() + 1.0))


@lru_cache(maxsize=128)
def _zoomed(index: int, height: int) -> Picture:
    return photograph(index, height, height * 4 // 3)
