"""Work: how much of a model's arithmetic each node is, and so how much of it ran in which type.

What it takes to count (:mod:`exporter.work.count`) is not needed on a device: the counts lie in the bundle.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

UNTOLD = "untold"


class Work(NamedTuple):
    """A node: its operator, how many multiplications it takes, the module of the model it was traced from."""

    operator: str
    multiplications: int
    module: str = ""


def kind_of(node: str, of: Work, ran: Mapping[str, str]) -> str:
    """The type that a node ran in, by its name or by its operator's; nothing where the runtime does not tell."""
    graph = node.partition(".")[0]
    return ran.get(node) or ran.get(f"*{of.operator}") or ran.get(f"{graph}.*{of.operator}") or ""


def share(work: Mapping[str, Work], ran: Mapping[str, str]) -> dict[str, float]:
    """Which part of the multiplications ran in each type; ``untold`` is what the runtime does not tell.

    Args:
        work: by node, as :func:`multiplications` gives it.
        ran: type by node, as :attr:`exporter.target.Ran.nodes` has it.
    """
    parts: dict[str, int] = {}
    for node, of in work.items():
        kind = kind_of(node, of, ran) or UNTOLD
        parts[kind] = parts.get(kind, 0) + of.multiplications
    whole = sum(parts.values())
    return {kind: count / whole for kind, count in sorted(parts.items(), key=lambda part: -part[1])}
