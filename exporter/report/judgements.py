"""Verdicts as reports hold them: hops and results, read without trust."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from typing import TypeVar

from exporter.bundle import Bundle
from exporter.manifest.identity import others_than
from exporter.report.reading import Fields, reports
from exporter.verdict import Hop, Precision, Result, Verdict

# What the schema of each kind of report begins with.
EXPORT, VERIFY, PROFILE = "exporter.export/", "exporter.verify/", "exporter.profile/"
T = TypeVar("T")


def current(bundle: Bundle) -> dict[str, Fields]:
    """The reports of a bundle, without what they say of artifacts that are others now; what was saved last is last.

    Raises:
        Refused: a report that is not what the manifest says it is.
    """
    return {
        name: _without(value, others_than(value.fields("artifacts").worded(), bundle.manifest))
        for name, value in reports(bundle).items()
    }


def _without(report: Fields, others: Collection[str]) -> Fields:
    if not others:
        return report
    if timed_of(report) & set(others):
        return Fields()  # a profile is of all its subjects together
    told = report.plain()
    for part in ("verify", "profile"):
        if part in report:
            told[part] = _without(report.fields(part), others).plain()
    if "hops" in report:
        told["hops"] = [hop.plain() for hop in report.each("hops") if _artifact(hop) not in others]
        told["results"] = [one.plain() for one in report.each("results") if _artifact(one) not in others]
    return Fields(told)


def _artifact(value: Fields) -> str:
    """Of a hop, which says which precision was asked for and which ran, or of a result, which names it."""
    return f"{value.text('target')}/{value.text('precision') or value.fields('precision').text('asked')}"


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


def subject_key(name: str) -> str:
    """The artifact that a profile calls so (:func:`exporter.latency.subjects.subject_name`)."""
    return name if "/" in name else f"{name}/fp32"


def timed_of(profile: Fields) -> set[str]:
    """The artifacts, by key, that a profile timed; eager is in it, and no artifact."""
    return {subject_key(each.text("name")) for each in profile.each("subjects")}


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
