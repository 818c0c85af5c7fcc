"""What the layers of one subject took, against what they had to do: shares, speeds, and how far from this machine's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from exporter.work import Work
from exporter.work.roofline import Load, Peaks, digits, load_of, shares, users_of
from exporter.work.stored import times

# A runtime's products may be a little better than those that peaks are measured with.
EXCESS = 1.15


def layered(
    layers: Sequence[Mapping[str, Any]],
    work: Mapping[str, Work],
    often: Mapping[str, int],
    median_ns: float | None,
    peaks: Peaks | None,
) -> dict[str, Any]:
    """The layers as ``--json`` prints them, the slowest first.

    Args:
        layers: ``{"name", "kind", "nodes", "ns", "precision"}`` each, of one run of its graph.
        work: of one run of each node, in float32; empty where the timed sizes are not those it was counted at.
        often: how often each graph runs in one run of the model.
        median_ns: what a run of the model takes with no layer timed.
        peaks: what this machine reaches; None where it was not measured.

    Returns:
        ``layer_times``, ``shares`` of the layers' time by ``operator`` and ``module``, and ``roofline``: what the whole
        model reaches, and which part of its time the measured peaks would need.
    """
    users = users_of(work)
    loads = [load_of(layer["nodes"], layer["ns"], layer["precision"], work, users) for layer in layers]
    runs = [times(layer["nodes"][0] if layer["nodes"] else layer["name"], often) for layer in layers]
    rows = [_row(layer, load, n, peaks) for layer, load, n in zip(layers, loads, runs, strict=True)]
    rows.sort(key=lambda row: -row["ms"] * row["runs"])
    repeated = [replace(load, ns=load.ns * n) for load, n in zip(loads, runs, strict=True)]
    found: dict[str, Any] = {
        "layer_times": rows,
        "shares": {
            "operator": _rounded(shares(repeated, lambda load: load.operator)),
            "module": _rounded(shares(repeated, lambda load: load.module)),
        },
    }
    if peaks is not None and median_ns and any(load.bytes for load in loads):
        found["roofline"] = _whole(loads, runs, median_ns, peaks)
    return found


def beyond(layers: Sequence[Mapping[str, Any]], work: Mapping[str, Work], peaks: Peaks) -> list[str]:
    """The layers whose arithmetic ran faster than the machine was measured to be able to: its peaks are too low."""
    users = users_of(work)
    loads = {layer["name"]: load_of(layer["nodes"], layer["ns"], layer["precision"], work, users) for layer in layers}
    return [n for n, load in loads.items() if (load.gflops or 0.0) > EXCESS * (load.best(peaks) or math.inf)]


def _row(layer: Mapping[str, Any], load: Load, runs: int, peaks: Peaks | None) -> dict[str, Any]:
    """One layer: ``ms`` of one run of its graph, which runs ``runs`` times in one of the model."""
    row = {name: value for name, value in layer.items() if name != "ns"}
    row |= {"ms": digits(layer["ns"] / 1e6, 6), "runs": runs}
    return row | (load.as_json(peaks) if peaks is not None else {})


def _whole(loads: Sequence[Load], runs: Iterable[int], median_ns: float, peaks: Peaks) -> dict[str, Any]:
    """What a run of the model reaches; what the peaks would need is that of those layers whose limit is known."""
    flops = moved = 0
    needed = {"compute": 0.0, "memory": 0.0}
    without = 0
    for load, n in zip(loads, runs, strict=True):
        flops, moved = flops + n * load.flops, moved + n * (load.bytes or 0)
        limit = load.limit(peaks)
        if limit is None:
            without += 1
        else:
            # What was faster than that did not need it.
            needed[limit[1]] += n * min(limit[0], load.ns)
    at_best = sum(needed.values())
    return {
        "flops": flops,
        "bytes": moved,
        "gflops": digits(flops / median_ns),
        "gbs": digits(moved / median_ns),
        "of_limit": digits(at_best / median_ns) if at_best else None,
        "bound": max(needed, key=lambda name: needed[name]) if at_best else None,
        "compute": digits(needed["compute"] / at_best) if at_best else None,
        "layers_without_limit": without,
    }


def _rounded(parts: Mapping[str, float]) -> dict[str, float]:
    return {name: float(f"{part:.4g}") for name, part in parts.items()}
