"""A graph: portable, may be copied anywhere. What is compiled from it is another type (:mod:`exporter.target`)."""

from __future__ import annotations

import ast
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


# The operator set graphs are traced in; a target that wants another is given its own (``Target.opset``).
OPSET = 18

# Which modules of the model a node is inside of, the outermost first, then its own name: a node's metadata.
SCOPE = "scope"


def scope_of(node: onnx.NodeProto) -> str | None:
    """The scope as it is written at a node."""
    return next((entry.value for entry in node.metadata_props if entry.key == SCOPE), None)


def module_of(scope: str | None) -> str:
    """The path of the innermost module (``encoder.0.conv``); nothing where it is the model itself, or not known."""
    try:
        modules = ast.literal_eval(scope) if scope else []
    except (ValueError, SyntaxError):  # a graph of somebody else's, with a scope of another kind
        modules = []
    return str(modules[-2]) if isinstance(modules, list) and len(modules) > 1 else ""


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
