"""A bundle to plain values: its manifest, and what the reports in it say. No artifact is run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from exporter.bundle import Bundle
from exporter.report import timings
from exporter.report.examples import gathered
from exporter.report.judgements import hop_of, result_of
from exporter.report.reading import Fields, reports
from exporter.report.values import Judged, Page, Profiled
from exporter.verdict import Result

EXPORT, VERIFY, PROFILE = "exporter.export/", "exporter.verify/", "exporter.profile/"
ORDER = ("traced", "simplified", "lowered", "compiled")


def collected(bundle: Bundle) -> Page:
    """All that a report shows of a bundle.

    Raises:
        Refused: a report that is not what the manifest says it is.
    """
    manifest = bundle.manifest
    found = reports(bundle)
    exports = _of_kind(found, EXPORT)
    # What was verified again replaces what the export found: it is never older.
    verified = [*_within(exports, "verify"), *_of_kind(found, VERIFY).items()]
    hops = _joined(judged for name, value in verified for judged in judged_in(name, value))
    held = [judged for judged in hops if not judged.hop.target or judged.artifact in manifest.targets]
    known = {judged.artifact for judged in held if judged.hop.hop == "compiled"}
    profiled = [*_of_kind(found, PROFILE).items(), *_within(exports, "profile")]
    return Page(
        manifest=manifest,
        bytes=sum(info.bytes for info in manifest.files.values()),
        hops=tuple(sorted(held, key=_place)),
        missing=tuple(key for key in manifest.targets if key not in known),
        profiles=_distinct([timings.profiled(name, value) for name, value in profiled]),
        stages={name: tuple(value.each("stages")) for name, value in exports.items()},
        examples=gathered(bundle),
    )


def _of_kind(found: Mapping[str, Fields], schema: str) -> dict[str, Fields]:
    return {name: value for name, value in found.items() if value.text("schema").startswith(schema)}


def _within(exports: Mapping[str, Fields], part: str) -> list[tuple[str, Fields]]:
    return [(name, value.fields(part)) for name, value in exports.items() if value.fields(part)]


def _place(judged: Judged) -> tuple[int, str, str, str]:
    kind, target, precision = judged.key
    return (ORDER.index(kind) if kind in ORDER else len(ORDER)), target, precision, judged.device


def _joined(found: Iterable[Judged]) -> list[Judged]:
    """Each edge once on each device: the last found, unless it only repeats a verdict without what was compared."""
    kept: dict[tuple[str, ...], Judged] = {}
    for judged in found:
        place = *judged.key, judged.device
        before = kept.get(place)
        repeats = before is not None and not judged.hop.results and judged.hop.verdict is before.hop.verdict
        if not repeats:
            kept[place] = judged
    return list(kept.values())


def judged_in(report: str, value: Fields) -> list[Judged]:
    """The hops of a verification, each with its results."""
    hops = value.each("hops")
    results = _by_hop(hops, value.each("results"))
    device = timings.device_of(value)
    return [
        Judged(hop_of(each, own), each.fields("facts"), report, device) for each, own in zip(hops, results, strict=True)
    ]


def _by_hop(hops: Sequence[Fields], results: Sequence[Fields]) -> list[list[Result]]:
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


def _distinct(profiles: Sequence[Profiled]) -> tuple[Profiled, ...]:
    """Each machine, set of subjects and kind of measurement once; what was saved stands before what an export took in
    passing."""
    kept: list[Profiled] = []
    for profile in profiles:
        if not any(profile.covered_by(other) for other in kept):
            kept.append(profile)
    return tuple(kept)
