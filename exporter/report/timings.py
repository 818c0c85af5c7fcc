"""Profiles in a bundle's reports to plain values: what was timed, how it is distributed, on which machine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from exporter.report.reading import Fields
from exporter.report.values import Profiled, Timing

QUANTILES = 101


def profiled(report: str, value: Fields) -> Profiled:
    """One profile."""
    return Profiled(report, machine_of(value), value, tuple(_timing(each) for each in value.each("subjects")))


def machine_of(value: Fields) -> str:
    """How to call the machine of a profile: the device's name where there is one, else processor, cores and kernel."""
    facts = value.fields("environment")
    if device := device_of(value):
        return device
    cores = facts.count("usable_cores") or facts.count("cores")
    parts = [facts.text("cpu") or "an unnamed processor", f"{cores} cores" if cores else "", facts.text("kernel")]
    return ", ".join(part for part in parts if part)


def device_of(value: Fields) -> str:
    """The name of the device that a report is from, where it was brought back from one."""
    device = value.fields("device")
    return device.text("label") + (" (emulated)" if "emulated" in device else "")


def _timing(value: Fields) -> Timing:
    precision = value.fields("precision")
    calls, blocks = _samples(value)
    return Timing(
        name=value.text("name"),
        asked=precision.text("asked"),
        ran=precision.text("ran"),
        verdict=value.text("verdict"),
        reason=value.text("reason"),
        stability=value.text("stability"),
        against=tuple(reason.text("text") for reason in value.each("reasons")),
        median=value.number("median_ms"),
        interval=value.interval("interval_ms"),
        p95=value.number("p95_ms"),
        n=value.count("n") or 0,
        load=value.number("load_ms"),
        first=value.number("first_run_ms"),
        memory=value.number("peak_rss_mb"),
        bytes=value.number("bytes"),
        threads=value.count("threads"),
        quantiles=calls,
        blocks=blocks,
        layers=tuple(value.each("layer_times")),
        kinds=value.counted("layers"),
        providers=value.counted("providers"),
        notes=tuple(value.texts("advice")),
        shares=value.fields("shares").counted("module"),
        whole=value.fields("roofline"),
    )


def _samples(value: Fields) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Quantiles of single calls, and a figure per block: from every timing, or as the export kept them."""
    if "distribution" in value:
        kept = value.fields("distribution")
        return tuple(kept.numbers("quantiles_ms")), tuple(kept.numbers("blocks_ms"))
    calls, blocks = list[float](), list[float]()
    for block in value.fields("raw").each("blocks"):
        ns, count = block.numbers("ns"), block.count("calls") or 0
        if not ns or not count:
            continue
        single = len(ns) == count
        calls += ns if single else []
        blocks.append((float(np.median(ns)) if single else sum(ns) / count) / 1e6)
    return quantiles([ns / 1e6 for ns in calls]), tuple(blocks)


def quantiles(values: Sequence[float]) -> tuple[float, ...]:
    """The quantiles 0, 0.01 ... 1 of values; nothing of none."""
    if not values:
        return ()
    return tuple(float(x) for x in np.quantile(np.asarray(values, np.float64), np.linspace(0, 1, QUANTILES)))
