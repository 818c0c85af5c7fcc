"""The verdict, before everything: of what, on which weights, in which precision, how far off and how fast."""

from __future__ import annotations

from exporter.report import figures
from exporter.report.layout import Column, Section, bullets, bundle_word, command, missing, paragraph, table, word
from exporter.report.markup import Content, Markup, joined, tag
from exporter.report.timings import device_of
from exporter.report.values import Judged, Page, Timing
from exporter.verification import weights_line

COLUMNS = (
    Column("target"), Column("verdict"), Column("asked"), Column("stored"), Column("ran"),
    Column("error / eager's own", "number"), Column("stability"), Column("median", "number"), Column("size", "number"),
)  # fmt: skip


def verdict(page: Page) -> Section:
    """The section."""
    manifest = page.manifest
    seeded = manifest.weights.kind == "seeded"
    said = weights_line(manifest.weights)
    weights = paragraph(tag("b", said, class_="word open") if seeded else said, kind="weights")
    rows = [row for key in manifest.targets for row in _targets(page, key)]
    body = [tag("p", word(page.verdict.value), " ", _sentence(page), class_="verdict"), weights]
    if rows:
        body.append(table("Artifacts", COLUMNS, rows))
    else:
        body.append(
            missing("The bundle holds no artifact:", f"exporter compile {bundle_word(manifest)} --target TARGET")
        )
    body.append(bullets([*_against(page), *_unfinished(page)]))
    return Section("verdict", "Verdict", joined(*body))


def _sentence(page: Page) -> str:
    """What the verdict rests on."""
    compared = [result for judged in page.hops for result in judged.hop.results]
    if not compared:
        return "nothing was compared, so nothing is proven."
    cases = len({result.case for result in compared})
    values = sum(result.elements for result in compared)
    edges = figures.counted(len(page.hops), "hop")
    return f"{edges}, {figures.counted(cases, 'case')}, {values:,} values compared with the float64 reference."


def _targets(page: Page, key: str) -> list[list[Content]]:
    """A row for a target, and for each device that it was verified on."""
    found = [judged for judged in page.hops if judged.hop.hop == "compiled" and judged.artifact == key]
    return [_target(page, key, judged) for judged in found] or [_target(page, key, None)]


def _target(page: Page, key: str, judged: Judged | None) -> list[Content]:
    info = page.manifest.targets[key]
    precision = judged.hop.precision if judged else None
    timing = _timed(page, key, judged.device if judged else "")
    return [
        judged.named if judged else key,
        word(judged.hop.verdict.value) if judged else word("SKIPPED"),
        info.precision,
        info.stored or figures.NONE,
        (precision.ran if precision else None) or figures.NONE,
        _worst(judged),
        word(timing.stability) if timing and timing.median is not None else figures.NONE,
        figures.time(timing.median) if timing else figures.NONE,
        figures.size(_bytes(page, key)),
    ]


def _timed(page: Page, key: str, device: str) -> Timing | None:
    """The first timing there is of a target; of a device, what was timed there."""
    target, _, precision = key.partition("/")
    profiles = [profile for profile in page.profiles if device_of(profile.facts) == device]
    found = (timing for profile in profiles for timing in profile.timings if timing.median is not None)
    return next((t for t in found if t.name in (key, target) and t.asked == precision), None)


def _bytes(page: Page, key: str) -> int | None:
    """What the artifact's files weigh."""
    files = page.manifest.targets[key].files.values()
    return sum(page.manifest.files[name].bytes for name in files) or None


def _worst(judged: Judged | None) -> str:
    """How far off the case that decides is, in units of eager's own error."""
    worst = judged.hop.worst_result if judged else None
    return figures.NONE if worst is None or worst.amplification is None else figures.factor(worst.amplification)


def _against(page: Page) -> list[Content]:
    """Why what is not PASS is not."""
    hops = [
        joined(word(judged.hop.verdict.value), f" {judged.title}: {judged.hop.reason}")
        for judged in page.hops
        if judged.hop.reason
    ]
    timed = [
        joined(word(timing.verdict), f" {timing.label}, timed on {machine}: {timing.reason}")
        for machine, timing in page.wrong
    ]
    return [*hops, *timed]


def _unfinished(page: Page) -> list[Markup]:
    """The targets that nobody judged, with the command that does."""
    bundle, found = bundle_word(page.manifest), list[Markup]()
    for key in page.missing:
        info = page.manifest.targets[key]
        line, state = (
            f"exporter verify {bundle} --target {key} --save",
            "compiled, and no report in the bundle judges it",
        )
        if info.status != "compiled":  # it says itself how it is finished
            line, state = info.finish(f"{page.manifest.model.name}.bundle") or line, "not compiled yet"
        found.append(joined(word("SKIPPED"), f" {key}: {state}. ", command(line)))
    return found
