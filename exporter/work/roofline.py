"""How far a layer is from what this machine can do, and what binds it: the roofline.

A layer cannot take less than its arithmetic at the measured speed of a matrix product, nor less than its traffic at
the measured speed of a copy; whichever takes longer binds it (Williams, Waterman, Patterson: "Roofline: an insightful
visual performance model for multicore architectures", CACM 52(4), 2009). Traffic is what a layer must read and write at
the least: every tensor once, as much of one as is picked from it, none of those between the nodes of one layer, nothing
for another shape of the same bytes. A runtime may do with less still: one that cuts a tensor up in place moves nothing.
Such a layer is beyond its limit, which is shown as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exporter.work import Work

COMPUTE, MEMORY = "compute", "memory"
OWN = "(of the runtime's own)"
UNTRACED = "(no module)"
# How many names of a module's path make a row: enough to find the part of a model, few enough to read.
DEPTH = 2
# The same bytes under another shape: alone, they move nothing.
VIEWS = frozenset({"Flatten", "Identity", "Reshape", "Shape", "Size", "Squeeze", "Unsqueeze"})
# Bytes of a value as a part of float32's, where a layer ran in it.
NARROW = {"fp16": 0.5, "bf16": 0.5, "int8": 0.25}


@dataclass(frozen=True)
class Peaks:
    """What this machine was measured to reach, with as many threads as the subjects have.

    Attributes:
        gflops: products, 1e9 operations a second (a multiplication and an addition are two), by the type of what is
            multiplied; float32 always, others where something ran in them.
        gbs: copies, 1e9 bytes a second (read and written bytes both count), by the bytes that are worked on.
        threads: with how many threads.
    """

    gflops: Mapping[str, float]
    gbs: Mapping[int, float]
    threads: int

    def speed(self, touched: int) -> float:
        """The speed of a copy that touches so many bytes: that of the next larger one that was measured."""
        sizes = sorted(self.gbs)
        return self.gbs[next((size for size in sizes if size >= touched), sizes[-1])]

    @property
    def memory(self) -> float:
        """The speed of a copy that no cache holds."""
        return self.gbs[max(self.gbs)]

    def as_json(self) -> dict[str, Any]:
        """The peaks as ``--json`` prints them."""
        speeds = [{"bytes": size, "gbs": speed} for size, speed in sorted(self.gbs.items())]
        return {"gflops": dict(self.gflops), "gbs": self.memory, "copies": speeds, "threads": self.threads}


@dataclass(frozen=True)
class Load:
    """What a layer has to do, and how long it took.

    Attributes:
        flops: operations; two per multiplication.
        bytes: what it reads and writes at the least; None where a node's traffic is not known.
        ns: how long it took.
        operator: the graph's; several joined by ``+``.
        module: where in the model it comes from.
        precision: the type it ran in.
    """

    flops: int
    bytes: int | None
    ns: float
    operator: str = OWN
    module: str = OWN
    precision: str = "fp32"

    @property
    def gflops(self) -> float | None:
        """1e9 operations a second."""
        return self.flops / self.ns if self.flops and self.ns else None

    @property
    def gbs(self) -> float | None:
        """1e9 bytes a second."""
        return self.bytes / self.ns if self.bytes and self.ns else None

    def best(self, peaks: Peaks) -> float | None:
        """1e9 operations a second that this machine reaches in its type, where that was measured."""
        return peaks.gflops.get(self.precision or "fp32")

    def limit(self, peaks: Peaks) -> tuple[float, str] | None:
        """The nanoseconds it cannot go below, and what binds it; None where that is not known.

        Of arithmetic in a type that has no measured peak, nothing is known.
        """
        best = self.best(peaks)
        if not self.bytes or (self.flops and best is None):
            return None
        moving = self.bytes / peaks.speed(self.bytes)
        computing = self.flops / best if best else 0.0
        return (computing, COMPUTE) if computing > moving else (moving, MEMORY)

    def as_json(self, peaks: Peaks) -> dict[str, Any]:
        """The load as ``--json`` prints it; what is not known is null."""
        limit = self.limit(peaks)
        return {
            "flops": self.flops,
            "bytes": self.bytes,
            "gflops": digits(self.gflops),
            "gbs": digits(self.gbs),
            "bound": limit[1] if limit else None,
            "of_limit": digits(limit[0] / self.ns) if limit and self.ns else None,
            "operator": self.operator,
            "module": self.module,
        }


def load_of(nodes: Sequence[str], ns: float, precision: str, work: Mapping[str, Work], users: Users) -> Load:
    """What a layer of these nodes has to do.

    Args:
        nodes: the graph's nodes that it computes.
        ns: how long it took.
        precision: the type it ran in.
        work: of one run of every node.
        users: who reads each tensor (:func:`users_of`).
    """
    known = [node for node in nodes if node in work]
    if not known:
        return Load(0, None, ns, precision=precision)
    flops = 2 * sum(work[node].multiplications for node in known)
    largest = max(known, key=lambda node: work[node].multiplications)
    kind = "+".join(dict.fromkeys(work[node].operator for node in known))
    touched = _traffic(known, work, users) if len(known) == len(nodes) else None
    size = None if touched is None else int(touched * NARROW.get(precision, 1.0))
    return Load(flops, size, ns, kind, "/".join(work[largest].module.split(".")[:DEPTH]) or UNTRACED, precision)


Users = Mapping[str, frozenset[str]]


def users_of(work: Mapping[str, Work]) -> Users:
    """The nodes that read each tensor."""
    found: dict[str, set[str]] = {}
    for node, of in work.items():
        for tensor in of.reads:
            found.setdefault(tensor, set()).add(node)
    return {tensor: frozenset(nodes) for tensor, nodes in found.items()}


def _traffic(nodes: Sequence[str], work: Mapping[str, Work], users: Users) -> int | None:
    """The bytes that nodes which run as one must move: what comes from outside, and what somebody else reads."""
    if all(work[node].operator in VIEWS for node in nodes):
        return 0
    group = set(nodes)
    reads = {name: size for node in nodes for name, size in work[node].reads.items()}
    writes = {name: size for node in nodes for name, size in work[node].writes.items()}
    if not writes:
        return None
    taken = sum(size for name, size in reads.items() if name not in writes)
    # A tensor that nobody in the graph reads is one of its outputs.
    left = sum(size for name, size in writes.items() if not users.get(name) or users[name] - group)
    return taken + left


def shares(loads: Iterable[Load], name: Callable[[Load], str]) -> dict[str, float]:
    """Which part of the time of all layers goes where, by a name of each layer; the largest first."""
    spent: dict[str, float] = {}
    for load in loads:
        spent[name(load)] = spent.get(name(load), 0.0) + load.ns
    whole = sum(spent.values()) or 1.0
    return {key: ns / whole for key, ns in sorted(spent.items(), key=lambda part: -part[1])}


def digits(value: float | None, count: int = 4) -> float | None:
    """A figure with so many digits."""
    return None if value is None else float(f"{value:.{count}g}")
