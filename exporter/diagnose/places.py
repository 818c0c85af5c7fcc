"""What a node is in the user's own words: its module and line, its own or those of what it was made beside."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from exporter.graph import SCOPE, SOURCE, module_of, noted


def name_of(graph: onnx.GraphProto, index: int) -> str:
    """A node's name; of one without, its operator and place."""
    node = graph.node[index]
    return node.name or f"{node.op_type}_{index}"


def told(graph: onnx.GraphProto, index: int) -> tuple[str, str]:
    """``(module, source line)`` of a node: a pass may have made it anew, then of the nearest that it reads or feeds."""
    for node in _near(graph, index):
        module, source = module_of(noted(node, SCOPE)), noted(node, SOURCE) or ""
        if module or source:
            return module, source
    return "", ""


def _near(graph: onnx.GraphProto, index: int) -> Iterator[onnx.NodeProto]:
    """The node, those it reads, then those that read it."""
    node = graph.node[index]
    yield node
    yield from (other for other in graph.node if set(other.output) & set(node.input))
    yield from (other for other in graph.node if set(other.input) & set(node.output))
