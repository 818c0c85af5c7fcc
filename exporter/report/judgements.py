"""Verdicts as reports hold them: hops and results, read without trust."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

from exporter.report.reading import Fields
from exporter.verdict import Hop, Precision, Result, Verdict

# What the schema of each kind of report begins with.
EXPORT, VERIFY, PROFILE = "exporter.export/", "exporter.verify/", "exporter.profile/"
T = TypeVar("T")


def hops_of(value: Fields) -> list[tuple[Hop, Fields]]:
    """The hops of a verification, each with its results, beside what is written of it."""
    written = value.each("hops")
    own = _results(written, value.each("results"))
    return [(hop_of(each, results), each) for each, results in zip(written, own, strict=True)]


def _results(hops: Sequence[Fields], results: Sequence[Fields]) -> list[list[Result]]:
    """Which results are of which hop: they name its hop, target and precision."""
    own: list[list[Result]] = [[] for _ in hops]
    seen: list[set[tuple[str, str, str]]] = [set() for _ in hops]
    for value in results:
        result = result_of(value)
        mark = result.form or "", result.case, result.output
        for index, hop in enumerate(hops):
            asked = value.text("precision")  # an older report does not say it: of two precisions one is after the other
            same = (hop.text("hop"), hop.text("target")) == (result.hop, result.target or "")
            same = same and asked in ("", hop.fields("precision").text("asked"))
            if same and mark not in seen[index]:
                own[index].append(result)
                seen[index].add(mark)
                break
    return own


def joined(found: Iterable[T], edge: Callable[[T], Hashable], hop: Callable[[T], Hop]) -> list[T]:
    """Each edge once: the last that was found, unless it only repeats a verdict without what was compared."""
    kept: dict[Hashable, T] = {}
    for each in found:
        before = kept.get(edge(each))
        if before is None or hop(each).results or hop(each).verdict is not hop(before).verdict:
            kept[edge(each)] = each
    return list(kept.values())


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
