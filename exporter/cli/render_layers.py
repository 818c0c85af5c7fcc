"""The layers of a profile, for people: the slowest, where time goes, how far that is from this machine's best."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from exporter.cli.console import escape

Event = Mapping[str, Any]
LAYERS_SHOWN, SHARES_SHOWN = 20, 8


def layer_lines(subject: Event) -> Iterator[str]:
    """The slowest layers, with the graph's nodes behind them; the JSON has all of them."""
    layers = subject.get("layer_times", [])
    total = sum(_spent(layer) for layer in layers)
    if not total:
        return
    yield f"  layers of {escape(subject['name'])}, {total:.4g} ms in all:"
    for layer in layers[:LAYERS_SHOWN]:
        nodes = ", ".join(layer["nodes"]) or "of the runtime's own"
        share, often = f"{_spent(layer) / total:6.1%}", f" x {layer['runs']}" if layer.get("runs", 1) > 1 else ""
        what = f"{layer['precision']:<5} {escape(layer['kind'])}: {escape(nodes)}{_reached(layer)}"
        yield f"    {layer['ms']:9.4g} ms{often} {share}  {what}"
    if len(layers) > LAYERS_SHOWN:
        yield f"    and {len(layers) - LAYERS_SHOWN} more: --json"
    for what in ("operator", "module"):
        yield from _share_lines(what, subject.get("shares", {}).get(what, {}))
    yield from _whole_lines(subject)


def _spent(layer: Event) -> float:
    """Milliseconds in one run of the model, in which its graph may run often."""
    return float(layer["ms"] * layer.get("runs", 1))


def _reached(layer: Event) -> str:
    """What a layer reaches, and what holds it."""
    speeds = [f"{layer[name]:.4g} {unit}" for name, unit in (("gflops", "GFLOP/s"), ("gbs", "GB/s")) if layer.get(name)]
    if layer.get("of_limit"):
        speeds.append(f"{layer['of_limit']:.0%} of what {layer['bound']} allows")
    return f"  [dim]{', '.join(speeds)}[/]" if speeds else ""


def _share_lines(what: str, parts: Mapping[str, float]) -> Iterator[str]:
    if not parts:
        return
    shown = [f"{escape(name)} {part:.1%}" for name, part in list(parts.items())[:SHARES_SHOWN]]
    more = f", and {len(parts) - SHARES_SHOWN} more" if len(parts) > SHARES_SHOWN else ""
    yield f"    by {what}: {', '.join(shown)}{more}"


def _whole_lines(subject: Event) -> Iterator[str]:
    """The model as a whole: how much of its time the measured peaks would need."""
    whole = subject.get("roofline")
    if whole is None:
        return
    reached = f"{whole['flops'] / 1e9:.4g} GFLOP and {whole['bytes'] / 1e6:.4g} MB a run, {whole['gflops']:.4g} GFLOP/s"
    line = f"    whole: {reached}, {whole['gbs']:.4g} GB/s"
    if whole["of_limit"]:
        line += f"; {whole['of_limit']:.0%} of its time would do at the peaks, most of it bound by {whole['bound']}"
    if whole["layers_without_limit"]:
        line += f" ({whole['layers_without_limit']} layers have no known limit and count as nothing)"
    yield line


def peak_lines(peaks: Event | None) -> Iterator[str]:
    """What this machine was measured to reach."""
    if peaks is None:
        return
    copies = ", ".join(f"{copy['gbs']:.3g} at {copy['bytes'] >> 20} MiB" for copy in peaks["copies"])
    threads = f"{peaks['threads']} thread{'s' if peaks['threads'] != 1 else ''}"
    products = ", ".join(f"{speed:.4g} in {escape(kind)}" for kind, speed in peaks["gflops"].items())
    yield f"  this machine's peaks, {threads}: GFLOP/s {products}; copies in GB/s: {copies}"
