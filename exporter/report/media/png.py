"""PNG pictures from arrays, by zlib alone: no dependency of the base install writes one.

Source: Portable Network Graphics (W3C, third edition, 2025): chunks (5.3), filters (9), palettes (11.2.2).
"""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GRAY, COLOUR, PALETTE = 0, 2, 3
UP = 2  # each byte as the difference from the one above it


def picture(pixels: NDArray[np.uint8]) -> bytes:
    """A picture.

    Args:
        pixels: ``(H, W, 3)`` colours or ``(H, W, 1)`` grays.
    """
    kind = COLOUR if pixels.shape[2] == 3 else GRAY
    return _file(pixels, kind, _filtered(pixels), b"")


def indexed(pixels: NDArray[np.uint8], palette: NDArray[np.uint8]) -> bytes:
    """A picture whose pixels name colours.

    Args:
        pixels: ``(H, W)`` of numbers of colours.
        palette: ``(N, 3)``, at most 256 colours.
    """
    # Neighbours of a palette's colours are no neighbours in value: unfiltered rows compress better.
    rows = np.concatenate([np.zeros((len(pixels), 1), np.uint8), pixels], axis=1)
    return _file(pixels[..., None], PALETTE, rows.tobytes(), _chunk(b"PLTE", palette.astype(np.uint8).tobytes()))


def _filtered(pixels: NDArray[np.uint8]) -> bytes:
    rows = pixels.reshape(len(pixels), -1).astype(np.int16)
    above = np.concatenate([np.zeros_like(rows[:1]), rows[:-1]])
    changes = ((rows - above) % 256).astype(np.uint8)
    return np.concatenate([np.full((len(rows), 1), UP, np.uint8), changes], axis=1).tobytes()


def _file(pixels: NDArray[np.uint8], kind: int, data: bytes, palette: bytes) -> bytes:
    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    body = _chunk(b"IHDR", header) + palette + _chunk(b"IDAT", zlib.compress(data, 9))
    return SIGNATURE + body + _chunk(b"IEND", b"")


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def address(data: bytes, kind: str = "image/png") -> str:
    """The data as an address that a page can hold."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
