"""Tensors of a bundle's files: safetensors read and written as numpy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.bundle.safe_open import AGAIN
from exporter.errors import Refused

if TYPE_CHECKING:
    import numpy as np


def under(tensors: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The tensors of a case's file whose names begin with ``input/``, ``reference/`` or the like, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file, by name.

    Raises:
        Refused: ``bad-tensors`` when it is malformed or holds a type numpy has not; ``missing-file``.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not path.is_file():
        raise Refused("missing-file", f"there is no file {path}", where=str(path), next=AGAIN)
    try:
        return dict(load_file(path))
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise Refused(
            "bad-tensors",
            f"{path.name} cannot be read: {error}",
            where=str(path),
            why="only well-formed safetensors files of numpy's types are read",
            next="write it with safetensors.numpy.save_file",
        ) from None


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes tensors as a safetensors file; equal tensors give equal bytes."""
    import numpy as np
    from safetensors.numpy import save_file

    # asarray, not ascontiguousarray: that one gives a scalar an axis.
    save_file({name: np.asarray(tensors[name], order="C") for name in sorted(tensors)}, path)
