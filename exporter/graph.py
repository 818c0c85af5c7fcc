"""A graph: portable, may be copied anywhere. What is compiled from it is another type (:mod:`exporter.target`)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


# The operator set graphs are traced in; a target that wants another is given its own (``Target.opset``).
OPSET = 18


def sha256(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


@dataclass(frozen=True)
class Graph:
    """An ONNX file. ``onnx`` is imported only when its content is asked for: the device side never needs it."""

    path: Path

    def digest(self) -> str:
        """Hex SHA-256 of the file."""
        return sha256(self.path)

    def load(self) -> onnx.ModelProto:
        """The parsed model."""
        import onnx

        return onnx.load(str(self.path))

    def bytes(self) -> bytes:
        """The serialised model."""
        return self.path.read_bytes()
