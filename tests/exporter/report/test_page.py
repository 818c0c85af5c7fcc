"""The page: verdict first, self-contained, accessible, the same bytes twice, what is missing shown as missing."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from exporter import report
from exporter.bundle import Bundle
from exporter.errors import Refused
from exporter.report import MOST_BYTES, default_place, html, written
from exporter.verdict import Hop, Precision, Verdict
from tests.attacks.bundles import manifest
from tests.exporter.report.bundles import (
    Elements,
    export,
    hops,
    profile,
    published,
    result,
    subject,
    text_of,
    verification,
)

HOSTILE = "<script>alert(1)</script>\"'><svg onload=x>\u202e\u00fc"


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return published(tmp_path / "tiny.bundle")


def test_the_verdict_is_the_first_thing_said_with_the_weights_beside_it(bundle: Bundle) -> None:
    page = html(bundle)
    first = Elements(page[page.index('<section id="verdict"') :])
    assert first.text.startswith("Verdict SKIPPED 2 hops, 1 case, 2,000 values compared")
    assert "seeded weights (seed 0): noise, not a trained model" in first.text
    assert first.text.index("seeded weights") < first.text.index("Artifacts")


def test_the_same_bundle_gives_the_same_bytes(bundle: Bundle, tmp_path: Path) -> None:
    again = published(tmp_path / "other.bundle")
    assert html(bundle) == html(bundle) == html(again)


def test_it_loads_nothing_and_runs_nothing(bundle: Bundle) -> None:
    page = Elements(html(bundle))
    (policy,) = [m["content"] for m in page.named("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None and policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy and "http" not in policy
    assert not page.named("script") and not page.named("iframe") and not page.named("form")
    for _, attributes in page.found:
        assert not any(name.startswith("on") or name == "style" for name in attributes)
        for name in ("src", "href"):
            link = attributes.get(name)
            assert link is None or link.startswith(("data:", "#")), link


def test_it_is_a_document_that_a_screen_reader_finds_its_way_in(bundle: Bundle) -> None:
    page = Elements(html(bundle))
    assert page.named("html") == [{"lang": "en"}] and len(page.named("h1")) == len(page.named("main")) == 1
    levels = [int(name[1]) for name, _ in page.found if re.fullmatch("h[1-6]", name)]
    assert levels[0] == 1 and all(b - a <= 1 for a, b in pairwise(levels))
    ids = [a["id"] for _, a in page.found if "id" in a]
    assert len(ids) == len(set(ids))
    for _, attributes in page.found:
        if (attributes.get("href") or "").startswith("#"):
            assert (attributes["href"] or "")[1:] in ids
        if "aria-labelledby" in attributes:
            assert set((attributes["aria-labelledby"] or "").split()) <= set(ids)
    for svg in page.named("svg"):
        assert svg.get("aria-hidden") == "true" or svg.get("role") == "img"
    assert all(th.get("scope") in ("col", "row") for th in page.named("th"))


def hostile_reports() -> dict[str, Any]:
    """Reports in which everything that is text is hostile."""
    curve = {"output": HOSTILE, "error": [1e-7, 2e-7], "eager": [1e-7]}
    facts = {
        "advice": [HOSTILE], "by": HOSTILE, "log": HOSTILE, "budget": HOSTILE, "work": {HOSTILE: 0.5, "fp32": 0.5},
        "bin": {"layers": {HOSTILE: 3}, "providers": {HOSTILE: 4}}, "kept": {HOSTILE: HOSTILE},
        "drift": {HOSTILE: curve},
        "modules": {HOSTILE: HOSTILE}, "rung": {"name": HOSTILE, "bound": 4.0, "error": 0.1},
        "histograms": {HOSTILE: {"first_power": -12, "step": 0.5, "exact": 3, "counts": [0, 1, 2]}},
        "metrics": [{"name": HOSTILE, "unit": HOSTILE, "cases": {HOSTILE: {"against": HOSTILE, "note": HOSTILE}}}],
    }  # fmt: skip
    one = result("compiled", "some", HOSTILE, output=HOSTILE, form=HOSTILE, reason=HOSTILE, notes=(HOSTILE,))
    bad = Hop("compiled", "some", Verdict.FAIL, HOSTILE, Precision("fp32", HOSTILE, HOSTILE), (one,), facts)
    layer = {"ms": 1.0, "kind": HOSTILE, "precision": HOSTILE, "nodes": [HOSTILE]}
    subjects = (
        subject("some", 1.0, advice=[HOSTILE], reasons=[{"text": HOSTILE}], layer_times=[layer]),
        subject(HOSTILE, None, reason=HOSTILE),
    )
    ratios = [{"of": HOSTILE, "to": HOSTILE, "median": 1.0, "interval": [1, 2], "conclusion": HOSTILE}]
    said = {"stability": HOSTILE, "warnings": [{"what": HOSTILE, "advice": HOSTILE}], "reasons": [{"text": HOSTILE}]}
    found = profile(*subjects, cpu=HOSTILE, ratios=ratios, **said)
    found["environment"] |= {"packages": {HOSTILE: HOSTILE}, "governor": HOSTILE,
                             "devices": {HOSTILE: {HOSTILE: {HOSTILE: HOSTILE}}}}  # fmt: skip
    stages = [{"stage": HOSTILE, "seconds": 1.0, "peak_rss_mb": 1.0, "cached": True}]
    return {
        "verify": verification([bad]),
        "profile": found,
        "profile-two": profile(subject(HOSTILE, 2.0), cpu=f"two {HOSTILE}"),
        "export-some-fp32": export(stages=stages, verify=None, profile=None),
    }


def test_whatever_a_bundle_says_stays_text(tmp_path: Path) -> None:
    whole, named = manifest(), HOSTILE.replace("\u202e", "")
    bundle = published(
        tmp_path / "b",
        hostile_reports(),
        model=replace(whole.model, family=named, licence=named, source=named, options={named: named}),
        weights=replace(whole.weights, source=named, licence=named),
        tools={named: named},
    )
    page = html(bundle)
    assert "<script" not in page and "onload=x>" not in page and "\u202e" not in page
    assert page.count("&lt;script&gt;alert(1)") > 60
    known = {
        *("html", "head", "meta", "link", "title", "style", "body", "header", "nav", "main", "section", "footer"),
        *("h1", "h2", "h3", "h4", "p", "ul", "li", "a", "b", "small", "code", "pre", "div", "details", "summary"),
        *("table", "caption", "thead", "tbody", "tr", "th", "td", "dl", "dt", "dd", "figure", "figcaption"),
        *("svg", "line", "rect", "circle", "text", "g", "polyline", "title", "desc"),
    }
    assert {name for name, _ in Elements(page).found} <= known
    ids = [attributes["id"] for _, attributes in Elements(page).found if "id" in attributes]
    assert len(ids) == len(set(ids)) and all(re.fullmatch(r"[a-z0-9-]+", each or "") for each in ids)


def test_a_bundle_that_was_never_profiled_says_so_and_how(tmp_path: Path) -> None:
    page = text_of(html(published(tmp_path / "b", {"export-some-fp32": export(profile=None)})))
    assert "Not measured. No latency was measured into this bundle. exporter profile tiny.bundle --save" in page


def test_a_bundle_without_any_report_proves_nothing_and_says_how(tmp_path: Path) -> None:
    page = text_of(html(published(tmp_path / "b", {})))
    assert "SKIPPED nothing was compared, so nothing is proven" in page
    assert "exporter verify tiny.bundle --target some/fp32 --save" in page
    assert "Not measured. No report holds errors per case. exporter verify tiny.bundle --save" in page


def test_a_target_that_is_not_compiled_is_told_with_what_finishes_it(bundle: Bundle) -> None:
    page = text_of(html(bundle))
    assert "SKIPPED some/int8: not compiled yet. exporter compile ." in page


def test_stability_stands_before_the_number(bundle: Bundle) -> None:
    page = text_of(html(bundle))
    row = page[page.index("eager", page.index("95 % interval")) :]
    assert row.index("STABLE") < row.index("4.00 ms")


def test_errors_are_drawn_with_noise_and_bound(bundle: Bundle) -> None:
    page = html(bundle)
    cells = re.findall(r'<td class="chart">(.*?)</td>', page)
    drawn = [cell for cell in cells if "dot good" in cell]
    assert drawn and all('class="noise"' in cell and 'class="bound"' in cell for cell in drawn)


def test_a_bound_that_an_older_version_did_not_keep_is_missing(tmp_path: Path) -> None:
    old = [Hop(hop.hop, hop.target, hop.verdict, None, hop.precision, hop.results) for hop in hops()]
    page = html(published(tmp_path / "b", {"verify": verification(old)}))
    assert "What was allowed was not kept for compiled for some/fp32 and traced." in text_of(page)
    assert 'class="bound"' not in re.sub("<p>.*?</p>", "", page) and 'class="noise"' in page


def test_a_thousand_cases_are_cut_and_counted(tmp_path: Path) -> None:
    many = [result("compiled", "some", f"case-{i}") for i in range(1000)]
    found = [Hop("compiled", "some", Verdict.PASS, None, Precision("fp32", "fp32", "fp32"), tuple(many))]
    page = html(published(tmp_path / "b", {"verify": verification(found)}))
    assert len(page) < MOST_BYTES and "880 more rows" in page


def test_a_page_that_would_be_too_large_goes_without_what_there_is_to_look_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = {"some/fp32/sample-a/image": np.zeros((40, 40, 3), np.uint8)}
    bundle = published(tmp_path / "b", case=save({"input/x": np.zeros(1)}), previews=save(picture))
    assert "<img" in html(bundle)
    monkeypatch.setattr(report, "MOST_BYTES", len(html(bundle)) - 1)
    assert "<img" not in html(bundle) and "the page would be larger than 3 MB" in html(bundle)


# ---------------------------------------------------------------------------------------------------------- the file


def test_it_is_written_beside_the_bundle_and_over_an_older_one(bundle: Bundle) -> None:
    place = written(bundle.path)
    assert place == default_place(bundle.path) == bundle.path.with_name("tiny.report.html")
    assert place.read_text(encoding="utf-8") == html(bundle) and place.stat().st_size < MOST_BYTES
    assert written(bundle.path) == place
    assert sorted(p.name for p in bundle.path.parent.iterdir()) == ["tiny.bundle", "tiny.report.html"]


def test_what_somebody_else_wrote_is_not_overwritten_unless_asked(bundle: Bundle, tmp_path: Path) -> None:
    mine = tmp_path / "notes.html"
    mine.write_text("mine")
    with pytest.raises(Refused) as refused:
        written(bundle.path, mine)
    assert refused.value.code == "file-exists" and mine.read_text() == "mine"
    assert written(bundle.path, mine, overwrite=True) == mine and mine.read_text() == html(bundle)


@pytest.mark.parametrize("name", ["page.txt", "page", "nowhere/page.html", "folder.html"])
def test_a_place_where_no_page_can_be_written_is_refused(bundle: Bundle, tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(Refused) as refused:
        written(bundle.path, tmp_path / name)
    assert refused.value.code == "bad-output" and refused.value.next


def _luminance(color: str) -> float:
    """Of WCAG 2.2: https://www.w3.org/TR/WCAG22/#dfn-relative-luminance."""
    digits = color if len(color) == 6 else "".join(digit * 2 for digit in color)
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_what_is_drawn_stands_out_from_the_paper_in_every_theme() -> None:
    """Three to one, as WCAG asks of graphics (1.4.11)."""
    themes = re.findall(r":root \{(.*?)\}", (Path(report.__file__).parent / "style.css").read_text(), re.DOTALL)
    assert len(themes) == 3, "light, dark, print"
    for theme in themes:
        colors = dict(re.findall(r"--(\w+): #([0-9a-f]+);", theme))
        paper = _luminance(colors["paper"])
        for name in ("mark", "fill", "noise", "bound", *(f"tone{index}" for index in range(5))):
            dark, light = sorted((paper, _luminance(colors[name])))
            assert (light + 0.05) / (dark + 0.05) >= 3.0, name
