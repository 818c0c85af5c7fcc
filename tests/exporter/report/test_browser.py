"""The page in a real Chromium: it renders, loads nothing, complains of nothing, fits a phone, dark and light."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from exporter.report import written
from exporter.spec import HostStep
from tests.exporter.report.browser import Browser, browser, chromium
from tests.exporter.report.bundles import export, hops, profile, published, subject, verification
from tests.exporter.report.test_page import hostile_reports

pytestmark = pytest.mark.skipif(chromium() is None, reason="NO CHROMIUM: apt-get install chromium")

# Of every element with text of its own: its colour against the first ground under it that is painted.
CONTRASTS = """
(() => {
  const parts = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const linear = x => x <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4;
  const light = c => { const v = c.slice(0, 3).map(x => linear(x / 255));
    return .2126 * v[0] + .7152 * v[1] + .0722 * v[2] };
  const ground = e => { for (; e; e = e.parentElement) { const c = parts(getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] > 0) return c } return parts(getComputedStyle(document.body).backgroundColor) };
  const found = [];
  for (const e of document.querySelectorAll('body *:not(title, desc)')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) continue;
    const style = getComputedStyle(e);
    const a = light(parts(e instanceof SVGElement ? style.fill : style.color)), b = light(ground(e));
    found.push([(Math.max(a, b) + .05) / (Math.min(a, b) + .05), e.outerHTML.slice(0, 80)]);
  }
  return found.sort((x, y) => x[0] - y[0]).slice(0, 3);
})()
"""
WIDER = """
[...document.querySelectorAll('body *')].filter(e => !e.closest('.wide, pre') &&
  e.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map(e => e.outerHTML.slice(0, 100))
"""


@pytest.fixture(scope="module")
def it() -> Iterator[Browser]:
    with browser() as found:
        yield found


def rich(folder: Path) -> Path:
    """The page of a bundle that has something for every section."""
    counts = [0] * 8 + [10, 80, 10] + [0] * 17
    facts: dict[str, Any] = {
        "histograms": {"y": {"first_power": -12, "step": 0.5, "exact": 900, "counts": counts}},
        "drift": {"a": {"output": "y", "error": [1e-7 * (1 + i % 7) for i in range(600)], "eager": [1e-7] * 600}},
        "bin": {"layers": {"fp32": 1, "bf16": 3}, "providers": {"CPU": 7}}, "work": {"fp32": 0.25, "bf16": 0.75},
    }  # fmt: skip
    layers = [
        {"ms": float(i), "kind": "Conv", "precision": "fp32", "nodes": [f"/net/block.{i}/conv"]} for i in range(1, 20)
    ]
    x = 255 * np.random.default_rng(0).random((1, 3, 40, 60), np.float32)
    wave = (0.3 * np.sin(np.arange(16000) / 9)).astype(np.float32)
    case = {"input/x": x, "reference/y": x.astype(np.float64) / 255, "truth/audio": wave, "reference/audio": wave,
            "reference/sample_rate": np.array(16000)}  # fmt: skip
    bundle = published(
        folder / "rich.bundle",
        {
            "verify": verification(hops(**facts)),
            "profile": profile(subject("eager", 4.0), subject("some", 1.0, layer_times=layers)),
            "there": profile(subject("some", 9.0), cpu="A Board"),
            "export-some-fp32": export(),
        },
        case=save(case),
        previews=save({"some/fp32/sample-a/disparity": np.random.default_rng(0).random((40, 60)).astype(np.float32)}),
        before=(HostStep("image", {"to": "x", "high": 255.0}),),
        after=(HostStep("clamp", {"of": "y", "to": "image"}),),
    )
    return written(bundle.path)


@pytest.fixture(scope="module", params=["rich", "hostile", "empty"])
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with something for every section, one whose every text is hostile, and one of a bundle without reports."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "rich":
        return rich(folder)
    return written(published(folder / "b.bundle", hostile_reports() if request.param == "hostile" else {}).path)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_it_loads_in_silence_and_fits(it: Browser, page: Path, width: int, scheme: str) -> None:
    it.size(width)
    it.media(scheme)
    it.open(page)
    assert it.value("document.querySelector('section h2').textContent") == "Verdict"
    assert it.value("document.documentElement.scrollWidth") <= width
    assert it.value(WIDER) == []
    assert it.complaints == []
    assert [address for address in it.requests if not address.startswith("data:")] == [page.resolve().as_uri()]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(it: Browser, page: Path, scheme: str) -> None:
    it.size(1200)
    it.media(scheme)
    it.open(page)
    it.value("document.querySelectorAll('details').forEach(each => each.open = true)")
    ground = it.value("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (max(ground) < 60) == (scheme == "dark") and (min(ground) > 200) == (scheme == "light")
    worst = it.value(CONTRASTS)
    assert worst and worst[0][0] >= 4.5, worst


def test_every_link_has_its_target_and_every_medium_can_be_played(it: Browser, page: Path) -> None:
    it.size(1200)
    it.open(page)
    links = "[...document.querySelectorAll('a')].map(a => a.getAttribute('href'))"
    assert len(it.value(links)) >= 12
    assert it.value(f"{links}.filter(href => !document.getElementById(href.slice(1)))") == []
    assert it.value("[...document.images].filter(image => !image.complete || !image.naturalWidth).length") == 0
    metadata = """Promise.all([...document.querySelectorAll('audio')].map(a => a.readyState ? a.duration :
        new Promise(done => { a.onloadedmetadata = () => done(a.duration); a.onerror = () => done(-1); a.load() })))"""
    durations = it.value(metadata)
    assert all(seconds > 0 for seconds in durations)
    if page.name.startswith("rich"):
        assert it.value("document.images.length") >= 3 and len(durations) == 1


def test_the_keyboard_reaches_the_verdict_first_and_shows_where_it_is(it: Browser, page: Path) -> None:
    it.size(1200)
    it.open(page)
    for kind in ("keyDown", "keyUp"):
        it.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
    assert it.value("document.activeElement.textContent") == "Skip to the verdict"
    assert it.value("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert it.value("document.activeElement.getBoundingClientRect().left") >= 0


def test_a_screen_reader_finds_names_for_what_it_finds(it: Browser, page: Path) -> None:
    it.open(page)
    it.call("Accessibility.enable")
    nodes = it.call("Accessibility.getFullAXTree")["nodes"]
    it.call("Accessibility.disable")
    named = {(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if not n.get("ignored")}
    roles = {role for role, _ in named}
    assert {"main", "navigation", "banner", "contentinfo", "heading", "region"} <= roles
    for role in ("region", "navigation", "link", "image", "img", "table", "Audio"):
        assert (role, "") not in named, role
    assert ("region", "Latency") in named


def test_it_prints_on_paper_with_everything_that_is_folded(it: Browser, page: Path) -> None:
    it.size(1000)
    it.media(kind="print")
    it.open(page)
    assert it.value("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert it.value("document.documentElement.scrollWidth <= innerWidth")
    wide = "[...document.querySelectorAll('.wide')].filter(e => e.scrollWidth > innerWidth).length"
    assert it.value(wide) == 0 or page.name.startswith("b."), "paper does not scroll"
    small = "e.getBoundingClientRect().height < 2 * e.firstElementChild.getBoundingClientRect().height"
    folded = f"[...document.querySelectorAll('details:not(.numbers)')].filter(e => {small})"
    assert it.value(f"{folded}.length") == 0
    data = it.printed()
    it.media()
    assert data.startswith(b"%PDF") and len(data) > 10_000


def test_a_script_that_got_in_would_not_run(it: Browser, tmp_path: Path) -> None:
    """The policy is what holds if escaping ever fails."""
    text = rich(tmp_path).read_text(encoding="utf-8")
    spoiled = tmp_path / "spoiled.html"
    bad = "<script>window.came = 1</script><img src=x onerror='window.came = 2'><img src='http://127.0.0.1:9/x'>"
    spoiled.write_text(text.replace("<main>", f"{bad}<main>"), encoding="utf-8")
    it.open(spoiled)
    assert it.value("window.came === undefined") is True
    assert it.complaints, "the browser says what it refused"
