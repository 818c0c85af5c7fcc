"""The work of a bundle's graphs, as the bundle has it; nothing for a bundle made before it was counted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exporter.errors import Refused
from exporter.manifest import Manifest
from exporter.preflight import PathOf
from exporter.work import Work


def single(path_of: PathOf, manifest: Manifest) -> dict[str, Work]:
    """What every node takes in one run of its graph, at the opt sizes.

    The nodes and tensors of several graphs are named ``GRAPH.NAME``.

    Raises:
        Refused: ``bad-manifest`` for a file that is no count.
    """
    several = len(manifest.graphs) > 1
    found: dict[str, Work] = {}
    for name, graph in manifest.graphs.items():
        before = f"{name}." if several else ""
        counts = _read(path_of(graph.work)) if graph.work else {}
        found |= {
            before + node: of._replace(reads=_named(before, of.reads), writes=_named(before, of.writes))
            for node, of in counts.items()
        }
    return found


def runs(manifest: Manifest) -> dict[str, int]:
    """How often each graph runs in one run of the model, at the opt sizes."""
    opt = {dim.name: dim.opt for dim in manifest.dims}
    found: dict[str, int] = {}
    for step in manifest.program:
        times = step.repeat if isinstance(step.repeat, int) else opt[step.repeat]
        found[step.graph] = found.get(step.graph, 0) + times
    return found


def times(node: str, often: Mapping[str, int]) -> int:
    """How often a node of :func:`single` runs, by what :func:`runs` says of its graph."""
    only = next(iter(often.values()), 1)
    return only if len(often) < 2 else often.get(node.partition(".")[0], 1)


def whole(path_of: PathOf, manifest: Manifest) -> dict[str, Work]:
    """What every node that multiplies takes in one run of the model, as often as it runs.

    Raises:
        Refused: ``bad-manifest`` for a file that is no count.
    """
    often = runs(manifest)
    return {
        node: of._replace(multiplications=of.multiplications * times(node, often))
        for node, of in single(path_of, manifest).items()
        if of.multiplications
    }


def _named(before: str, tensors: Mapping[str, int]) -> dict[str, int]:
    return {before + name: size for name, size in tensors.items()}


def _read(path: Path) -> dict[str, Work]:
    """What a bundle says of its graph's work; it may come from anyone."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        return {str(node): _work(*entry) for node, entry in value.items()}
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise Refused(
            "bad-manifest",
            f"{path.name} is no count of work: {error}",
            where=f"file {path.name}",
            why="a report of how much ran in which type must rest on something",
            next="export the model again, or get the bundle again from where it was made",
        ) from error


def _work(operator: Any, count: Any, module: Any, reads: Any = None, writes: Any = None) -> Work:
    """One entry; those of older bundles say nothing of traffic."""
    return Work(str(operator), max(int(count), 0), str(module), _sizes(reads), _sizes(writes))


def _sizes(tensors: Any) -> dict[str, int]:
    return {} if tensors is None else {str(name): max(int(size), 0) for name, size in tensors.items()}
