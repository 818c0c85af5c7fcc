"""How many nodes of each operator the graphs of a bundle have; counted in a child, where ONNX is installed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.comparison.side import Side
from exporter.graph import Graph
from exporter.isolate import Channel
from exporter.stages import Stages

if TYPE_CHECKING:
    import onnx


def with_operators(side: Side, stages: Stages) -> Side:
    """The side with its operators counted; as it is where there is no bundle, or no ONNX to read graphs with."""
    if side.bundle is None or find_spec("onnx") is None:
        return side
    manifest, path_of = side.bundle.manifest, side.bundle.file
    graphs = {name: graph.simplified for name, graph in manifest.graphs.items()}
    graphs |= {f"{key} {name}": file for key in side.sizes for name, file in manifest.targets[key].graphs.items()}
    asked = {name: str(path_of(file)) for name, file in graphs.items()}
    outcome = stages.attempt(f"operators of {side.name}", "exporter.comparison.operators:counted", {"graphs": asked})
    return replace(side, operators=outcome.require())


def counted(request: Mapping[str, Any], _: Channel) -> dict[str, dict[str, int]]:
    """Child: counts the nodes of each operator, those of loops and branches too, the most frequent first.

    Args:
        request: ``graphs``, the file of each by name.
    """
    return {
        name: dict(Counter(_operators(Graph(Path(file)).linked().graph)).most_common())
        for name, file in request["graphs"].items()
    }


def _operators(graph: onnx.GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield node.op_type
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _operators(inner)
