"""What the model gives, to look at and to listen to: what it was given, what is right, and what each artifact gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from exporter.host.metrics import METRICS
from exporter.host.preview import AUDIO, DISPARITY, IMAGE, RATE, SCORE, SECONDS
from exporter.report import figures
from exporter.report.charts import plot
from exporter.report.charts.scale import linear
from exporter.report.examples import Example, Version
from exporter.report.layout import Column, Section, bundle_word, charts, details, missing, paragraph, table
from exporter.report.markup import Content, Markup, joined, tag
from exporter.report.media import colours, png, sound
from exporter.report.values import Page

# All pictures and recordings of a page, as they are encoded there; the page stays under 3 MB.
MEDIA_BYTES = 2_100_000
SAID = {"given": "given", "truth": "the truth", "reference": "reference, float64", "eager": "eager PyTorch"}
LISTENED = ("given", "truth", "reference", "artifact")  # of recordings and pictures; eager is beside them in scores
METRIC = (
    Column("artifact"), Column("metric"), Column("case"), Column("artifact's", "number"), Column("eager's", "number"),
    Column("difference", "number"), Column("against"),
)  # fmt: skip


class Drawn(NamedTuple):
    """One version as it is shown: what it is, the picture or the player, a note, and what it must differ in."""

    label: str
    shown: Markup
    note: str
    data: bytes


def outputs(page: Page) -> Section | None:
    """The section; none for a model whose outputs nobody looks at."""
    manifest = page.manifest
    looked_at = {METRICS[name].value for name in manifest.model.metrics if name in METRICS}
    found = page.examples.found
    metrics = _metrics(page)
    if page.examples.problem:
        return _section(paragraph("What it gives could not be made ready: ", page.examples.problem), metrics)
    if not found:
        said = "The bundle holds no real input, so there is nothing to look at."
        command = f"exporter TARGET {manifest.model.name} --samples PATH"
        return _section(missing(said, command), metrics) if looked_at else None
    parts: list[Markup] = [] if _artifacts_shown(found) else [_not_kept(page)]
    left, room = 0, MEDIA_BYTES
    for example in found:
        shown = _example(example)
        if len(shown) > room:
            left += bool(shown)
            continue
        room -= len(shown)
        parts.append(shown)
    if left:
        said = f"{figures.counted(left, 'more example')} would not fit into a page of 3 MB."
        parts.append(paragraph(said, kind="note"))
    return _section(*parts, _scores(found), metrics)


def _section(*parts: Content) -> Section:
    return Section("outputs", "What it gives", joined(*parts))


def _artifacts_shown(found: Sequence[Example]) -> bool:
    return any(version.kind == "artifact" for example in found for version in example.versions)


def _not_kept(page: Page) -> Markup:
    command = f"exporter verify {bundle_word(page.manifest)} --save"
    return missing("What artifacts give for these inputs was not kept.", command)


def _label(version: Version) -> str:
    if version.kind == "artifact":
        return version.name
    return f"{SAID[version.kind]}: {version.name}" if version.name else SAID[version.kind]


def _example(example: Example) -> Markup:
    """The recordings, pictures and maps of one real input; nothing where it has none."""
    shown = [version for version in example.versions if version.kind in LISTENED]
    parts = [made for show in (_recordings, _pictures, _maps) if (made := show(example.case, shown))]
    return joined(tag("h3", example.case), *parts) if parts else Markup("")


def _of(name: str, versions: Sequence[Version]) -> list[Version]:
    return [version for version in versions if name in version.values]


def _figures(drawn: Sequence[Drawn]) -> Markup:
    """Versions beside one another; one that equals another to the last bit says so in its place."""
    first: dict[bytes, str] = {}
    made = []
    for each in drawn:
        same = first.setdefault(each.data, each.label)
        if same == each.label:
            made.append(tag("figure", each.shown, tag("figcaption", f"{each.label}{each.note}")))
        else:
            said = f"{each.label}: the same as {same}, to the last bit of what is shown"
            made.append(tag("figure", tag("figcaption", said)))
    return tag("div", *made, class_="looks") if made else Markup("")


def _recordings(case: str, versions: Sequence[Version]) -> Markup:
    held = _of(AUDIO, versions)
    levels = [sound.levels(np.asarray(version.values[AUDIO], np.int16)) for version in held]
    loudest = max((float(found.max()) for found in levels), default=0.0)
    return _figures([_recording(case, *each, loudest) for each in zip(held, levels, strict=True)])


def _recording(case: str, version: Version, levels: NDArray[np.float64], loudest: float) -> Drawn:
    rate, samples = int(version.values[RATE]), np.asarray(version.values[AUDIO], np.int16)
    seconds, label = samples.size / rate, _label(version)
    alt = f"Spectrogram of {label}, {case}: {seconds:.1f} s, 0 to {rate / 2000:g} kHz upwards, {sound.RANGE:g} dB"
    picture = _img(sound.spectrogram(levels, loudest), alt, levels.shape, "spectrogram")
    address = png.address(sound.file(samples, rate), "audio/wav")
    player = tag("audio", src=address, controls="", preload="metadata", aria_label=f"{label}, {case}")
    cut = f", the first {seconds:.0f} s" if samples.size == int(SECONDS * rate) else ""
    return Drawn(label, joined(picture, player), f" ({rate / 1000:g} kHz{cut})", samples.tobytes())


def _pictures(case: str, versions: Sequence[Version]) -> Markup:
    drawn = []
    for version in _of(IMAGE, versions):
        pixels, label = np.asarray(version.values[IMAGE], np.uint8), _label(version)
        data = png.picture(pixels)
        drawn.append(Drawn(label, _img(data, f"{label}, {case}", pixels.shape), "", data))
    return _figures(drawn)


def _maps(case: str, versions: Sequence[Version]) -> Markup:
    held = [(version, np.asarray(version.values[DISPARITY], np.float32)) for version in _of(DISPARITY, versions)]
    known = [found for found in (values[np.isfinite(values)] for _, values in held) if found.size]
    if not known:
        return Markup("")
    low, high = min(float(found.min()) for found in known), max(float(found.max()) for found in known)
    palette, drawn = colours.palette(colours.VIRIDIS), list[Drawn]()
    for version, values in held:
        label = _label(version)
        alt = f"Disparity of {label}, {case}, {low:.3g} (dark) to {high:.3g} (bright) pixels"
        data = png.indexed(colours.numbers(values, low, high), palette)
        drawn.append(Drawn(label, _img(data, alt, values.shape, "map"), f" ({low:.3g} to {high:.3g} px)", data))
    return _figures(drawn)


def _img(data: bytes, alt: str, shape: Sequence[int], kind: str | None = None) -> Markup:
    return tag("img", src=png.address(data), alt=alt, width=shape[1], height=shape[0], class_=kind)


# ------------------------------------------------------------------------------------------------------------- scores


def _scores(found: Sequence[Example]) -> Markup:
    """Scores of all real inputs: a table, and for each artifact a scatter against what is right."""
    held = [(example.case, {_label(v): v for v in _of(SCORE, example.versions)}) for example in found]
    held = [(case, versions) for case, versions in held if versions]
    names = list(dict.fromkeys(label for _, versions in held for label in versions))
    if not held:
        return Markup("")
    rows = [
        [case, *(_written(versions[name]) if name in versions else figures.NONE for name in names)]
        for case, versions in held
    ]
    columns = (Column("case"), *(Column(name, "number") for name in names))
    truths = sum(SAID["truth"] in versions for _, versions in held)
    right = SAID["truth"] if truths > 1 else SAID["reference"]
    drawn = [
        _scatter(name, right, points, index)
        for index, name in enumerate(name for name in names if name not in SAID.values())
        if len(points := _points(held, name, right)) > 1
    ]
    return joined(charts(drawn), details("Scores of all real inputs", table("Scores", columns, rows)))


def _written(version: Version) -> str:
    return ", ".join(figures.plain(float(value), 5) for value in version.values[SCORE][:4])


def _points(held: Sequence[tuple[str, Mapping[str, Version]]], name: str, right: str) -> list[tuple[float, float]]:
    """What is right and what was given, of every case that has both."""
    pairs = [(versions[right], versions[name]) for _, versions in held if {right, name} <= versions.keys()]
    found = [(float(a.values[SCORE][0]), float(b.values[SCORE][0])) for a, b in pairs]
    return [point for point in found if np.isfinite(point).all()]


def _scatter(name: str, right: str, points: Sequence[tuple[float, float]], index: int) -> tuple[str, Markup]:
    axes = plot.Axes(
        linear([x for x, _ in points]), linear([y for _, y in points]), figures.plain, figures.plain, right, name
    )
    shown = [plot.point(axes, x, y, "point") for x, y in points]
    said = f"scores of {len(points)} real inputs against {right}"
    return f"{name}: {said}", plot.plot(f"{name}: {said}", said, f"scores-{index}", axes, *shown)


# ------------------------------------------------------------------------------------------------------------ metrics


def _metrics(page: Page) -> Markup:
    """Task metrics of real inputs, as the verification measured them; they decide no verdict."""
    rows: list[list[Content]] = []
    for judged in page.artifacts_first:
        for metric in judged.facts.each("metrics"):
            unit = metric.text("unit")
            for case, row in metric.named("cases"):
                values = [_metric(row.number(which), unit) for which in ("artifact", "eager", "difference")]
                against = row.text("against") + (f": {row.text('note')}" if row.text("note") else "")
                rows.append([judged.named, metric.text("name"), case, *values, against])
    return (
        table("Task metrics; they stand beside the verdict and never decide it", METRIC, rows) if rows else Markup("")
    )


def _metric(value: float | None, unit: str) -> str:
    return "undefined" if value is None else f"{figures.plain(value, 4)} {unit}".strip()
