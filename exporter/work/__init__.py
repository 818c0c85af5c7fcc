"""Work: how much of a model's arithmetic and traffic each node is, and so how much of it ran in which type.

What it takes to count (:mod:`exporter.work.count`) is not needed on a device: the counts lie in the bundle
(:mod:`exporter.work.stored`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

UNTOLD = "untold"
NOTHING: Mapping[str, int] = MappingProxyType({})


class Work(NamedTuple):
    """What one run of a node takes.

    Attributes:
        operator: its operator in the graph.
        multiplications: how many it takes where it multiplies matrices; 0 elsewhere.
        module: the path of the module of the model that it was traced from.
        reads: bytes of each tensor that it reads, weights included, in the types of the float32 graph.
        writes: bytes of each tensor that it writes.
    """

    operator: str
    multiplications: int
    module: str = ""
    reads: Mapping[str, int] = NOTHING
    writes: Mapping[str, int] = NOTHING


def kind_of(node: str, of: Work, ran: Mapping[str, str]) -> str:
    """The type that a node ran in, by its name or by its operator's; nothing where the runtime does not tell."""
    graph = node.partition(".")[0]
    return ran.get(node) or ran.get(f"*{of.operator}") or ran.get(f"{graph}.*{of.operator}") or ""


def share(work: Mapping[str, Work], ran: Mapping[str, str]) -> dict[str, float]:
    """Which part of the multiplications ran in each type; ``untold`` is what the runtime does not tell.

    Args:
        work: by node, as :func:`exporter.work.stored.whole` gives it.
        ran: type by node, as :attr:`exporter.target.Ran.nodes` has it.
    """
    parts: dict[str, int] = {}
    for node, of in work.items():
        kind = kind_of(node, of, ran) or UNTOLD
        parts[kind] = parts.get(kind, 0) + of.multiplications
    whole = sum(parts.values())
    return {kind: count / whole for kind, count in sorted(parts.items(), key=lambda part: -part[1])}
