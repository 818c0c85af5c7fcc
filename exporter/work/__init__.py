"""Work: how much of a model's arithmetic each node is, and so how much of it ran in which type.

What it takes to count (:mod:`exporter.work.count`) is not needed on a device: the counts lie in the bundle.
"""

from __future__ import annotations

from collections.abc import Mapping

UNTOLD = "untold"


def share(work: Mapping[str, tuple[str, int]], ran: Mapping[str, str]) -> dict[str, float]:
    """Which part of the multiplications ran in each type; ``untold`` is what the runtime does not tell.

    Args:
        work: operator and count by node, as :func:`multiplications` gives them.
        ran: type by node, as :attr:`exporter.target.Ran.nodes` has it.
    """
    parts: dict[str, int] = {}
    for node, (operator, count) in work.items():
        kind = ran.get(node) or ran.get(f"*{operator}") or UNTOLD
        parts[kind] = parts.get(kind, 0) + count
    whole = sum(parts.values())
    return {kind: count / whole for kind, count in sorted(parts.items(), key=lambda part: -part[1])}
