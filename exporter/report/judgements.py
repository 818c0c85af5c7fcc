"""Verdicts as reports hold them: hops and results, read without trust."""

from __future__ import annotations

from collections.abc import Sequence

from exporter.report.reading import Fields
from exporter.verdict import Hop, Precision, Result, Verdict


def hop_of(value: Fields, results: Sequence[Result] = ()) -> Hop:
    """A hop, with its results where they are at hand."""
    said = value.fields("precision")
    precision = Precision(said.text("asked"), said.text("stored"), said.text("ran") or None) if said else None
    return Hop(
        value.text("hop"), value.text("target") or None, verdict_of(value), value.text("reason") or None, precision,
        tuple(results),
    )  # fmt: skip


def result_of(value: Fields) -> Result:
    """A result of one output of one case."""
    return Result(
        hop=value.text("hop"),
        target=value.text("target") or None,
        form=value.text("form") or None,
        case=value.text("case"),
        output=value.text("output"),
        verdict=verdict_of(value),
        reason=value.text("reason") or None,
        relative_l2=value.number("relative_l2"),
        noise=value.number("noise"),
        amplification=value.number("amplification"),
        max_abs=value.number("max_abs"),
        elements=value.count("elements") or 0,
        notes=tuple(value.texts("notes")),
    )


def verdict_of(value: Fields) -> Verdict:
    """The verdict; a word that is none says nothing, which is never success."""
    said = value.text("verdict")
    return Verdict(said) if said in {verdict.value for verdict in Verdict} else Verdict.INVALID
