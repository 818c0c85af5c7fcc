"""A bundle to plain values: its manifest, and what the reports in it say. No artifact is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from exporter.bundle import Bundle
from exporter.report import timings
from exporter.report.examples import gathered
from exporter.report.judgements import EXPORT, PROFILE, VERIFY, current, hops_of, joined
from exporter.report.reading import Fields
from exporter.report.values import Judged, Page, Profiled

ORDER = ("traced", "simplified", "lowered", "compiled")


def collected(bundle: Bundle) -> Page:
    """All that a report shows of a bundle.

    Raises:
        Refused: a report that is not what the manifest says it is.
    """
    manifest = bundle.manifest
    found = current(bundle)
    exports = _of_kind(found, EXPORT)
    # What was verified again replaces what the export found: it is never older.
    verified = [*_within(exports, "verify"), *_of_kind(found, VERIFY).items()]
    found_hops = (judged for name, value in verified for judged in judged_in(name, value))
    hops = joined(found_hops, lambda judged: (*judged.key, judged.device), lambda judged: judged.hop)
    held = [judged for judged in hops if not judged.hop.target or judged.artifact in manifest.targets]
    known = {judged.artifact for judged in held if judged.hop.hop == "compiled"}
    profiled = [*sorted(_of_kind(found, PROFILE).items()), *_within(exports, "profile")]
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


def judged_in(report: str, value: Fields) -> list[Judged]:
    """The hops of a verification, each with its results."""
    device = timings.device_of(value)
    return [Judged(hop, written.fields("facts"), report, device) for hop, written in hops_of(value)]


def _distinct(profiles: Sequence[Profiled]) -> tuple[Profiled, ...]:
    """Each machine, set of subjects and kind of measurement once, as it was saved last; what an export took in passing
    stands behind what was saved."""
    kept: list[Profiled] = []
    for profile in sorted(profiles, key=lambda profile: -profile.facts.saved):
        if not any(profile.covered_by(other) for other in kept):
            kept.append(profile)
    return tuple(profile for profile in profiles if any(profile is other for other in kept))
