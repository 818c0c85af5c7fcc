"""Sizes that a graph does not take: pad and crop, tile and untile. Height and width are the last two axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from exporter.host.values import Array, Values, bad_setting, names_in, required, unfit


def pad(
    values: Values,
    *,
    of: str | Sequence[str],
    multiple: int | Sequence[int] = 1,
    at_least: int | Sequence[int] = 0,
    mode: Literal["reflect", "edge"] = "reflect",
    sides: Literal["end", "both"] = "end",
) -> Values:
    """Pads height and width up to a multiple, and records what was there for :func:`crop`.

    Args:
        values: hold the arrays ``(..., H, W)``.
        of: which of them.
        multiple: height and width become multiples of it; one number, or one for each.
        at_least: and are no smaller; one number, or height and width.
        mode: ``reflect`` mirrors without repeating the border, ``edge`` repeats the border.
        sides: ``end`` pads below and to the right; ``both`` puts half of it (rounded down) above and to the left.

    Returns:
        The padded arrays, and for each ``NAME.size``: int64 ``[top, left, H, W]``.

    Raises:
        Refused: ``unknown-step`` for another mode, other sides, or a multiple below 1.
    """
    multiples, least = _both("pad", multiple), _both("pad", at_least)
    if mode not in ("reflect", "edge") or sides not in ("end", "both") or min(multiples) < 1:
        known = "modes are reflect and edge, sides end and both, a multiple is at least 1"
        raise bad_setting("pad", f"mode {mode!r}, sides {sides!r}, multiple {multiple}", known)
    found: Values = {}
    for name in names_in(of):
        value = required(values, name, "pad")
        if value.ndim < 2 or 0 in value.shape[-2:]:
            raise _flat("pad", name, value.shape)
        sizes = np.maximum(value.shape[-2:], least).tolist()
        wanted = [-(-size // part) * part for size, part in zip(sizes, multiples, strict=True)]
        extra = [new - old for new, old in zip(wanted, value.shape[-2:], strict=True)]
        before = [more // 2 if sides == "both" else 0 for more in extra]
        around = [(0, 0)] * (value.ndim - 2) + [(b, e - b) for b, e in zip(before, extra, strict=True)]
        found[name] = np.pad(value, around, mode=mode) if any(extra) else value
        found[f"{name}.size"] = np.array([*before, *value.shape[-2:]], np.int64)
    return found


def crop(values: Values, *, of: str | Sequence[str], like: str, scale: float = 1) -> Values:
    """Cuts off what :func:`pad` added to ``like``; without its record, nothing is cut.

    Args:
        values: hold the arrays ``(..., H * scale, W * scale)``.
        of: which of them.
        like: the padded input whose record says where the picture lies.
        scale: the size of these arrays over that of ``like``: 4 for an upsampler, 0.25 for quarter resolution.
    """
    if f"{like}.size" not in values:
        return {}
    top, left, height, width = (round(float(n) * scale) for n in np.asarray(values[f"{like}.size"], np.int64))
    rows, columns = slice(top, top + height), slice(left, left + width)
    return {name: required(values, name, "crop")[..., rows, columns] for name in names_in(of)}


def tile(
    values: Values, *, of: str | Sequence[str], size: int | Sequence[int], overlap: int, multiple: int = 1
) -> Values:
    """An image ``(1, ..., H, W)`` larger than ``size`` to a stack of tiles of it along axis 0.

    All tiles have one size, that of the image where it is smaller; neighbours share at least ``overlap`` pixels, and
    the last tile of a row or column ends where the image ends. An image no larger than a tile stays as it is.

    Args:
        values: hold the images.
        of: which of them; several (two views) are cut alike.
        size: pixels of a side; one number, or height and width.
        overlap: pixels, below ``size``.
        multiple: what size and overlap must be multiples of, so that every tile starts on one where the image has
            been padded to one.

    Returns:
        The stacks, and for each that was cut ``NAME.tiles``: int64 ``[H, W, tile's height, tile's width, overlap]``.

    Raises:
        Refused: ``bad-sample`` for a batch; ``unknown-step`` for an overlap that is no part of the size.
    """
    tall, wide = _both("tile", size)
    if not 0 <= overlap < min(tall, wide) or multiple < 1 or any(n % multiple for n in (tall, wide, overlap)):
        why = f"0 <= overlap < size, both multiples of {multiple}"
        raise bad_setting("tile", f"tiles of {tall}x{wide} that overlap by {overlap}", why)
    found: Values = {}
    for name in names_in(of):
        value = required(values, name, "tile")
        if value.ndim < 3 or value.shape[0] != 1:
            raise _flat("tile", name, value.shape)
        height, width = value.shape[-2:]
        if height <= tall and width <= wide:
            continue
        record = np.array([height, width, tall, wide, overlap], np.int64)
        found[name] = np.concatenate([value[..., rows, columns] for rows, columns in _places(record)])
        found[f"{name}.tiles"] = record
    return found


def untile(values: Values, *, of: str | Sequence[str], like: str, scale: int = 1) -> Values:
    """Puts the stack of tiles that :func:`tile` made of ``like`` together again: ``(tiles, ..., h, w)`` to
    ``(1, ..., H, W)``; where tiles overlap, their plain mean. Without the record, nothing is done.

    Raises:
        Refused: ``bad-sample`` when there are not as many tiles as the record says, or not of its size.
    """
    if f"{like}.tiles" not in values:
        return {}
    record = np.asarray(values[f"{like}.tiles"], np.int64) * scale
    height, width, tall, wide, _ = record.tolist()
    places = _places(record)
    found: Values = {}
    for name in names_in(of):
        stack = required(values, name, "untile")
        shape = min(tall, height), min(wide, width)
        if len(stack) != len(places) or stack.shape[-2:] != shape:
            why = f"{like} was cut into {len(places)} tiles of {shape[0]}x{shape[1]}"
            raise unfit("untile", f"{name} has shape {stack.shape}", why, "run the graph once on each tile, in order")
        total = np.zeros((1, *stack.shape[1:-2], height, width), np.float64)
        times = np.zeros((height, width))
        for part, (rows, columns) in zip(stack, places, strict=True):
            total[0, ..., rows, columns] += part
            times[rows, columns] += 1
        found[name] = (total / times).astype(stack.dtype)
    return found


def _both(step: str, sides: int | Sequence[int]) -> tuple[int, int]:
    """Height and width of an option that is one number for both, or two."""
    found = (sides, sides) if isinstance(sides, int) else tuple(sides)
    if len(found) != 2 or not all(isinstance(side, int) for side in found):
        raise bad_setting(step, f"the size {sides!r}", "a size is one number, or height and width")
    return found[0], found[1]


def _places(record: Array) -> list[tuple[slice, slice]]:
    """Where the tiles of a record lie, row by row."""
    height, width, tall, wide, overlap = record.tolist()
    rows = [slice(at, at + min(tall, height)) for at in _starts(height, tall, overlap)]
    columns = [slice(at, at + min(wide, width)) for at in _starts(width, wide, overlap)]
    return [(row, column) for row in rows for column in columns]


def _starts(length: int, size: int, overlap: int) -> list[int]:
    if length <= size:
        return [0]
    return [*range(0, length - size, size - overlap), length - size]


def _flat(step: str, name: str, shape: tuple[int, ...]) -> Exception:
    why = "it works on one image: axis 0 is 1, the last two axes are height and width"
    return unfit(step, f"{name} has shape {shape}", why, "give one picture at a time")
